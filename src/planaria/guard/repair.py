"""Check and repair: from an examination to a report, and to the repaired model."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint, Entry
from planaria.errors import VerificationFailed
from planaria.guard.decode_memory import decode_memory
from planaria.guard.doubts import Doubts
from planaria.guard.estimate import Estimate, MemoryEstimate, estimate
from planaria.guard.examine import Examination, examine, note_on
from planaria.guard.file import GuardFile
from planaria.guard.gate import Gate
from planaria.guard.known import Known
from planaria.guard.locate import Located
from planaria.guard.overlay import Overlay
from planaria.guard.report import VERDICTS, Region, Report, TensorReport
from planaria.guard.statistics import FLOATS
from planaria.guard.tiers.digest import damaged_tiles
from planaria.guard.unmeasured import absurd_weights, mildly_damaged

INTACT, EXACT, BOUNDED, ESTIMATED, LOST, CHANGED, DAMAGED = range(len(VERDICTS))


def diagnose(
    guard: GuardFile,
    checkpoint: Checkpoint,
    *,
    action: Literal["check", "repair"],
    known: Known | None = None,
    force: bool = False,
    flush: bool = False,
    threads: int = 1,
    examined: Callable[[Examination], None] = lambda examination: None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[Report, Overlay]:
    """What is damaged and what becomes of it, and the overlay that makes it so. The checkpoint is only read.

    Args:
        known: what a hardware test says, by tensor, from `known_weights`.
        force: also where the model looks different rather than damaged.
        flush: write each tensor as it is estimated, which bounds memory by the largest tensor; for a checkpoint that
            is itself a copy.
        examined: called once the codes have been tried, before anything is estimated; may raise.

    Raises:
        LooksDifferent: see `examine`.
        InvalidInput: if digests contradict most of `known`, unless forced.
        VerificationFailed: if the overlay is not what it should be.
    """
    began = time.monotonic()
    header_damaged = checkpoint.header_damaged or checkpoint.wrong_length()  # before anything is written
    examination = examine(guard, checkpoint, known=known, force=force, threads=threads, progress=progress)
    examined(examination)
    doubts = Doubts(guard, examination, known)
    doubts.settle_parts_of_weights()
    encoded = () if guard.manifest.memory is None else guard.manifest.memory.tensors
    located = {
        kept.tensor: doubts.located_whole(kept.tensor, statistics)
        for kept in encoded
        if examination.unproven[guard.layout.tiles_of_tensor(kept.tensor)].any()
        and (statistics := guard.statistics(kept.tensor)) is not None
    }
    decoded = decode_memory(guard, examination.overlay, located, mapped=doubts.mapped, threads=threads)
    gate = Gate(guard.layout, struck=examination.struck, unproven=examination.unproven, known=known)
    tensors = []
    for index in range(len(guard.entries)):
        memory = (located[index], decoded[index]) if index in decoded else None
        tensors.append(_diagnosed(doubts, index, memory, apply=action == "repair"))
        if action == "repair" and flush:
            gate.admit(examination.overlay)
            examination.overlay.commit()
    gate.admit(examination.overlay)
    if action == "repair":
        wrong = damaged_tiles(guard, examination.overlay, within=examination.struck)
        if (wrong & ~_sharing(guard, examination.unproven)).any():
            raise VerificationFailed(
                "A repaired tile did not read back as its digest says. Nothing was written; try again."
            )
    report = Report(
        action=action,
        tensors=tuple(tensors),
        tile=guard.manifest.tile,
        header_damaged=header_damaged,
        keyed=guard.key is not None,
        guard_mended=guard.mended,
        guard_lost=guard.lost,
        notes=tuple(filter(None, (*examination.notes, _no_numbers(guard, examination)))),
        seconds=time.monotonic() - began,
    )
    return report, examination.overlay


def _no_numbers(guard: GuardFile, examination: Examination) -> str:
    """A sentence on the tensors whose unproven weights stay as found, since some were no numbers before; or ""."""
    tiles = examination.unproven.copy()
    if not tiles.any():
        return ""
    for index in range(len(guard.entries)):
        if guard.all_finite(index):
            tiles[guard.layout.tiles_of_tensor(index)] = False
    what = "values that are no numbers before, and what cannot be proven of them is left as found"
    return note_on(guard.layout, tiles, "tensor held", "tensors held", what)


def _diagnosed(
    doubts: Doubts, index: int, memory: tuple[Located, MemoryEstimate] | None, *, apply: bool
) -> TensorReport:
    """One tensor's report; what is estimated goes to the overlay if it is to be applied."""
    guard, examination = doubts.guard, doubts.examination
    layout, entry = guard.layout, guard.entries[index]
    bounds = layout.tiles_of_tensor(index)
    damaged, changed = examination.damaged[bounds], examination.changed[bounds]
    unproven = examination.unproven[bounds] & ~changed
    verdicts = np.where(changed, CHANGED, np.where(damaged, EXACT, INTACT))
    report = TensorReport(
        name=entry.name, dtype=entry.dtype, shape=entry.shape, nbytes=entry.nbytes, tiles=len(damaged)
    )
    if not (damaged | changed | unproven).any():
        return report
    statistics = guard.statistics(index)
    if unproven.any() and statistics is None:
        verdicts[unproven] = LOST
        if entry.dtype in FLOATS and index not in guard.manifest.not_finite:
            report = _put_in_proportion(doubts, index, unproven, report, apply=apply)
    elif unproven.any() and statistics is not None:
        shape, repairer = doubts.rule(index)
        regrown = repairer is not None or (memory is not None and memory[1].error is not None)
        squares, methods = 0.0, []
        for piece in doubts.pieces(index):
            tiles = slice(piece.start // layout.tile, -(-(piece.start + piece.nbytes) // layout.tile))
            if not unproven[tiles].any():
                continue
            found = memory[0].part(piece, entry) if memory else doubts.located(index, piece, statistics)
            found = found.outside(changed[tiles], piece, layout.tile)
            result = estimate(
                examination.overlay.read(entry.name, piece.start, piece.start + piece.nbytes),
                piece,
                found,
                tile=layout.tile,
                statistics=statistics,
                rule=repairer,
                shape=shape,
                memory_estimate=memory[1].part(piece, entry) if memory else None,
                mapped=doubts.mapped,
                sound=examination.sound,
            )
            verdicts[tiles] = np.where(unproven[tiles], _verdicts(result, piece, layout.tile, regrown), verdicts[tiles])
            count = int(result.missing.sum())
            squares += count * result.expected_error**2
            methods += [method for method in result.methods if method not in methods]
            report = replace(
                report,
                kept=report.kept + int(result.kept.sum()),
                estimated=report.estimated + count,
                bound=max(report.bound or 0.0, result.bound) or None,
                method=", ".join(methods) or None,
            )
            if apply:
                examination.overlay.replace(entry.name, piece.start, result.content)
        if report.estimated:
            error = (squares / report.estimated) ** 0.5
            # Not finite: of float64 weights past the range of float32.
            report = replace(report, expected_error=error if isfinite(error) else None)
    return replace(report, regions=_regions(verdicts, layout.tile, entry.nbytes))


def _put_in_proportion(
    doubts: Doubts, index: int, unproven: NDArray[np.bool_], report: TensorReport, *, apply: bool
) -> TensorReport:
    """Of a tensor's unproven weights, the absurd ones take its median, or zero. Others stay as found, zeros too."""
    guard, overlay, mask = doubts.guard, doubts.examination.overlay, doubts.mask(index)
    entry = guard.entries[index]
    content = overlay.read(entry.name).copy()
    stored = torch.from_numpy(content).view(FLOATS[entry.dtype]).view(entry.shape)
    by_weight = np.repeat(unproven, guard.layout.tile // stored.element_size())[: stored.numel()]
    tiles = torch.from_numpy(by_weight).view(entry.shape)
    absurd, typical, deviation = absurd_weights(stored)
    if mask is not None:
        tiles &= ~mask
        absurd &= ~mildly_damaged(stored, tiles, absurd)
    missing = (tiles & absurd).flatten()
    if not missing.any():
        return report
    value = torch.tensor([typical], dtype=torch.float64).to(stored.dtype).view(torch.uint8).numpy()
    content.reshape(-1, stored.element_size())[missing.numpy()] = value  # not all types can be assigned to by a mask
    if apply:
        overlay.replace(entry.name, 0, content)
    kept = int(tiles.sum() - missing.sum())
    return replace(report, estimated=int(missing.sum()), expected_error=deviation, method="median", kept=kept)


def _sharing(guard: GuardFile, tiles: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """These tiles, and all that share a digest with any of them."""
    hash_group_of = guard.layout.hash_group_of
    return np.isin(hash_group_of, hash_group_of[tiles])


def _verdicts(result: Estimate, piece: Entry, tile: int, regrown: bool) -> NDArray[np.int64]:
    """The worst of each tile's weights. A tile of which most is missing, and nothing known, is lost."""
    per_tile = tile * result.missing.size // piece.nbytes

    def share(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        starts = np.arange(0, mask.size, per_tile)
        return np.add.reduceat(mask.flatten().astype(np.float64), starts) / np.minimum(per_tile, mask.size - starts)

    only_bounded = (share(result.bounded) > 0) & (share(result.missing | result.kept | result.believed) == 0)
    verdicts = np.where(only_bounded, BOUNDED, ESTIMATED)
    return np.where((share(result.missing) > 0.5) & (not regrown), LOST, verdicts)


def _regions(verdicts: NDArray[np.int64], tile: int, nbytes: int) -> tuple[Region, ...]:
    """Runs of equal verdicts, but for the intact ones."""
    edges = [0, *((np.diff(verdicts) != 0).nonzero()[0] + 1), len(verdicts)] if len(verdicts) else [0]
    return tuple(
        Region(start=int(begin) * tile, stop=min(int(end) * tile, nbytes), verdict=VERDICTS[verdicts[begin]])
        for begin, end in pairwise(edges)
        if verdicts[begin] != INTACT
    )
