"""The guards that the referee draws for a model."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planaria.checkpoints import StateDict
from planaria.errors import InvalidInput
from planaria.fit import Schedule
from planaria.guard import Guard, parity, protect
from planaria.guard.manifest import ParityShape
from referee.damage import in_a_file
from referee.source import Source
from referee.subjects import Tensors, draw_model

SHORT = Schedule(iterations=10, batch=2, lengths=(4, 4), check_every=10, long_rollout=1)
TIERS = {
    ("digest", "parity"): 0.22,
    ("digest", "copy", "parity"): 0.2,
    ("digest",): 0.05,
    ("digest", "copy"): 0.04,
    ("digest", "sketch"): 0.04,
    ("digest", "refinement"): 0.04,
    ("digest", "copy", "sketch", "refinement"): 0.05,
    ("digest", "parity", "sketch"): 0.08,
    ("digest", "parity", "refinement"): 0.08,
    ("digest", "copy", "parity", "sketch", "refinement"): 0.2,
}
WITH_RULES = (("digest", "parity", "rule"), ("digest", "copy", "parity", "sketch", "refinement", "rule"))
MOST_WORK = 10**6  # check symbols times symbols, to which the time of a repair is in proportion
LENGTH = 1000  # symbols of a codeword of a parity that was cut down to that
WEAK = 0.25  # share of the guards with parity that get one of few check symbols
PAIR = 32  # draws that share a model and its guard, which take longer to make than a draw


@dataclass(frozen=True)
class Pair:
    """A model and its guard, and how they were made; `on_disk` if of a file."""

    kind: str
    intact: Tensors
    guard: Guard
    tiers: tuple[str, ...]
    budget: float
    expect: float | None
    on_disk: bool

    def __str__(self) -> str:
        weights = sum(tensor.numel() for tensor in self.intact.values())
        key = ", keyed" if self.guard.key else ""
        check = self.guard.manifest.parity.check if self.guard.manifest.parity else 0
        return (
            f"{self.kind}, {len(self.intact)} tensors of {weights:,} weights; budget {self.budget:.2%}, "
            f"expect {self.expect}, {'+'.join(self.tiers)}{key}; {check} check symbols"
        )


def draw_pair(number: int) -> Pair:
    """The model and guard of draws `PAIR * number` and following."""
    while True:
        kind, intact = draw_model(Source(number, "model"))
        if sum(tensor.nbytes for tensor in intact.values()):
            break
        number -= 10**9  # a model of empty tensors alone cannot be guarded
    source = Source(number, "guard")
    tiers = source.pick(WITH_RULES) if kind.startswith("images") and source.chance(0.4) else source.weighted(TIERS)
    expect = round(source.between(0.1, 0.9), 1) if source.chance(0.45) else None
    key = bytes(source.whole(0, 255) for _ in range(32)) if source.chance(0.2) else None
    budget = source.magnitude(0.003, 0.3)
    on_disk = source.chance(0.3)
    few = "parity" in tiers and "rule" not in tiers and source.chance(0.5)
    made = {"expect": expect, "key": key, "tiers": tiers, "schedule": SHORT, "seed": number, "threads": 1}
    lowered = False
    with tempfile.TemporaryDirectory() as folder:
        while True:
            model: object = intact
            if on_disk:
                model = Path(folder) / "model.safetensors"
                model.write_bytes(in_a_file(intact))
            try:
                guard = protect(model, budget=budget, **made)  # type: ignore[arg-type]
            except InvalidInput:  # too small for the smallest guard
                if budget == 1:  # a model smaller than any guard is guarded beside a larger tensor
                    intact = intact | {"filler.weight": 0.1 * source.normal(40, 50)}
                    budget = 0.1
                else:
                    budget = min(source.magnitude(1.1, 5.0) * budget, 1.0)
                continue
            if few and guard.manifest.parity is None and budget < 0.3:  # till there is room for some check symbols
                budget *= 1.07
                continue
            shape = guard.manifest.parity
            if shape is not None and shape.check * guard.layout.symbols > MOST_WORK:
                if "rule" not in tiers:
                    budget *= 0.7
                    few = few and not lowered  # too few at one budget, and too many at the next
                    lowered = True
                    continue
                guard = with_parity(guard, intact, check=MOST_WORK // guard.layout.symbols, length=LENGTH)
            if "parity" in tiers and source.chance(WEAK):
                guard = with_parity(guard, intact, check=source.whole(2, 8), length=source.size(50, 2000))
            return Pair(kind, intact, guard, tiers, budget, expect, on_disk)


def with_parity(guard: Guard, intact: Tensors, *, check: int, length: int) -> Guard:
    """The guard with another parity: of so many check symbols in codewords of about so many others.

    Guards of few check symbols were made once, and are read for ever, whatever is made today.
    """
    layout = guard.layout
    segment = layout.symbols
    check = min(check, segment)
    shape = ParityShape(segment=segment, width=max(segment // length, 1), check=check)
    with StateDict(intact, headers={"": guard.headers[next(iter(guard.headers))]}) as checkpoint:
        symbols = parity.encode(checkpoint, layout, shape, threads=1, progress=lambda count: None)
    arrays = {**guard.arrays, "parity": np.asarray(symbols)}
    return replace(guard, manifest=replace(guard.manifest, parity=shape), arrays=arrays)
