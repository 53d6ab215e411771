"""Repairing files in a copy that becomes the output whole, or not at all."""

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from planaria.checkpoints.base import require_file
from planaria.checkpoints.sharded_folder import INDEX
from planaria.errors import InvalidInput, OutputFailed
from planaria.files import flush, followed, printable, temporary_folder

FileState = tuple[int, int, int] | None


def is_archive(model: str | os.PathLike[str]) -> bool:
    """Whether a path is a pickled state dict, which is loaded whole and written anew."""
    return Path(model).suffix in (".pt", ".pth", ".bin")


def model_files(model: str | os.PathLike[str], headers: Mapping[str, bytes]) -> dict[str, Path]:
    """The files of a model on disk, there or missing, by the names that its guard's headers give them."""
    path = Path(model)
    if path.is_dir() and INDEX in headers:
        return {name: path / name for name in headers}
    return {next(iter(headers)): path / "model.safetensors" if path.is_dir() else path}


class Copy:
    """A copy of a model on disk, beside its output, to be repaired there and published.

    Publishing renames: a single file in one step; a folder's shards one after the other, each whole. Whatever happens
    before, the output is as it was and nothing is left over.

    Links are followed, those of single shards too: what they lead to is replaced, by a copy made beside it, and they
    stay links. Shards that are missing are missing in the copy.

    Args:
        model: a `.safetensors` file, or a folder with one or with shards.
        output: file or folder; None to replace the model itself.
        headers: by the names of the model's files, from the guard.

    Raises:
        OutputFailed: if the copy cannot be made.
        InvalidFile: if one of the model's files is not a regular one.
        FileNotFoundError: if all of them are missing.
        InvalidInput: if the output folder exists, or a file and a folder are mixed up.
    """

    def __init__(
        self, model: str | os.PathLike[str], output: str | os.PathLike[str] | None, headers: Mapping[str, bytes]
    ):
        self.files = model_files(model, headers)
        self._in_shards = INDEX in self.files
        self.source = Path(model) if self._in_shards else next(iter(self.files.values()))
        self.output = Path(output) if output is not None else self.source
        self.in_place = output is None
        if self._in_shards and not self.in_place and os.path.lexists(self.output):
            raise InvalidInput(f"The output folder {self.output} exists. Name a new one, or repair in place.")
        if not self._in_shards and self.output.is_dir():
            raise InvalidInput(f"The output {self.output} is a folder and the model a file. Name a file.")

    def __enter__(self) -> Self:
        shards = {name: path for name, path in self.files.items() if name != INDEX}
        if not any(path.exists() for path in shards.values()):
            raise FileNotFoundError(f"There is no file {next(iter(shards.values()))}.")
        for path in self.files.values():
            if os.path.lexists(path) and not _leads_nowhere(path):
                require_file(path)  # copying a pipe or a device would never end
        self._targets = self._chosen_targets()
        self.before = file_states(self.files)
        with ExitStack() as made:
            try:
                self.path = self._copied(made)
            except OSError as error:
                raise OutputFailed(
                    f"Cannot copy {self.source} to {self.output.parent}: {error.strerror or error}. Choose a folder "
                    "that can be written and has room."
                ) from error
            self._folders = made.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._folders.close()

    def publish(self, *, unchanged: bool = False) -> tuple[str, ...]:
        """Renames the copy into place, unless nothing changed.

        Answers with what a person should know of it: a sentence if links were followed, and one if files have other
        names, which keep what was found. Raises `OutputFailed`.
        """
        for name, path in self.files.items():
            if file_state(path) != self.before[name]:
                raise OutputFailed(
                    f"{printable(path)} changed while it was being repaired. Nothing was written; repair it again."
                )
        if unchanged:
            return ()
        notes = self._notes()
        try:
            if self._in_shards and not self.in_place:
                for path in self.source.iterdir():  # what comes with a model: its configuration, its tokenizer
                    if path.is_file() and path.name not in self.files:
                        shutil.copyfile(path, self.path / path.name)
                        flush(self.path / path.name)
                flush(self.path)
                self.path.rename(self.output)
            else:
                for name, copy in self._copies.items():
                    if self.files[name].exists():
                        _take_after(self.files[name], copy)
                    os.replace(copy, self._targets[name])
        except OSError as error:
            raise OutputFailed(
                f"Cannot write {self.output}: {error.strerror or error}. Choose another output."
            ) from error
        try:
            for folder in {target.absolute().parent for target in self._targets.values()}:
                flush(folder)
        except OSError as error:
            raise OutputFailed(
                f"{self.output} is written, but may not outlast a loss of power: {error.strerror or error}. Check it."
            ) from error
        return notes

    def _chosen_targets(self) -> dict[str, Path]:
        """What each file's copy is renamed to. One folder's for all, if that is what is made."""
        if self.in_place:
            return {name: followed(path) for name, path in self.files.items()}
        return dict.fromkeys(self.files, self.output if self._in_shards else followed(self.output))

    def _copied(self, made: ExitStack) -> Path:
        """Copies all files, beside what they will replace, and answers with the path of the copied model.

        Shards that links scatter over several folders are copied there; the copied model then has links to them.
        """
        self._copies: dict[str, Path] = {}
        folders: dict[Path, Path] = {}
        for target in self._targets.values():
            parent = target.absolute().parent
            if parent not in folders:
                folders[parent] = made.enter_context(temporary_folder(target))
        first = next(iter(folders.values()))
        whole = first / self.source.name
        if self._in_shards:
            whole = first / "model"
            whole.mkdir()
        for name, target in self._targets.items():
            folder = folders[target.absolute().parent]
            placed = whole / name if self._in_shards else whole
            copy = placed if folder == first else folder / name
            self._copies[name] = copy
            if self.files[name].exists():
                shutil.copyfile(self.files[name], copy)
            if copy != placed:
                placed.symlink_to(copy)
        return whole

    def _notes(self) -> tuple[str, ...]:
        links = {name: target for name, target in self._targets.items() if target != self._named(name)}
        notes = []
        if links and not self._in_shards:
            ((name, target),) = links.items()
            notes = [f"{self._named(name)} is a link: {target}, to which it leads, was written, and the link left"]
        elif links and self.in_place:
            name, target = next(iter(links.items()))
            more = f" and {len(links) - 1} more are links" if len(links) > 1 else " is a link"
            notes = [f"{self._named(name)}{more}: what they lead to, in {target.parent}, was written, and links left"]
        others = [path for path in self.files.values() if path.exists() and path.stat().st_nlink > 1]
        if self.in_place and others:
            notes.append(f"other names (hard links) of {others[0]} keep what was found: check these too")
        return tuple(map(printable, notes))

    def _named(self, name: str) -> Path:
        """Where the user says that a file is to be written."""
        return self.files[name] if self.in_place else self.output


def file_state(path: Path) -> FileState:
    """Changes when the file does; None if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def file_states(files: Mapping[str, Path]) -> dict[str, FileState]:
    """Of each of a model's files."""
    return {name: file_state(path) for name, path in files.items()}


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _take_after(path: Path, copy: Path) -> None:
    """Gives a copy the permissions and, where that is allowed, the owner of the file that it replaces."""
    status = path.stat()
    with suppress(PermissionError):
        os.chown(copy, status.st_uid, status.st_gid)
    shutil.copymode(path, copy)
