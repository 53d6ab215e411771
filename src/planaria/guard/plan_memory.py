"""Planning sketches and the refinement: one for each tensor where that pays, and one over all of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.guard import rules
from planaria.guard.headers import LARGEST_EXPANSION
from planaria.guard.manifest import EncodedShape, Manifest, MemoryShape
from planaria.guard.pieces import weights_of
from planaria.guard.statistics import FLOATS
from planaria.guard.tiers.base import Arrays
from planaria.memory import Memory, Planner
from planaria.memory.memory import EncodedTensor, matrix_shape
from planaria.memory.quantiser import thresholds

if TYPE_CHECKING:
    from planaria.guard.making import Making

FEWEST = 256  # weights of a tensor that is encoded
FEWEST_BYTES = 64  # a memory of fewer is none
MOST_WEIGHTS = 2**25  # planning takes about 50 bytes of working memory for each
FITTINGS = 6  # times that a memory is made smaller to fit
SHARES = {frozenset({"sketch"}): (1.0,), frozenset({"refinement"}): (0.0,)}  # of the bytes, for sketches


def plan_memory(making: "Making") -> None:
    """Adds sketches and refinement, whichever are asked for, planned together in the bytes that are theirs.

    Nothing is added if no tensor can be encoded, none is worth it, or there are more than `MOST_WEIGHTS` weights.
    Cost: about 50 bytes of working memory a weight.
    """
    layout, moments = making.layout, making.moments
    count = sum(math.prod(entry.shape) for entry in layout.entries if encodable(entry))
    if count > MOST_WEIGHTS:
        limit = f"up to {MOST_WEIGHTS:,} floating-point weights, and this has {count:,}"
        making.say(f"memory: none, it is for models of {limit}")
        return
    making.progress(0, 1, "planning sketches and refinement")
    of_rules = sum(array.nbytes for name, array in making.arrays.items() if name.startswith("rule."))
    allowed = min(making.size() + (making.memory_room or 0) - of_rules, making.allowed)
    weights = _weights(making)
    nbytes = _nbytes(making, list(weights), allowed)
    if not weights or nbytes < FEWEST_BYTES:
        making.say("memory: none, " + ("no bytes are left" if weights else "no tensor can be encoded"))
        return
    names = {index: layout.entries[index].name for index in weights}
    planner = Planner(
        {names[index]: weight for index, weight in weights.items()},
        moments={name: moment for name, moment in moments.items() if name in names.values()},
        spaces={names[index]: space for index, weight in weights.items() if (space := _space(weight))},
        seed=making.seed,
        threads=making.threads,
    )
    for _ in range(FITTINGS):
        shares = SHARES.get(making.tiers & {"sketch", "refinement"})
        memory = planner.encode(nbytes, expect=making.expect, shares=shares)
        manifest, arrays = _stored(memory, planner.weights, making)
        size = making.size(manifest, arrays)
        refined = [layout.entries[layout.index[kept.name]] for kept in memory.tensors if kept.refined]
        columns = refinement_columns(refined)
        if manifest.memory is None or columns > LARGEST_EXPANSION * size:
            break
        if size <= allowed:
            for line in memory.reasons:
                making.say(f"memory: {line}")
            for kept in memory.tensors:
                making.say(_line(kept, memory, planner.weights[kept.name], moments.get(kept.name)))
            making.add(manifest, arrays)
            return
        nbytes -= max(int(1.1 * (size - allowed)), nbytes // 100)
        if nbytes < FEWEST_BYTES:
            break
    making.say("memory: none that pays has room")


def encodable(entry: Entry) -> bool:
    """Whether a memory of a tensor can be made, if it is finite: of matrices that float32 holds exactly."""
    return entry.dtype in FLOATS and entry.dtype != "F64" and len(entry.shape) > 1 and math.prod(entry.shape) >= FEWEST


def refinement_columns(entries: Sequence[Entry]) -> int:
    """How many columns a refinement of these tensors has: their depths are packed so well that they need a limit."""
    return sum(matrix_shape(entry.shape)[1] for entry in entries)


def _weights(making: "Making") -> dict[int, Tensor]:
    """The tensors of which a memory can be made, by index, as float32."""
    weights = {}
    for index, entry in enumerate(making.layout.entries):
        if not encodable(entry):
            continue
        # What it is computed with must outlast the bytes that were read.
        weight = weights_of(making.checkpoint.read(entry.name), entry)
        if weight.isfinite().all():
            weights[index] = weight
        else:
            making.say(f"memory: none of {entry.name}: not all finite")
    return weights


def _space(weight: Tensor) -> tuple[int, ...]:
    """The sheet that a neuron's inputs make, if neighbours on it tell something; else ()."""
    space, predicted = rules.choose_space(weight[: rules.PROBED_ROWS])
    return space if predicted >= rules.LEAST_VARIANCE else ()


def _nbytes(making: "Making", indices: Sequence[int], allowed: int) -> int:
    """How large a memory may be, by the size of a guard with arrays of as many bytes."""
    largest = max(indices, key=lambda index: making.layout.entries[index].nbytes, default=0)

    def size(nbytes: int) -> int:
        arrays: Arrays = {f"hint.{index}": np.zeros(0, np.uint8) for index in indices}
        arrays |= {"ladder": np.zeros(0, np.uint8), f"hint.{largest}": np.zeros(nbytes, np.uint8)}
        return making.size(arrays=arrays)

    nbytes = allowed - making.size()
    while nbytes > 0 and (excess := size(nbytes) - allowed) > 0:
        nbytes -= max(excess, nbytes // 200, 1)
    return nbytes


def _stored(memory: Memory, weights: Mapping[str, Tensor], making: "Making") -> tuple[Manifest, Arrays]:
    """The memory as the guard has it."""
    shapes: list[EncodedShape] = []
    arrays: Arrays = {}
    for kept in memory.tensors:
        index, sketched = making.layout.index[kept.name], kept.codec is not None or bool(kept.prior.size)
        if sketched:
            arrays[f"hint.{index}"] = np.concatenate([kept.content, kept.prior])
        if sketched or kept.refined:
            space = kept.space if kept.prior.size or kept.codec == "low frequency" else ()
            error = float(f"{_rms(_left(kept, weights[kept.name])):.3g}")
            shapes.append(
                EncodedShape(index, kept.codec or "", space, int(kept.refined), int(bool(kept.prior.size)), error)
            )
    if not shapes:
        return making.manifest, {}
    if memory.refinement is not None:
        arrays["ladder"] = memory.refinement.to_bytes()
    shape = MemoryShape(
        tensors=tuple(shapes), strengths=tuple(float(f"{strength:.4g}") for strength in memory.strengths)
    )
    return replace(making.manifest, version=max(making.manifest.version, 2), memory=shape), arrays


def _left(kept: EncodedTensor, weight: Tensor) -> Float[Tensor, "rows columns"]:
    """What the sketch leaves of a tensor."""
    return weight.reshape(kept.matrix).double() - kept.decode()


def _rms(matrix: Float[Tensor, "rows columns"]) -> float:
    return float(matrix.square().mean().sqrt())


def _line(kept: EncodedTensor, memory: Memory, weight: Tensor, moments: Tensor | None) -> str:
    """What was encoded of a tensor and what that buys."""
    parts = []
    if kept.codec is not None:
        size, bits = kept.content.nbytes, 8 * kept.content.nbytes / weight.numel()
        before, after = (
            float((matrix * (matrix if moments is None else matrix @ moments.double())).sum())
            for matrix in (weight.reshape(kept.matrix).double(), _left(kept, weight))
        )
        parts.append(
            f"sketch ({kept.codec}), {size:,} bytes, {bits:.2g} bits a weight: with all weights lost "
            f"{1 - after / max(before, 1e-300):.0%} of the output's energy is kept"
        )
    if kept.prior.size:
        parts.append(f"prior, {kept.prior.nbytes} bytes, tells more where neighbours survive")
    if kept.refined and memory.refinement is not None:
        place = [member.name for member in memory.tensors if member.refined].index(kept.name)
        for stage, strength in zip(memory.refinement.stages, memory.strengths, strict=True):
            depths = stage.depths[place]
            covered = depths[depths > 0]
            cells = np.mean([len(thresholds(int(depth))) + 1 for depth in covered]) if len(covered) else 0
            parts.append(
                f"refinement: {len(covered):,} of {len(depths):,} columns to about {cells:.0f} cells each, with up to "
                f"{strength:.0%} of all weights missing"
            )
    return f"{kept.name}: " + ("; ".join(parts) or "nothing: its bytes do more for other tensors")
