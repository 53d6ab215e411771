"""The contract of a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints.header import Entry
from planaria.errors import InvalidFile, InvalidInput


class Checkpoint(AbstractContextManager["Checkpoint"], ABC):
    """The raw bytes of a model's tensors, wherever they live. A context manager that closes itself.

    Nothing is read before it is asked for, and no more than that is held in memory.

    Attributes:
        entries: the tensors by name, in stored order: as their bytes follow in the file, shard after shard in the order
            of shard names, or in a dictionary's own order. With given headers, in the order of those.
        aliases: other names of the same memory, each with its name in `entries`. Files have none.
        headers: by file name, the bytes before its first tensor: an 8-byte length and JSON, as found on disk or, where
            the disk's are damaged, as given. A sharded folder's index is here as a whole. A model in memory has one
            made-up header, named "".
        header_damaged: whether the disk holds something else than `headers`.
        writable: whether `write` and `write_headers` are allowed.
    """

    entries: Mapping[str, Entry]
    aliases: Mapping[str, str]
    headers: Mapping[str, bytes]
    header_damaged: bool
    writable: bool

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Bytes `[start, stop)` of a tensor, all of them by default, in an array of the caller's own.

        Bytes that a truncated file lacks are 0. Raises `InvalidInput` if there is no such tensor or range.
        """
        stop = self._nbytes(name) if stop is None else stop
        self._require_range(name, start, stop)
        return self._read(name, start, stop)

    def write(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        """Puts bytes in place of those of a tensor from `start` on. A truncated file grows.

        Raises:
            InvalidInput: if there is no such tensor or range, or the checkpoint was opened only for reading.
            OutputFailed: if the file cannot be written.
        """
        self._require_writable()
        if content.dtype != np.uint8 or content.ndim != 1:
            raise InvalidInput(f"Content is a line of uint8, not {content.dtype} of shape {content.shape}.")
        self._require_range(name, start, start + len(content))
        self._write(name, start, content)

    def truncated(self) -> Mapping[str, tuple[int, int]]:
        """By name, the bytes `[start, stop)` that the file is too short to hold."""
        return {}

    def wrong_length(self) -> bool:
        """Whether a file is shorter or longer than its header says: most readers refuse such a one."""
        return False

    def write_headers(self) -> None:
        """Puts `headers` back on disk where it holds something else, and gives each file the length its header says.

        Raises as `write` does.
        """
        self._require_writable()

    def close(self) -> None:
        """Closes the files, once all that was written is on disk. Raises `OutputFailed`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """As `read`; the range is valid."""

    @abstractmethod
    def _write(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        """As `write`; the range is valid and writing is allowed."""

    def _nbytes(self, name: str) -> int:
        if name not in self.entries:
            raise InvalidInput(f"There is no tensor {name!r} among the {len(self.entries)} entries.")
        return self.entries[name].nbytes

    def _require_range(self, name: str, start: int, stop: int) -> None:
        nbytes = self._nbytes(name)
        if not 0 <= start <= stop <= nbytes:
            raise InvalidInput(f"{name!r} has bytes 0 to {nbytes}; there is no range {start} to {stop}.")

    def _require_writable(self) -> None:
        if not self.writable:
            raise InvalidInput("This checkpoint was opened only for reading. Open it with writable=True.")


def require_file(path: Path) -> Path:
    """The path, if it is a regular file: opening a pipe would wait forever.

    Raises:
        InvalidFile: if it is something else.
        FileNotFoundError: if it is nothing.
    """
    if path.is_file():
        return path
    if path.exists():
        raise InvalidFile(f"{path} is a {'folder' if path.is_dir() else 'device or pipe'} and not a regular file.")
    raise FileNotFoundError(f"There is no file {path}.")
