"""Making the memory tiers: a hint for each tensor where that pays, and a ladder over all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Checkpoint
from planaria.guard import rules
from planaria.guard.container import packed_size
from planaria.guard.file import ladder_columns, remembers
from planaria.guard.headers import LARGEST_EXPANSION
from planaria.guard.manifest import Manifest, MemoryShape, RememberedShape
from planaria.guard.pieces import weights_of
from planaria.guard.stream import Stream
from planaria.memory import Memory, Planner
from planaria.memory.memory import Remembered
from planaria.memory.quantiser import thresholds

Explain = Callable[[str], None]
Arrays = dict[str, NDArray[np.generic]]
FEWEST_BYTES = 64  # a memory of fewer is none
MOST_WEIGHTS = 2**25  # planning takes about 50 bytes of working memory for each
FITTINGS = 6  # times that a memory is made smaller to fit
SHARES: dict[tuple[str, ...], tuple[float, ...]] = {("hint",): (1.0,), ("ladder",): (0.0,)}  # of the bytes, for hints


def remember(
    checkpoint: Checkpoint,
    stream: Stream,
    manifest: Manifest,
    plan: Mapping[str, NDArray[np.generic]],
    allowed: int,
    *,
    tiers: Sequence[str],
    expect: float | None,
    moments: Mapping[str, Tensor],
    seed: int,
    threads: int,
    say: Explain,
) -> tuple[Manifest, Arrays]:
    """The manifest and arrays with a memory for which the guard of `plan` takes at most `allowed` bytes in all.

    Nothing is added if no tensor can be remembered, none is worth it, or there are more than `MOST_WEIGHTS` weights.
    Cost: about 50 bytes of working memory a weight.

    Args:
        tiers: "hint", "ladder" or both.
        expect, moments: see `protect`.
        say: called with what was remembered of each tensor, and why.
    """
    count = sum(math.prod(entry.shape) for entry in stream.entries if remembers(entry))
    if count > MOST_WEIGHTS:
        say(f"memory: none, it is for models of up to {MOST_WEIGHTS:,} floating-point weights, and this has {count:,}")
        return manifest, {}
    weights = _weights(checkpoint, stream, say)
    nbytes = _nbytes(manifest, plan, stream, list(weights), allowed)
    if not weights or nbytes < FEWEST_BYTES:
        say("memory: none, " + ("no bytes are left" if weights else "no tensor can be remembered"))
        return manifest, {}
    names = {index: stream.entries[index].name for index in weights}
    planner = Planner(
        {names[index]: weight for index, weight in weights.items()},
        moments={name: moment for name, moment in moments.items() if name in names.values()},
        spaces={names[index]: space for index, weight in weights.items() if (space := _space(weight))},
        seed=seed,
        threads=threads,
    )
    for _ in range(FITTINGS):
        memory = planner.remember(nbytes, expect=expect, shares=SHARES.get(tuple(tiers)))
        made, arrays = _stored(memory, planner.weights, stream, manifest)
        size = packed_size({"manifest": made.encode(), **plan, **arrays})
        columns = ladder_columns([stream.entries[stream.index[of.name]] for of in memory.tensors if of.laddered])
        if made.memory is None or columns > LARGEST_EXPANSION * size:
            break
        if size <= allowed:
            for line in memory.reasons:
                say(f"memory: {line}")
            for of in memory.tensors:
                say(_line(of, memory, planner.weights[of.name], moments.get(of.name)))
            return made, arrays
        nbytes -= max(int(1.1 * (size - allowed)), nbytes // 100)
        if nbytes < FEWEST_BYTES:
            break
    say("memory: none that pays has room")
    return manifest, {}


def _weights(checkpoint: Checkpoint, stream: Stream, say: Explain) -> dict[int, Tensor]:
    """The tensors of which a memory can be made, by index, as float32."""
    weights = {}
    for index, entry in enumerate(stream.entries):
        if not remembers(entry):
            continue
        # What it is computed with must outlast the bytes that were read.
        weight = weights_of(checkpoint.read(entry.name), entry)
        if weight.isfinite().all():
            weights[index] = weight
        else:
            say(f"memory: none of {entry.name}: not all finite")
    return weights


def _space(weight: Tensor) -> tuple[int, ...]:
    """The sheet that a neuron's inputs make, if neighbours on it tell something; else ()."""
    space, predicted = rules.choose_space(weight[: rules.PROBED_ROWS])
    return space if predicted >= rules.LEAST_VARIANCE else ()


def _nbytes(
    manifest: Manifest,
    plan: Mapping[str, NDArray[np.generic]],
    stream: Stream,
    indices: Sequence[int],
    allowed: int,
) -> int:
    """How large a memory may be, by the size of a guard with arrays of as many bytes."""
    largest = max(indices, key=lambda index: stream.entries[index].nbytes, default=0)

    def size(nbytes: int) -> int:
        arrays = {f"hint.{index}": np.zeros(0, np.uint8) for index in indices} | {"ladder": np.zeros(0, np.uint8)}
        arrays[f"hint.{largest}"] = np.zeros(nbytes, np.uint8)
        return packed_size({"manifest": manifest.encode(), **plan, **arrays})

    nbytes = allowed - packed_size({"manifest": manifest.encode(), **plan})
    while nbytes > 0 and (excess := size(nbytes) - allowed) > 0:
        nbytes -= max(excess, nbytes // 200, 1)
    return nbytes


def _stored(
    memory: Memory, weights: Mapping[str, Tensor], stream: Stream, manifest: Manifest
) -> tuple[Manifest, Arrays]:
    """The memory as the guard has it."""
    shapes, arrays = [], Arrays()
    for of in memory.tensors:
        index, hinted = stream.index[of.name], of.codec is not None or bool(of.prior.size)
        if hinted:
            arrays[f"hint.{index}"] = np.concatenate([of.content, of.prior])
        if hinted or of.laddered:
            space = of.space if of.prior.size or of.codec == "low frequency" else ()
            error = float(f"{_rms(_left(of, weights[of.name])):.3g}")
            shapes.append(
                RememberedShape(index, of.codec or "", space, int(of.laddered), int(bool(of.prior.size)), error)
            )
    if not shapes:
        return manifest, {}
    if memory.ladder is not None:
        arrays["ladder"] = memory.ladder.to_bytes()
    shape = MemoryShape(tensors=tuple(shapes), strengths=tuple(float(f"{one:.4g}") for one in memory.strengths))
    return replace(manifest, version=max(manifest.version, 2), memory=shape), arrays


def _left(of: Remembered, weight: Tensor) -> Float[Tensor, "rows columns"]:
    """What the hint leaves of a tensor."""
    return weight.reshape(of.matrix).double() - of.decode()


def _rms(matrix: Float[Tensor, "rows columns"]) -> float:
    return float(matrix.square().mean().sqrt())


def _line(of: Remembered, memory: Memory, weight: Tensor, moments: Tensor | None) -> str:
    """What was remembered of a tensor and what that buys."""
    told = []
    if of.codec is not None:
        size = of.content.nbytes
        before, after = (
            float((matrix * (matrix if moments is None else matrix @ moments.double())).sum())
            for matrix in (weight.reshape(of.matrix).double(), _left(of, weight))
        )
        told.append(
            f"hint ({of.codec}), {size:,} bytes, {8 * size / weight.numel():.2g} bits a weight: with all weights lost "
            f"{1 - after / max(before, 1e-300):.0%} of the output's energy is kept"
        )
    if of.prior.size:
        told.append(f"prior, {of.prior.nbytes} bytes, tells more where neighbours survive")
    if of.laddered and memory.ladder is not None:
        place = [one.name for one in memory.tensors if one.laddered].index(of.name)
        for stage, strength in zip(memory.ladder.stages, memory.strengths, strict=True):
            rungs = stage.rungs[place]
            covered = rungs[rungs > 0]
            cells = np.mean([len(thresholds(int(rung))) + 1 for rung in covered]) if len(covered) else 0
            told.append(
                f"ladder: {len(covered):,} of {len(rungs):,} columns to about {cells:.0f} cells each, with up to "
                f"{strength:.0%} of all weights missing"
            )
    return f"{of.name}: " + ("; ".join(told) or "nothing: its bytes do more for other tensors")
