"""A checkpoint with corrections that are not written yet."""

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint
from planaria.guard.stream import CHUNK, SYMBOL, Stream


class Overlay:
    """Reads as the checkpoint with the corrections made so far; the checkpoint itself changes at `commit` alone.

    Memory is 10 bytes for each corrected symbol.
    """

    def __init__(self, checkpoint: Checkpoint, stream: Stream):
        self.checkpoint = checkpoint
        self.stream = stream
        self.symbols = np.empty(0, np.int64)
        self.values = np.empty(0, np.uint16)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Bytes `[start, stop)` of a tensor, corrected. `start` is even."""
        content = self.checkpoint.read(name, start, stop)
        first = self.stream.start_of(name) + start // SYMBOL
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
        self.xor(self.stream.start_of(name) + start // SYMBOL + changed, values[changed])

    def forget(self, symbols: NDArray[np.int64]) -> None:
        """Leaves these symbols as the checkpoint has them."""
        left = ~np.isin(self.symbols, symbols)
        self.symbols, self.values = self.symbols[left], self.values[left]

    def commit(self) -> None:
        """Writes every corrected tile to the checkpoint, and forgets the corrections."""
        if not len(self.symbols):
            return
        tile = self.stream.tile
        for name, start, stop in self.stream.bytes_of(np.unique(self.stream.tiles_of(self.symbols))):
            for begin in range(start, stop, max(tile, CHUNK)):
                end = min(begin + max(tile, CHUNK), stop)
                self.checkpoint.write(name, begin, self.read(name, begin, end))
        self.symbols, self.values = np.empty(0, np.int64), np.empty(0, np.uint16)
