"""The guard: what is kept beside a model to find damage and repair it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from planaria.checkpoints import open_checkpoint, write_state_dict
from planaria.checkpoints.opening import load_state_dict
from planaria.checkpoints.sharded_folder import INDEX
from planaria.errors import InvalidInput, OutputFailed
from planaria.files import followed
from planaria.guard.copies import Copy, file_states, is_archive, model_files
from planaria.guard.file import GuardFile
from planaria.guard.header_recovery import recovered_headers
from planaria.guard.known import Mask, known_weights
from planaria.guard.quick import quick_check
from planaria.guard.reading import require_weights, unchanged_while_read
from planaria.guard.repair import diagnose
from planaria.guard.report import Report

Model = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
Progress = Callable[[int, int, str], None]


class Guard(GuardFile):
    """A guard. Made by `planaria.protect` or `Guard.load`; checks and repairs its model.

    A model is a module, a state dict, a `.safetensors` or `.pt` file, or a folder of sharded safetensors; of the same
    names, types and shapes as the protected one, wherever that lived.
    """

    def check(
        self,
        model: Model,
        *,
        known: Mask | None = None,
        faulty: Mask | None = None,
        quick: bool = False,
        force: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """What is damaged, and how exactly a repair would restore it. Changes nothing.

        Cost: one pass over the model if it is intact.

        Args:
            model: the model.
            known: by tensor, True where a hardware test found a weight good; tensors left out are all good. Bool
                tensors, NumPy arrays or lists.
            faulty: the same the other way round, True where a weight is not to be trusted; in the place of `known`.
            quick: answer from digests alone, without asking what a repair would make of it: damaged tiles have the
                verdict "damaged". Takes no mask, and no model is refused.
            force: diagnose also a model that looks different rather than damaged, of which whole files are lost, or
                with a mask that digests contradict.
            threads: to compute with; by default as many as PyTorch uses.
            progress: called with (done, total, what).

        Raises:
            OtherModel: if names, types or shapes are not the guard's.
            LooksDifferent: if most tiles changed and all weights look sound, unless forced.
            InvalidInput: if the mask does not fit the model; if it calls most of a tensor bad whose bytes match their
                digests, unless forced; or if there is one and `quick`.
            InvalidFile: if the model cannot be read, changed while it was read, or if a file of it holds no weights at
                all (a pointer, a web page, nothing) and cannot be restored exactly, unless forced.
            FileNotFoundError: if it is not there; of shards, if all are missing.
        """
        mask = known_weights(self, known, faulty)
        if quick and mask is not None:
            raise InvalidInput("A quick check asks digests alone, and takes no mask. Leave one of them out.")
        counted = self._counted(progress, "check")
        headers = self.headers_for(model)
        files = self._files(model, headers)
        with unchanged_while_read(files) as changed:
            mended = recovered_headers(self, files)
            with open_checkpoint(model, headers=headers, mended=mended) as checkpoint:
                if quick:
                    report = quick_check(self, checkpoint, progress=counted)
                else:
                    report, _ = diagnose(
                        self,
                        checkpoint,
                        action="check",
                        known=mask,
                        force=force,
                        threads=threads or torch.get_num_threads(),
                        examined=lambda examination: None if force else require_weights(self, examination, files),
                        progress=counted,
                    )
            if report.verdict != "intact":
                changed()
        return report

    def repair(
        self,
        model: Model,
        output: str | os.PathLike[str] | None = None,
        *,
        in_place: bool = False,
        known: Mask | None = None,
        faulty: Mask | None = None,
        force: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Repairs a model: in memory in place, a file into `output` or, if so told, in place. Links are followed.

        Files are repaired in a copy beside the output, verified there, flushed and renamed; each file is the old or the
        new one at any moment, whole. Weights that are proven intact never change.

        Args:
            model: the model.
            output: for a model on disk, the file or folder to write; for a model in memory there is none.
            in_place: for a model on disk, write over it instead. A model in memory is repaired in place anyway.
            known, faulty, force, threads, progress: as for `check`.

        Raises:
            InvalidInput: of a model on disk also unless there is either an output or `in_place`.
            OutputFailed: if the output cannot be written, or the model changed meanwhile.
            VerificationFailed: if the repair did not read back as computed; nothing is written then.
            OtherModel, LooksDifferent, InvalidInput, InvalidFile, FileNotFoundError: as `check`.
        """
        if isinstance(model, (str, os.PathLike)) and (output is None) != in_place:
            raise InvalidInput("A model on disk is repaired into an output or in place. Give output or in_place=True.")
        threads = threads or torch.get_num_threads()
        counted = self._counted(progress, "repair")
        mask = known_weights(self, known, faulty)
        headers = self.headers_for(model)
        files = self._files(model, headers)
        if isinstance(model, (str, os.PathLike)) and not is_archive(model):
            with unchanged_while_read(files), Copy(model, output, headers) as copy:
                mended = recovered_headers(self, self._files(copy.path, headers))
                with open_checkpoint(copy.path, headers=headers, mended=mended, writable=True) as checkpoint:
                    report, overlay = diagnose(
                        self, checkpoint, action="repair", known=mask, force=force, flush=True, threads=threads,
                        examined=lambda examination: None if force else require_weights(self, examination, files),
                        progress=counted,
                    )  # fmt: skip
                    overlay.commit()
                    checkpoint.write_headers()
                notes = copy.publish(unchanged=report.verdict == "intact" and output is None)
            return replace(report, notes=(*report.notes, *notes))
        before = file_states(files)
        with unchanged_while_read(files):
            on_disk = load_state_dict(next(iter(files.values()))) if files else None
        if output is not None and on_disk is None:
            raise InvalidInput("A model in memory is repaired in place. Save it yourself, and leave the output out.")
        if output is not None and not is_archive(output):
            raise InvalidInput(
                f"A .pt file is repaired into one, not into {Path(output).name!r}. Convert it afterwards."
            )
        with open_checkpoint(model if on_disk is None else on_disk, headers=headers, writable=True) as checkpoint:
            report, overlay = diagnose(
                self, checkpoint, action="repair", known=mask, force=force, threads=threads, progress=counted
            )
            overlay.commit()
        if isinstance(model, (str, os.PathLike)) and on_disk is not None and (output or report.verdict != "intact"):
            if file_states(files) != before:
                raise OutputFailed(
                    f"{model} changed while it was being repaired. Nothing was written; repair it again."
                )
            target = Path(output or model)
            if target.is_symlink():
                note = f"{target} is a link: {followed(target)}, to which it leads, was written, and the link left"
                report = replace(report, notes=(*report.notes, note))
            write_state_dict(target, on_disk)
        return report

    def headers_for(self, model: Model) -> dict[str, bytes]:
        """The protected model's headers, as far as this one can have them: only a folder has an index of its shards."""
        in_shards = isinstance(model, (str, os.PathLike)) and Path(model).is_dir()
        return {name: header for name, header in self.headers.items() if in_shards or name != INDEX}

    def _files(self, model: Model, headers: Mapping[str, bytes]) -> dict[str, Path]:
        """The model's files by the names of their headers; none of a model in memory."""
        return model_files(model, headers) if isinstance(model, (str, os.PathLike)) else {}

    def _counted(self, progress: Progress | None, what: str) -> Callable[[int], None]:
        total, done = self.protected_bytes, 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(min(done, total), total, what)

        return more
