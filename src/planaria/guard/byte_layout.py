"""The tensors of a checkpoint as one layout of 16-bit symbols, and its tiles."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Entry

SYMBOL = 2  # bytes
CHUNK = 4 * 2**20  # bytes read at once
GROUP = 2**20  # bytes of tensors that share a digest, where they do


class Readable(Protocol):
    """A checkpoint, or an overlay of one."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Bytes `[start, stop)` of a tensor."""


@dataclass(frozen=True)
class Place:
    """Where a run of symbols of the layout lies: bytes `[start, stop)` of a tensor."""

    tensor: int
    start: int
    stop: int
    symbol: int


class ByteLayout:
    """Tensors one after the other, each padded to whole symbols with zeros that are stored nowhere.

    Symbols are the code's unit, tiles the report's. Tiles never cross tensors: the last one of a tensor is short.

    Digests are of hash groups of neighbouring tiles, and of groups of neighbouring tensors: of every tile and every
    tensor by itself, or, if `grouped`, of as many as make up one tile and 1 MiB.

    Attributes:
        hash_group_of: by tile, the hash group that it lies in, ascending.
        group_of: by tensor, the group that it lies in, ascending.
    """

    def __init__(self, entries: Sequence[Entry], *, tile: int, grouped: bool = False):
        self.entries = tuple(entries)
        self.tile = tile
        self.index = {entry.name: index for index, entry in enumerate(self.entries)}
        symbols = [-(-entry.nbytes // SYMBOL) for entry in self.entries]
        self.starts = [0, *accumulate(symbols)]
        self.symbols = self.starts[-1]
        tiles = [-(-entry.nbytes // tile) for entry in self.entries]
        self.first_tiles = [0, *accumulate(tiles)]
        self.tiles = self.first_tiles[-1]
        # Symbols by which each tensor begins earlier than it would if all before it were padded to whole tiles.
        padded = np.array(self.first_tiles, np.int64) * (tile // SYMBOL)
        self._shifts = padded - np.array(self.starts, np.int64)
        self.nbytes = sum(entry.nbytes for entry in self.entries)
        sizes = [entry.nbytes for entry in self.entries]
        if grouped:
            lasts = [(count, size - (count - 1) * tile) for count, size in zip(tiles, sizes, strict=True) if count]
            # Only the last tile of a tensor leaves room, and takes it: all others are full.
            joins = _joins([tile if count > 1 else last for count, last in lasts], [last for _, last in lasts], tile)
            new = np.ones(self.tiles, np.int64)
            new[[first for first, count in zip(self.first_tiles, tiles, strict=False) if count]] = ~joins
            self.hash_group_of, self.group_of = new.cumsum() - 1, (~_joins(sizes, sizes, GROUP)).cumsum() - 1
        else:
            self.hash_group_of, self.group_of = np.arange(self.tiles), np.arange(len(sizes))

    @property
    def hash_groups(self) -> int:
        """How many there are."""
        return int(self.hash_group_of[-1]) + 1 if self.tiles else 0

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.group_of[-1]) + 1 if len(self.entries) else 0

    def tiles_in(self, hash_groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tiles of these hash groups, ascending like them."""
        begins, ends = (np.searchsorted(self.hash_group_of, hash_groups, side=side) for side in ("left", "right"))
        return _runs(begins, ends)

    def tensors_in(self, group: int) -> range:
        """The indices of a group's tensors."""
        return range(*(int(at) for at in np.searchsorted(self.group_of, [group, group + 1])))

    def places(self, start: int, stop: int) -> Iterator[Place]:
        """The tensors that hold symbols `[start, stop)`, in order."""
        tensor = bisect_right(self.starts, start) - 1
        while start < min(stop, self.symbols):
            end = min(stop, self.starts[tensor + 1])
            if end > start:
                begin = (start - self.starts[tensor]) * SYMBOL
                nbytes = self.entries[tensor].nbytes
                yield Place(tensor, begin, min((end - self.starts[tensor]) * SYMBOL, nbytes), start)
                start = end
            tensor += 1

    def start_of(self, name: str) -> int:
        """The tensor's first symbol."""
        return self.starts[self.index[name]]

    def read(self, checkpoint: Readable, start: int, stop: int) -> NDArray[np.uint16]:
        """Symbols `[start, stop)`, little-endian; zero past the end of the layout."""
        content = np.zeros((stop - start) * SYMBOL, dtype=np.uint8)
        for place in self.places(start, stop):
            begin = (place.symbol - start) * SYMBOL
            part = checkpoint.read(self.entries[place.tensor].name, place.start, place.stop)
            content[begin : begin + len(part)] = part
        return content.view("<u2")

    def tiles_of(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tile that holds each symbol. Faster where they ascend."""
        per_tile = self.tile // SYMBOL
        if len(symbols) > len(self.starts) and (symbols[1:] >= symbols[:-1]).all():
            shifts = np.repeat(self._shifts, np.diff(np.searchsorted(symbols, self.starts), append=len(symbols)))
        else:
            shifts = self._shifts[np.searchsorted(self.starts, symbols, side="right") - 1]
        return (symbols + shifts) // per_tile

    def tensors_of(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of the tensor that each tile is of."""
        return np.searchsorted(self.first_tiles, tiles, side="right") - 1

    def symbols_of(self, tiles: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
        """All symbols of those tiles that lie in `[start, stop)`, ascending."""
        begins, ends = self.tile_bounds(tiles)
        return _runs(begins.clip(start, stop), ends.clip(start, stop))

    def tile_bounds(self, tiles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First symbol of each tile, and the first after it."""
        tensor = self.tensors_of(tiles)
        starts = np.asarray(self.starts)
        begins = starts[tensor] + (tiles - np.asarray(self.first_tiles)[tensor]) * (self.tile // SYMBOL)
        return begins, np.minimum(begins + self.tile // SYMBOL, starts[tensor + 1])

    def tiles_of_tensor(self, tensor: int) -> slice:
        """The tensor's tiles among all."""
        return slice(self.first_tiles[tensor], self.first_tiles[tensor + 1])

    def bytes_of(self, tiles: NDArray[np.int64]) -> Iterator[tuple[str, int, int]]:
        """The tiles, ascending, as (tensor, first byte, last byte + 1), neighbours as one."""
        tensors = self.tensors_of(tiles)
        apart = (np.diff(tiles) != 1) | (np.diff(tensors) != 0)
        edges = [0, *(apart.nonzero()[0] + 1), len(tiles)] if len(tiles) else [0]
        for begin, end in pairwise(edges):
            entry, first = self.entries[tensors[begin]], self.first_tiles[tensors[begin]]
            yield (
                entry.name,
                int(tiles[begin] - first) * self.tile,
                min(int(tiles[end - 1] - first + 1) * self.tile, entry.nbytes),
            )


def _runs(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """All numbers of the runs `[begin, end)`, one run after the other."""
    counts = ends - begins
    return np.repeat(begins - np.concatenate(([0], counts.cumsum()[:-1])), counts) + np.arange(counts.sum())


def _joins(sizes: Sequence[int], lasts: Sequence[int], most: int) -> NDArray[np.bool_]:
    """Whether each of these joins the one before it, when together they may have `most` bytes.

    A part that joins none leaves the room that its last piece, of `lasts` bytes, does not take.
    """
    joins, room = [], -1
    for size, last in zip(sizes, lasts, strict=True):
        joins.append(size <= room)
        room = room - size if size <= room else most - last
    return np.array(joins, bool)
