"""What digests alone say of a model: which tiles are damaged, and nothing of what a repair would make of them."""

import time
from collections.abc import Callable

import numpy as np

from planaria.checkpoints import Checkpoint
from planaria.guard.file import GuardFile
from planaria.guard.overlay import Overlay
from planaria.guard.report import Region, Report, TensorReport
from planaria.guard.tiers.digest import damaged_tiles


def quick_check(
    guard: GuardFile, checkpoint: Checkpoint, *, progress: Callable[[int], None] = lambda count: None
) -> Report:
    """Compares a model with its digests. No copy, parity or rule is looked at.

    Tiles that share a digest are all called damaged if one is. Cost: one pass of hashing over the model, and a second
    over groups of tensors that do not match.
    """
    began = time.monotonic()
    layout = guard.layout
    damaged = damaged_tiles(guard, Overlay(checkpoint, layout), progress)
    tensors = []
    for index, entry in enumerate(guard.entries):
        tiles = damaged[layout.tiles_of_tensor(index)]
        edges = np.flatnonzero(np.diff(tiles, prepend=False, append=False)) * layout.tile
        tensors.append(
            TensorReport(
                name=entry.name,
                dtype=entry.dtype,
                shape=entry.shape,
                nbytes=entry.nbytes,
                tiles=len(tiles),
                regions=tuple(
                    Region(start=int(start), stop=min(int(stop), entry.nbytes), verdict="damaged")
                    for start, stop in edges.reshape(-1, 2)
                ),
            )
        )
    return Report(
        action="check",
        tensors=tuple(tensors),
        tile=layout.tile,
        header_damaged=checkpoint.header_damaged or checkpoint.wrong_length(),
        keyed=guard.key is not None,
        guard_mended=guard.mended,
        guard_lost=guard.lost,
        seconds=time.monotonic() - began,
    )
