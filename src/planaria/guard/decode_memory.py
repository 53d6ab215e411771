"""What the guard's memory tells of weights that no proof covers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.errors import InvalidGuard, InvalidInput
from planaria.guard.estimate import MemoryEstimate, inside
from planaria.guard.evidence import odd_ones, unrelated
from planaria.guard.file import GuardFile
from planaria.guard.locate import MOST_EXTREMES, Located, known_extremes
from planaria.guard.overlay import Overlay
from planaria.guard.pieces import weights_of
from planaria.guard.statistics import PRUNED, Statistics
from planaria.guard.tiers import RefinementTier
from planaria.memory import Memory
from planaria.memory.memory import PRIOR_BYTES, DecodedTensor, EncodedTensor

SPARE = 32  # check bits: a weight wrongly believed goes unnoticed once in 2^32
SPARE_REPORTED = 16  # the same where a hardware test would have to be wrong as well; the last planes have few
SOME = 0.002  # share of doubtful weights that are impossible, from which odd ones may have been overwritten, too
SURPLUS = 0.9  # of a refinement's strength: up to there checks are left over, and a weight wrongly believed is noticed

Masks = dict[str, Bool[Tensor, "*weight"]]


def decode_memory(
    guard: GuardFile, overlay: Overlay, located: Mapping[int, Located], *, mapped: bool, threads: int
) -> dict[int, MemoryEstimate]:
    """What the memory says of these tensors.

    Cost: the refinement codes all its tensors together. If one of them is damaged, all are read: some 40 bytes a
        weight.

    Args:
        overlay: the model with what the parity corrected.
        located: by index, the tensors of the memory that are damaged, and where.
        mapped: whether a hardware test said what is missing.

    Raises:
        InvalidGuard: if the memory is none that could have been stored.
    """
    memory = memory_of(guard)
    if memory is None or not located:
        return {}
    try:
        return _decode_memory(guard, memory, overlay, located, mapped=mapped, threads=threads)
    except InvalidInput as error:
        raise InvalidGuard(f"The guard's memory is not sound: {error}") from error


def memory_of(guard: GuardFile) -> Memory | None:
    """What is encoded of the model, but for what is lost of it; None if that is nothing.

    Raises `InvalidGuard` if the refinement is not sound.
    """
    shape = guard.manifest.memory
    if shape is None:
        return None
    nothing = np.zeros(0, np.uint8)
    kept = [
        shape_of for shape_of in shape.tensors if not shape_of.sketched or f"hint.{shape_of.tensor}" in guard.arrays
    ]
    # Its residuals are what sketches leave: without one of them the refinement tells nothing.
    climbs = "ladder" in guard.arrays and all(shape_of in kept for shape_of in shape.tensors if shape_of.refined)
    tensors = []
    for shape_of in kept:
        entry, content = (
            guard.entries[shape_of.tensor],
            guard.arrays.get(f"hint.{shape_of.tensor}", nothing).view(np.uint8),
        )
        end = len(content) - PRIOR_BYTES * shape_of.prior
        tensors.append(
            EncodedTensor(
                name=entry.name,
                shape=entry.shape,
                codec=shape_of.codec or None,
                space=tuple(shape_of.space),
                content=content[:end],
                prior=content[end:],
                refined=bool(shape_of.refined) and climbs,
            )
        )
    return Memory(tensors, RefinementTier.refinement_of(guard) if climbs else None, shape.strengths if climbs else ())


def _decode_memory(
    guard: GuardFile,
    memory: Memory,
    overlay: Overlay,
    located: Mapping[int, Located],
    *,
    mapped: bool,
    threads: int,
) -> dict[int, MemoryEstimate]:
    shape, entries = guard.manifest.memory, {entry.name: entry for entry in guard.entries}
    assert shape is not None
    index_of = {name: index for index, name in enumerate(entries)}
    damaged = {guard.entries[index].name: found for index, found in located.items()}
    errors = {guard.entries[entry.tensor].name: entry.error for entry in shape.tensors}

    def weights(kept: Memory) -> dict[str, Tensor]:
        return {member.name: weights_of(overlay.read(member.name), entries[member.name]) for member in kept.tensors}

    refined = _of(memory, {kept.name for kept in memory.tensors if kept.refined}, refinement=True)
    climbed = _climbed(refined, weights(refined), damaged, mapped=mapped, threads=threads) if refined.tensors else {}
    memory_estimates = {}
    for kept in memory.tensors:
        if kept.name not in damaged:
            continue
        sketched = _of(memory, {kept.name}, refinement=False)
        tensor = weights(sketched)
        found, bounds = damaged[kept.name], climbed.get(kept.name)
        weight, index = tensor[kept.name], index_of[kept.name]
        nothing = torch.full(kept.shape, torch.inf, dtype=torch.float64)
        low, high = (-nothing, nothing) if bounds is None else (bounds.low, bounds.high)
        bounded = low.isfinite() | high.isfinite()
        error = errors[kept.name] if kept.codec is not None or kept.prior.size else None
        sketch = kept.sketch.double().view(kept.shape)
        contradicted = torch.zeros_like(found.kept)
        statistics = guard.statistics(index)
        if not mapped and error is not None and statistics is not None:
            per_tile = guard.layout.tile * weight.numel() // guard.entries[index].nbytes
            candidates = found.kept & ~bounded
            contradicted = _contradicted(weight, candidates, found, sketch, error, statistics, per_tile)
        missing = found.missing | contradicted | (found.kept & ~inside(weight, low, high))
        sound = ~missing & weight.isfinite()
        if statistics is not None:  # what cannot be right tells nothing of its neighbours
            sound &= ~statistics.broken(weight)
        value = sketched.decode(tensor, {kept.name: sound})[0][kept.name].value
        if bounds is not None:
            value = torch.where(bounded, bounds.value, value)
        memory_estimates[index] = MemoryEstimate(value, low, high, sketch, contradicted, error)
    return memory_estimates


def _contradicted(
    weight: Float[Tensor, "*weight"],
    candidates: Bool[Tensor, "*weight"],
    located: Located,
    sketch: Float[Tensor, "*weight"],
    error: float,
    statistics: Statistics,
    per_tile: int,
) -> Bool[Tensor, "*weight"]:
    """Candidates that the sketch says were overwritten, one by one or in tiles whose weights do not follow it."""
    candidates = candidates & weight.isfinite() & ~known_extremes(weight, candidates, statistics)
    candidates &= (weight != 0) | (statistics.zeros == 0)  # how many zeros there were is known, and not where
    overwritten = located.certain & (weight != 0) & ~statistics.tiny(weight)
    overwritten &= ~statistics.nearly_possible(weight, twice=False)
    for extreme in statistics.extremes(weight, share=1.0):
        stuck = located.kept & extreme
        overwritten |= stuck & bool(stuck.sum() > MOST_EXTREMES)
    odd = torch.zeros_like(candidates)
    if overwritten.sum() > SOME * located.doubtful.sum():
        # Where most weights are zero, the rest bear the error.
        rest = 1 - statistics.zeros if PRUNED <= statistics.zeros < 1 else 1.0
        odd = odd_ones(
            weight,
            sketch,
            error / rest**0.5,
            candidates,
            ~located.doubtful & weight.isfinite(),
            width=statistics.highest - statistics.lowest,
            heavy=statistics.heavy,
        )
    return odd | unrelated(
        weight,
        sketch,
        error,
        candidates & ~odd,
        mean=statistics.mean,
        deviation=statistics.deviation,
        per_tile=per_tile,
    )


def _climbed(
    memory: Memory, tensors: Mapping[str, Tensor], damaged: Mapping[str, Located], *, mapped: bool, threads: int
) -> dict[str, DecodedTensor]:
    """What the refinement tells of the damaged ones among its tensors.

    With all doubtful weights as missing, all that counts as known is proven, and so are the bounds. If those are too
    many, a second attempt takes as missing only those that look it; it counts where so many checks are left over that
    they would contradict if a weight were wrongly believed.
    """
    found = {name: damaged[name] for name in tensors if name in damaged}
    if not found:
        return {}
    weights = sum(tensor.numel() for tensor in tensors.values())

    def decode(missing: Masks, *, spare: int) -> tuple[dict[str, DecodedTensor], int]:
        known = {
            name: ~missing[name] & tensor.isfinite() if name in missing else torch.ones_like(tensor, dtype=torch.bool)
            for name, tensor in tensors.items()
        }
        decoded, contradictions = memory.decode(tensors, known, spare=spare, threads=threads)
        return {name: decoded[name] for name in found}, contradictions

    def share(missing: Masks) -> float:
        return sum(int(mask.sum()) for mask in missing.values()) / weights

    doubtful = {name: doubts.doubtful for name, doubts in found.items()}
    missing = {name: doubts.missing | doubts.bounded for name, doubts in found.items()}
    proven: dict[str, DecodedTensor] = {}
    if not mapped and share(doubtful) <= memory.strengths[0]:
        proven, _ = decode(doubtful, spare=0)
        for name, bounds in proven.items():
            missing[name] |= found[name].kept & ~inside(tensors[name], bounds.low, bounds.high)
    if not mapped and share(missing) > SURPLUS * memory.strengths[0]:
        return proven
    if not mapped and share(missing) == share(doubtful):
        return proven
    likely, contradictions = decode(missing, spare=SPARE_REPORTED if mapped else SPARE)
    if contradictions and mapped:  # the test missed some
        return decode(doubtful, spare=0)[0]
    if contradictions:
        return proven
    return {name: _narrower(likely[name], proven[name]) if proven else likely[name] for name in found}


def _narrower(first: DecodedTensor, second: DecodedTensor) -> DecodedTensor:
    """What both together tell: the value is that of the first where it has bounds."""
    bounded = first.low.isfinite() | first.high.isfinite()
    value = torch.where(bounded, first.value, second.value)
    return DecodedTensor(value, torch.maximum(first.low, second.low), torch.minimum(first.high, second.high))


def _of(memory: Memory, names: set[str], *, refinement: bool) -> Memory:
    """The part of a memory that is of these tensors: only their refinement, or all but it."""
    nothing = np.zeros(0, np.uint8)
    tensors = [kept for kept in memory.tensors if kept.name in names]
    if refinement:
        return Memory([replace(kept, prior=nothing) for kept in tensors], memory.refinement, memory.strengths)
    return Memory([replace(kept, refined=False) for kept in tensors])
