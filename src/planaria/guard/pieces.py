"""Parts of tensors that bound what memory it takes to compute with them."""

from collections.abc import Iterator
from functools import reduce
from math import lcm, prod

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.guard.byte_layout import SYMBOL, ByteLayout
from planaria.guard.statistics import FLOATS

PIECE = 2**22  # bytes


def part_of(whole: Tensor, piece: Entry, entry: Entry) -> Tensor:
    """The piece's part of something that has a number for each weight of the tensor."""
    size = entry.nbytes // whole.numel()
    return whole.flatten()[piece.start // size : (piece.start + piece.nbytes) // size].view(piece.shape)


def pieces(entry: Entry, tile: int) -> Iterator[Entry]:
    """A tensor in parts that bound what memory it takes to compute with them: whole tiles, and whole rows if they fit.

    A tensor of up to 4 MiB is one piece. The `start` of a piece is its first byte in the tensor.
    """
    if entry.nbytes <= PIECE:
        yield Entry(entry.name, entry.dtype, entry.shape, entry.nbytes)
        return
    row = entry.nbytes // entry.shape[0]
    size = entry.nbytes // prod(entry.shape)
    unit = lcm(tile, row)
    step = PIECE // unit * unit if unit <= PIECE else PIECE // tile * tile
    for start in range(0, entry.nbytes, step):
        nbytes = min(step, entry.nbytes - start)
        shape = (nbytes // row, row // size) if unit <= PIECE else (nbytes // size,)
        yield Entry(entry.name, entry.dtype, shape, nbytes, start)


def pieces_holding(layout: ByteLayout, tiles: NDArray[np.int64]) -> Iterator[tuple[int, Entry]]:
    """The pieces, with the indices of their tensors, that hold any of these tiles, which ascend."""
    for index in np.unique(layout.tensors_of(tiles)).tolist():
        first = layout.first_tiles[index]
        for piece in pieces(layout.entries[index], layout.tile):
            low = first + piece.start // layout.tile
            high = first + -(-(piece.start + piece.nbytes) // layout.tile)
            if np.searchsorted(tiles, low) < np.searchsorted(tiles, high):
                yield index, piece


def weights_of(content: NDArray[np.uint8], entry: Entry) -> Float[Tensor, "*weight"]:
    """The bytes as a tensor that can be computed with: float64 as it is, all other floats as float32."""
    weight = torch.from_numpy(content).view(FLOATS[entry.dtype]).reshape(entry.shape)
    return weight if weight.dtype == torch.float64 else weight.float()


def doubtful_weights(doubtful: NDArray[np.bool_], entry: Entry) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """From doubtful symbols of a tensor: weights with any doubt, and those with doubt in their first 16 bits."""
    size = entry.nbytes // max(int(np.prod(entry.shape)), 1)
    if size < SYMBOL:
        each = np.repeat(doubtful, SYMBOL)[: entry.nbytes]
        return each, each
    symbols = doubtful.reshape(-1, size // SYMBOL)
    return reduce(np.logical_or, symbols.T), symbols[:, -1]  # faster than along rows
