"""Where the codewords of the parity tier lie in the layout. Specified in FORMAT.md, section 5."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from planaria.guard.byte_layout import ByteLayout
from planaria.guard.manifest import ParityShape


class Interleaving:
    """Codeword c of segment s has the number s * width + c, and every `width`-th symbol of the segment."""

    def __init__(self, layout: ByteLayout, shape: ParityShape):
        self.layout, self.shape = layout, shape
        self.segments = -(-layout.symbols // shape.segment)
        self.codewords = self.segments * shape.width

    def bounds(self, segment: int) -> tuple[int, int]:
        """First symbol of a segment, and the first after it."""
        start = segment * self.shape.segment
        return start, min(start + self.shape.segment, self.layout.symbols)

    def rows(self, segment: int) -> int:
        """Data symbols of each of its codewords; the last row may be short."""
        start, stop = self.bounds(segment)
        return -(-(stop - start) // self.shape.width)

    def within(self, segment: int) -> slice:
        """The numbers of its codewords."""
        return slice(segment * self.shape.width, (segment + 1) * self.shape.width)

    def codewords_of(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the codeword that each symbol is of."""
        # Several times as fast as remainders of 64 bits.
        segment = symbols // self.shape.segment
        inside = symbols - segment * self.shape.segment
        return segment * self.shape.width + inside - inside // self.shape.width * self.shape.width

    def counts(self, tiles: NDArray[np.int64], segments: Iterable[int]) -> NDArray[np.int64]:
        """By codeword of these segments, how many symbols of these tiles it has; 0 for others."""
        begins, ends = self.layout.tile_bounds(tiles)
        counts = np.zeros(self.codewords, np.int64)
        for segment in segments:
            start, stop = self.bounds(segment)
            first, last = begins.clip(start, stop) - start, ends.clip(start, stop) - start
            counts[self.within(segment)] = _by_column(first, last, self.shape.width)
        return counts

    def touched(
        self, tiles: NDArray[np.int64], codewords: NDArray[np.bool_], segments: Iterable[int]
    ) -> NDArray[np.bool_]:
        """Whether each of these tiles has a symbol of one of these codewords, in these segments."""
        begins, ends = self.layout.tile_bounds(tiles)
        touched = np.zeros(len(tiles), bool)
        width = self.shape.width
        for segment in segments:
            start, stop = self.bounds(segment)
            first, last = begins.clip(start, stop) - start, ends.clip(start, stop) - start
            before = np.concatenate([[0], np.tile(codewords[self.within(segment)], 2).cumsum()])
            column = first % width
            touched |= before[column + np.minimum(last - first, width)] > before[column]
        return touched


def _by_column(first: NDArray[np.int64], last: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """How many symbols of the runs `[first, last)` lie in each of so many columns."""
    whole, rest = np.divmod(last - first, width)
    begin = first[rest > 0] % width
    end = begin + rest[rest > 0]
    steps = np.bincount(begin, minlength=width + 1) - np.bincount(np.minimum(end, width), minlength=width + 1)
    wrapped = end[end > width] - width
    steps[0] += len(wrapped)
    steps -= np.bincount(wrapped, minlength=width + 1)
    return np.asarray(whole.sum() + steps[:width].cumsum())
