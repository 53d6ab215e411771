"""Check and repair: from an examination to a report, and to the repaired model."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint, Entry
from planaria.errors import VerificationFailed
from planaria.guard.estimate import HIGH_HALF, Estimate, Recollection, estimate
from planaria.guard.examine import Examination, examine, note_on
from planaria.guard.file import GuardFile
from planaria.guard.gate import Gate
from planaria.guard.known import Known
from planaria.guard.locate import Located, locate
from planaria.guard.overlay import Overlay
from planaria.guard.pieces import doubtful_weights, part_of, pieces, weights_of
from planaria.guard.recollect import recollect
from planaria.guard.report import VERDICTS, Region, Report, TensorReport
from planaria.guard.statistics import FLOATS, Statistics
from planaria.guard.stream import SYMBOL
from planaria.guard.tiers import RuleTier
from planaria.guard.tiers.digest import damaged_tiles
from planaria.guard.unmeasured import absurd_weights, mildly_damaged
from planaria.repairers import Repairer

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
    _settle_parts_of_weights(guard, examination)
    remembered = () if guard.manifest.memory is None else guard.manifest.memory.tensors
    located = {
        of.tensor: _located_whole(guard, examination, of.tensor, known, statistics)
        for of in remembered
        if examination.unproven[guard.stream.tiles_of_tensor(of.tensor)].any()
        and (statistics := guard.statistics(of.tensor)) is not None
    }
    told = recollect(guard, examination.overlay, located, mapped=known is not None, threads=threads)
    gate = Gate(guard.stream, struck=examination.struck, unproven=examination.unproven, known=known)
    tensors = []
    for index in range(len(guard.entries)):
        memory = (located[index], told[index]) if index in told else None
        tensors.append(_diagnosed(guard, examination, index, known, memory, apply=action == "repair"))
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


def _settle_parts_of_weights(guard: GuardFile, examination: Examination) -> None:
    """Of weights that the parity corrected in part: what keeps them from becoming worse than they were found.

    A proven first half with a doubtful rest gets the rest that is nearest to what was found, since the weight lies in
    the interval that the first half leaves. Any other part of a correction is taken back: it may make a number that
    neither was nor was found.
    """
    overlay, stream = examination.overlay, guard.stream
    if examination.unsolved is None:
        return
    for index, entry in enumerate(guard.entries):
        if entry.nbytes <= SYMBOL or not examination.unproven[stream.tiles_of_tensor(index)].any():
            continue
        for piece in pieces(entry, stream.tile):
            any_doubt, high_doubt = doubtful_weights(_doubtful(guard, examination, index, piece), piece)
            doubt = high_doubt if entry.dtype in FLOATS else any_doubt
            bounds = np.arange(len(doubt) + 1) * piece.nbytes // max(len(doubt), 1)
            symbols = np.repeat(doubt, np.diff(bounds))[::SYMBOL].nonzero()[0]
            overlay.forget(stream.starts[index] + piece.start // SYMBOL + symbols)
            if entry.dtype in HIGH_HALF and (any_doubt & ~high_doubt).any():
                stop = piece.start + piece.nbytes
                found = overlay.found(entry.name, piece.start, stop).view("<u2").reshape(len(doubt), -1)
                content = overlay.read(entry.name, piece.start, stop).view("<u2").reshape(len(doubt), -1).copy()
                settled = any_doubt & ~high_doubt & (found[:, -1] != content[:, -1])
                smaller = (found[:, -1] & 0x7FFF) < (content[:, -1] & 0x7FFF)
                smaller |= (found[:, -1] ^ content[:, -1]) >> 15 == 1  # of the other sign
                # No other bit of what is no number is set in infinities, nor in NaN as it is computed.
                smaller |= ~weights_of(content.reshape(-1).view(np.uint8), piece).isfinite().flatten().numpy()
                content[settled, :-1] = np.where(smaller[settled], 0, 0xFFFF)[:, None]
                overlay.replace(entry.name, piece.start, content.reshape(-1).view(np.uint8))


def _no_numbers(guard: GuardFile, examination: Examination) -> str:
    """A sentence on the tensors whose unproven weights stay as found, since some were no numbers before; or ""."""
    tiles = examination.unproven.copy()
    if not tiles.any():
        return ""
    for index in range(len(guard.entries)):
        if guard.all_finite(index):
            tiles[guard.stream.tiles_of_tensor(index)] = False
    what = "values that are no numbers before, and what cannot be proven of them is left as found"
    return note_on(guard.stream, tiles, "tensor held", "tensors held", what)


def _diagnosed(
    guard: GuardFile,
    examination: Examination,
    index: int,
    known: Known | None,
    memory: tuple[Located, Recollection] | None,
    *,
    apply: bool,
) -> TensorReport:
    """One tensor's report; what is estimated goes to the overlay if it is to be applied."""
    stream, entry = guard.stream, guard.entries[index]
    bounds = stream.tiles_of_tensor(index)
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
            report = _put_in_proportion(guard, examination.overlay, index, unproven, known, report, apply=apply)
    elif unproven.any() and statistics is not None:
        shape, repairer = RuleTier.rule_of(guard, index)
        regrown = repairer is not None or (memory is not None and memory[1].error is not None)
        squares, methods = 0.0, []
        for piece in _parts(guard, entry, repairer):
            tiles = slice(piece.start // stream.tile, -(-(piece.start + piece.nbytes) // stream.tile))
            if not unproven[tiles].any():
                continue
            found = (
                memory[0].part(piece, entry)
                if memory
                else _located(guard, examination, index, piece, known, statistics)
            )
            found = found.outside(changed[tiles], piece, stream.tile)
            result = estimate(
                examination.overlay.read(entry.name, piece.start, piece.start + piece.nbytes),
                piece,
                found,
                tile=stream.tile,
                statistics=statistics,
                rule=repairer,
                shape=shape,
                recollection=memory[1].part(piece, entry) if memory else None,
                mapped=known is not None,
                sound=examination.sound,
            )
            verdicts[tiles] = np.where(unproven[tiles], _verdicts(result, piece, stream.tile, regrown), verdicts[tiles])
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
    return replace(report, regions=_regions(verdicts, stream.tile, entry.nbytes))


def _put_in_proportion(
    guard: GuardFile,
    overlay: Overlay,
    index: int,
    unproven: NDArray[np.bool_],
    known: Known | None,
    report: TensorReport,
    *,
    apply: bool,
) -> TensorReport:
    """Of a tensor's unproven weights, the absurd ones take its median, or zero. Others stay as found, zeros too."""
    entry = guard.entries[index]
    content = overlay.read(entry.name).copy()
    stored = torch.from_numpy(content).view(FLOATS[entry.dtype]).view(entry.shape)
    by_weight = np.repeat(unproven, guard.stream.tile // stored.element_size())[: stored.numel()]
    tiles = torch.from_numpy(by_weight).view(entry.shape)
    absurd, typical, deviation = absurd_weights(stored)
    if known is not None:
        tiles &= ~known.get(entry.name, torch.ones(entry.shape, dtype=torch.bool))
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
    bundle_of = guard.stream.bundle_of
    return np.isin(bundle_of, bundle_of[tiles])


def _parts(guard: GuardFile, entry: Entry, rule: Repairer | None) -> Iterable[Entry]:
    """The pieces of a tensor: a rule needs it whole, and there is none for a large one."""
    return [Entry(entry.name, entry.dtype, entry.shape, entry.nbytes)] if rule else pieces(entry, guard.stream.tile)


def _located(
    guard: GuardFile, examination: Examination, index: int, piece: Entry, known: Known | None, statistics: Statistics
) -> Located:
    """What is to be distrusted of a piece."""
    entry = guard.entries[index]
    doubtful = _doubtful(guard, examination, index, piece)
    content = examination.overlay.read(entry.name, piece.start, piece.start + piece.nbytes)
    if known is None and statistics.all_finite and not statistics.zeros and doubtful.all() and not content.any():
        every = torch.ones(piece.shape, dtype=torch.bool)  # as `locate` would say: no zero of these can be right
        return Located(every, ~every, every, every, ~every)
    mask = None
    if known is not None:  # tensors that the test does not name are all good
        mask = part_of(known.get(entry.name, torch.ones(entry.shape, dtype=torch.bool)), piece, entry)
    return locate(
        content,
        piece,
        doubtful,
        tile=guard.stream.tile,
        sound=examination.sound,
        statistics=statistics,
        rule=RuleTier.rule_of(guard, index)[1],
        known=mask,
    )


def _located_whole(
    guard: GuardFile, examination: Examination, index: int, known: Known | None, statistics: Statistics
) -> Located:
    """What is to be distrusted of a tensor, piece by piece."""
    entry = guard.entries[index]
    found = [
        _located(guard, examination, index, piece, known, statistics)
        for piece in _parts(guard, entry, RuleTier.rule_of(guard, index)[1])
    ]
    masks = ([of.doubtful, of.bounded, of.missing, of.certain, of.kept] for of in found)
    return Located(*(torch.cat([part.flatten() for part in of]).view(entry.shape) for of in zip(*masks, strict=True)))


def _doubtful(guard: GuardFile, examination: Examination, index: int, piece: Entry) -> NDArray[np.bool_]:
    """Symbols of a piece that neither digest nor parity proves."""
    stream, shape = guard.stream, guard.manifest.parity
    start = stream.starts[index] + piece.start // SYMBOL
    stop = start + -(-piece.nbytes // SYMBOL)
    tiles = stream.tiles_of_tensor(index).start + piece.start // stream.tile
    per_tile = stream.tile // SYMBOL
    count = -(-piece.nbytes // stream.tile)
    doubtful = np.repeat(examination.unproven[tiles : tiles + count], per_tile)[: stop - start]
    if examination.unsolved is None or shape is None:
        return doubtful
    failed = examination.unsolved.doubtful(start, stop, shape)
    failed |= np.repeat(examination.changed[tiles : tiles + count], per_tile)[: stop - start]
    explained = np.repeat(examination.unsolved.explained[tiles : tiles + count], per_tile)[: stop - start]
    return doubtful & (failed | ~explained)


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
