"""A safetensors file, read and written in place."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints.base import Checkpoint, require_file
from planaria.checkpoints.foreign import advice
from planaria.checkpoints.header import (
    LONGEST_HEADER,
    Entry,
    expected_entries,
    parse_bare_header,
    parse_header,
    require_same_entries,
)
from planaria.errors import InvalidFile, OtherModel, OutputFailed


class SafetensorsFile(Checkpoint):
    """One `.safetensors` file.

    Read by positioned reads and never mapped into memory: a file that shrinks under a map kills the process.

    Args:
        path: the file.
        headers: the one header that it should have, from a guard. Where the file's own is damaged this takes its
            place; a sound one of the same tensors is kept, whatever its order and metadata. The file may then be too
            short, or too long.
        mended: the header to go by, by the file's name in `headers`, whatever the disk holds in its place: for one that
            another tool wrote, and that is damaged.
        may_lack: take a file that is not there, with `headers`, for one that was cut off before its first byte. It is
            made if it is to be written.
        writable: allows writing.

    Raises:
        InvalidFile: if the file is not a sound safetensors file; with `headers`, if it is not a regular file.
        OtherModel: if its header is sound but not of the tensors of `headers`.
        FileNotFoundError: if there is none.
        OutputFailed: if it is to be written and must not be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        headers: Mapping[str, bytes] | None = None,
        mended: Mapping[str, bytes] | None = None,
        may_lack: bool = False,
        writable: bool = False,
    ):
        self.path = Path(path)
        absent = may_lack and headers is not None and not self.path.exists()
        if not absent:
            require_file(self.path)
        try:
            if absent:
                self._file = io.FileIO(self.path, "w+") if writable else io.FileIO(os.devnull)
            else:
                self._file = io.FileIO(self.path, "r+" if writable else "r")
        except OSError as error:
            if writable:
                raise OutputFailed(f"Cannot write {path}: {error.strerror}. Repair a copy of it.") from error
            raise
        try:
            content, self.entries, self.header_damaged = (
                self._own() if headers is None else self._reconciled(headers, mended or {})
            )
        except BaseException:
            self._file.close()
            raise
        self.headers = {self.path.name: content}
        self.aliases = {}
        self.writable = writable

    def truncated(self) -> Mapping[str, tuple[int, int]]:
        present = self._size() - len(self.headers[self.path.name])
        return {
            name: (max(0, present - entry.start), entry.nbytes)
            for name, entry in self.entries.items()
            if entry.nbytes and entry.start + entry.nbytes > present
        }

    def wrong_length(self) -> bool:
        return self._size() != self._right_size()

    def write_headers(self) -> None:
        self._require_writable()
        content = np.frombuffer(self.headers[self.path.name], np.uint8)
        if not np.array_equal(self._bytes(0, len(content)), content):
            self._put(0, content)
        if self.wrong_length():
            try:
                os.ftruncate(self._file.fileno(), self._right_size())
            except OSError as error:
                raise OutputFailed(f"Cannot write {self.path}: {error.strerror}.") from error
        self.header_damaged = False

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            if self.writable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputFailed(f"Cannot write {self.path}: {error.strerror}.") from error
        finally:
            self._file.close()

    def _read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        first = len(self.headers[self.path.name]) + self.entries[name].start
        return self._bytes(first + start, first + stop)

    def _write(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        self._put(len(self.headers[self.path.name]) + self.entries[name].start + start, content)

    def _right_size(self) -> int:
        return len(self.headers[self.path.name]) + sum(entry.nbytes for entry in self.entries.values())

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _bytes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes of the file; 0 past its end."""
        content = np.zeros(stop - start, np.uint8)
        filled = 0
        while filled < len(content):  # one read may answer with less
            count = os.preadv(self._file.fileno(), [content.data[filled:]], start + filled)
            if count == 0:
                break
            filled += count
        return content

    def _put(self, start: int, content: NDArray[np.uint8]) -> None:
        rest = np.ascontiguousarray(content).data
        try:
            while len(rest):
                count = os.pwrite(self._file.fileno(), rest, start)
                start, rest = start + count, rest[count:]
        except OSError as error:
            raise OutputFailed(
                f"Cannot write {self.path}: {error.strerror}. What is not yet written is as it was: write it again."
            ) from error

    def _header_on_disk(self) -> bytes:
        """As long as it says it is, where that can be."""
        length = int.from_bytes(self._bytes(0, 8).tobytes(), "little")
        stop = min(self._size(), 8 + length) if length <= LONGEST_HEADER else 8
        return self._bytes(0, stop).tobytes()

    def _own(self) -> tuple[bytes, dict[str, Entry], bool]:
        """The file's own header, its entries, and that it is not damaged."""
        content = self._header_on_disk()
        try:
            header = parse_header(content, size=self._size())
        except InvalidFile as error:
            raise InvalidFile(f"{self.path}: {error}{advice(self.path)}") from error
        return content, {entry.name: entry for entry in header.entries}, False

    def _reconciled(
        self, headers: Mapping[str, bytes], mended: Mapping[str, bytes]
    ) -> tuple[bytes, dict[str, Entry], bool]:
        """The header to go by, its entries in the given order, and whether the file's own is damaged."""
        if len(headers) != 1:
            raise OtherModel(f"The guard is of a model in {len(headers)} files; {self.path} is one file.")
        ((file, given),) = headers.items()
        expected = expected_entries(headers)
        content = self._header_on_disk()
        if content == given:
            return given, expected, False
        if file in mended:
            found = expected_entries({file: mended[file]})
            require_same_entries(found, expected)
            return mended[file], {name: found[name] for name in expected}, content != mended[file]
        try:
            header = parse_bare_header(content)
        except InvalidFile as error:
            if file == "":  # made up for a model in memory: no file began with it
                what = advice(self.path) or " The guard is of a model in memory and cannot help."
                raise InvalidFile(f"{self.path}: {error}{what}") from error
            return given, expected, True
        # A bit flipped in a name, the length or the metadata leaves a sound header. Another model's differs in more.
        layout = [(entry.dtype, entry.shape) for entry in header.entries]
        if layout == [(entry.dtype, entry.shape) for entry in expected.values()] and _nearly_equal(
            self._bytes(0, len(given)), np.frombuffer(given, np.uint8)
        ):
            return given, expected, True
        found = {entry.name: entry for entry in header.entries}
        require_same_entries(found, expected)
        return content, {name: found[name] for name in expected}, False


def _nearly_equal(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether at most one bit in 512 differs, which is about one bit for every tensor of a header."""
    return int(np.bitwise_count(first ^ second).sum()) <= max(1, len(first) // 64)
