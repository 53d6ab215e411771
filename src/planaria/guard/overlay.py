"""A checkpoint with corrections that are not written yet."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint
from planaria.guard.byte_layout import CHUNK, SYMBOL, ByteLayout

KEPT = 2**26  # bytes of damaged tensors that are kept in memory, or as many as the largest has
Chunk = tuple[str, int]  # of a tensor, the part of that number


class Overlay:
    """Reads as the checkpoint with the corrections made so far; the checkpoint itself changes at `commit` alone.

    Every step of a repair reads what is damaged: such tensors are read from the checkpoint once and kept, up to 64 MiB
    or the size of the largest. Memory beside that is 10 bytes for each corrected symbol.
    """

    def __init__(self, checkpoint: Checkpoint, layout: ByteLayout):
        self.checkpoint = checkpoint
        self.layout = layout
        self.symbols = np.empty(0, np.int64)
        self.values = np.empty(0, np.uint16)
        self._room = max(KEPT, max((entry.nbytes for entry in layout.entries), default=0))
        self._kept: dict[Chunk, NDArray[np.uint8] | None] = {}

    def keep(self, tiles: NDArray[np.int64]) -> None:
        """Keeps the chunks that hold these tiles, ascending, once they are read, as long as there is room."""
        for chunk in self._chunks(tiles):
            size = min(CHUNK, self._nbytes(chunk[0]) - chunk[1] * CHUNK)
            if chunk not in self._kept and size <= self._room:
                self._kept[chunk] = None
                self._room -= size

    def _chunks(self, tiles: NDArray[np.int64]) -> Iterator[Chunk]:
        for name, start, stop in self.layout.bytes_of(tiles):
            yield from ((name, number) for number in range(start // CHUNK, -(-stop // CHUNK)))

    def _nbytes(self, name: str) -> int:
        return self.layout.entries[self.layout.index[name]].nbytes

    def found(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Bytes `[start, stop)` of a tensor as the checkpoint has them."""
        stop = self._nbytes(name) if stop is None else stop
        numbers = range(start // CHUNK, -(-stop // CHUNK))
        if not any((name, number) in self._kept for number in numbers):
            return self.checkpoint.read(name, start, stop)
        content = np.empty(stop - start, np.uint8)
        for number in numbers:
            first, last = max(start, number * CHUNK), min(stop, (number + 1) * CHUNK)
            content[first - start : last - start] = self._chunk(name, number, first, last)
        return content

    def _chunk(self, name: str, number: int, first: int, last: int) -> NDArray[np.uint8]:
        """Bytes `[first, last)` of a tensor, which lie in one chunk."""
        if (name, number) not in self._kept:
            return self.checkpoint.read(name, first, last)
        begin = number * CHUNK
        kept = self._kept[name, number]
        if kept is None:
            end = min(begin + CHUNK, self._nbytes(name))
            kept = self._kept[name, number] = self.checkpoint.read(name, begin, end)
        return kept[first - begin : last - begin]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Bytes `[start, stop)` of a tensor, corrected. `start` is even."""
        content = self.found(name, start, stop)
        first = self.layout.start_of(name) + start // SYMBOL
        low, high = np.searchsorted(self.symbols, [first, first + -(-len(content) // SYMBOL)])
        if low == high:
            return content
        padded = np.zeros(-(-len(content) // SYMBOL) * SYMBOL, np.uint8)
        padded[: len(content)] = content
        padded.view("<u2")[self.symbols[low:high] - first] ^= self.values[low:high]
        return padded[: len(content)]

    def xor(self, symbols: NDArray[np.int64], values: NDArray[np.uint16]) -> None:
        """Corrects symbols by what is to be XORed onto them. Costs a copy of all corrections, and a sort unless these
        ascend and come after all others.
        """
        after = not len(self.symbols) or not len(symbols) or symbols[0] > self.symbols[-1]
        if after and (symbols[1:] > symbols[:-1]).all():
            changed = values != 0
            self.symbols = np.concatenate([self.symbols, symbols[changed]])
            self.values = np.concatenate([self.values, values[changed]])
            return
        symbols = np.concatenate([self.symbols, symbols])
        order = np.argsort(symbols, kind="stable")
        self.symbols, first = np.unique(symbols[order], return_index=True)
        values = np.concatenate([self.values, values])[order]
        values = np.bitwise_xor.reduceat(values, first) if len(first) else values
        changed = values != 0  # what is corrected back is no correction
        self.symbols, self.values = self.symbols[changed], values[changed]

    def replace(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        """Corrects the bytes of a tensor from `start`, which is even, to this content."""
        padded = np.zeros(-(-len(content) // SYMBOL) * SYMBOL, np.uint8)
        padded[: len(content)] = content ^ self.read(name, start, start + len(content))
        values = padded.view("<u2")
        changed = values.nonzero()[0]
        self.xor(self.layout.start_of(name) + start // SYMBOL + changed, values[changed])

    def forget(self, symbols: NDArray[np.int64]) -> None:
        """Leaves these symbols as the checkpoint has them."""
        left = ~np.isin(self.symbols, symbols)
        self.symbols, self.values = self.symbols[left], self.values[left]

    def commit(self) -> None:
        """Writes every corrected tile to the checkpoint, and forgets the corrections."""
        if not len(self.symbols):
            return
        tile, tiles = self.layout.tile, np.unique(self.layout.tiles_of(self.symbols))
        for name, start, stop in self.layout.bytes_of(tiles):
            for begin in range(start, stop, max(tile, CHUNK)):
                end = min(begin + max(tile, CHUNK), stop)
                self.checkpoint.write(name, begin, self.read(name, begin, end))
        for chunk in self._chunks(tiles):
            if chunk in self._kept:
                self._kept[chunk] = None  # what was written is read back
        self.symbols, self.values = np.empty(0, np.int64), np.empty(0, np.uint16)
