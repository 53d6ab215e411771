"""Repairing files in a copy that becomes the output whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from planaria.checkpoints.base import require_file
from planaria.checkpoints.sharded_folder import INDEX
from planaria.errors import InvalidInput, OutputFailed


def is_archive(model: str | os.PathLike[str]) -> bool:
    """Whether a path is a pickled state dict, which is loaded whole and written anew."""
    return Path(model).suffix in (".pt", ".pth", ".bin")


class Copy:
    """A copy of a model on disk, beside its output, to be repaired there and published.

    Publishing renames: a single file in one step; a folder's shards one after the other, each whole. Whatever happens
    before, the output is as it was and nothing is left over. A symbolic link in the output's place is replaced, never
    followed.

    Args:
        model: a `.safetensors` file, or a folder with one or with shards.
        output: file or folder; None to replace the model itself.
        headers: by the names of the model's files, from the guard.

    Raises:
        OutputFailed: if the copy cannot be made.
        InvalidFile: if one of the model's files is not a regular one.
        FileNotFoundError: if one is missing, but for the index of shards.
        InvalidInput: if the output folder exists, or a file and a folder are mixed up.
    """

    def __init__(
        self, model: str | os.PathLike[str], output: str | os.PathLike[str] | None, headers: Mapping[str, bytes]
    ):
        source = Path(model)
        if source.is_dir() and INDEX not in headers:
            source = source / "model.safetensors"
        self.source = source
        self.output = Path(output) if output is not None else source
        self.in_place = output is None
        names = list(headers) if source.is_dir() else [""]
        self.files = {name: source / name if name else source for name in names}
        if source.is_dir() and not self.in_place and os.path.lexists(self.output):
            raise InvalidInput(f"The output folder {self.output} exists. Name a new one, or repair in place.")
        if not source.is_dir() and self.output.is_dir():
            raise InvalidInput(f"The output {self.output} is a folder and the model a file. Name a file.")

    def __enter__(self) -> Self:
        for name, path in self.files.items():
            if name != INDEX or os.path.lexists(path):
                require_file(path)  # copying a pipe or a device would never end
        self.before = {name: file_state(path) for name, path in self.files.items()}
        try:
            self._folder = tempfile.TemporaryDirectory(
                dir=self.output.absolute().parent, prefix=f".{self.output.name}."
            )
            self.path = Path(self._folder.name) / self.source.name
            try:
                if self.source.is_dir():
                    self.path.mkdir()
                for name, path in self.files.items():
                    copy = self.path / name if name else self.path
                    if path.exists():
                        shutil.copyfile(path, copy)
            except BaseException:
                self._folder.cleanup()
                raise
        except OSError as error:
            raise OutputFailed(
                f"Cannot copy {self.source} to {self.output.parent}: {error.strerror or error}. Choose a folder that "
                "can be written and has room."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def publish(self, *, unchanged: bool = False) -> None:
        """Renames the copy into place, unless nothing changed. Raises `OutputFailed`."""
        for name, path in self.files.items():
            if file_state(path) != self.before[name]:
                raise OutputFailed(f"{path} changed while it was being repaired. Nothing was written; repair it again.")
        if unchanged:
            return
        try:
            if self.source.is_dir() and not self.in_place:
                for path in self.source.iterdir():  # what comes with a model: its configuration, its tokenizer
                    if path.is_file() and path.name not in self.files:
                        shutil.copyfile(path, self.path / path.name)
                        _flush(self.path / path.name)
                _flush(self.path)
                self.path.rename(self.output)
            else:
                for name, path in self.files.items():
                    copy = self.path / name if name else self.path
                    if path.exists():
                        shutil.copymode(path, copy)
                    os.replace(copy, self.output / name if name else self.output)
        except OSError as error:
            raise OutputFailed(
                f"Cannot write {self.output}: {error.strerror or error}. Choose another output."
            ) from error
        try:
            _flush(self.output if self.in_place and self.source.is_dir() else self.output.absolute().parent)
        except OSError as error:
            raise OutputFailed(
                f"{self.output} is written, but may not outlast a loss of power: {error.strerror or error}. Check it."
            ) from error


def file_state(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _flush(path: Path) -> None:
    """Makes a file's contents, or a folder's names, last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
