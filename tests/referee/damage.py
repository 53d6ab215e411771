"""The damages that the referee draws: every kind, from one weight to all, anywhere or in one place."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf, nan

import numpy as np
import torch
from safetensors.torch import save

from planaria.damages import (
    AdjacentDouble,
    BitFlip,
    BurstFlip,
    ConductanceQuantisation,
    CorruptDevice,
    Damage,
    DeviceStuckAt,
    Disturb,
    Drift,
    Erasure,
    Faults,
    NonFinite,
    NormalRandom,
    Page,
    ProgrammingNoise,
    Run,
    SetValue,
    SetZero,
    StuckAt,
    SwappedTensors,
    UniformRandom,
    WholeWeight,
    ZeroedTensor,
)
from planaria.errors import InvalidInput
from referee.source import Source
from referee.subjects import Tensors

PATTERNS = ("iid", "block", "row", "column", "channel", "ring")
# By kind: the share of draws, and the damage at a rate.
KINDS: dict[str, tuple[float, Callable[[Source, float], Damage]]] = {
    "bit flips": (3, lambda source, rate: BitFlip(min(rate, 0.3))),
    "exponent flips": (1, lambda source, rate: BitFlip(rate, bits="exponent")),
    "mantissa flips": (1.5, lambda source, rate: BitFlip(rate, bits="mantissa")),
    "sign flips": (0.7, lambda source, rate: BitFlip(rate, bits="sign")),
    "top bit flips": (0.7, lambda source, rate: BitFlip(rate, bits="msb")),
    "bit flips one way": (0.5, lambda source, rate: BitFlip(rate, direction=source.pick(("0to1", "1to0")))),
    "double flips": (0.4, lambda source, rate: AdjacentDouble(rate)),
    "bursts": (0.5, lambda source, rate: BurstFlip(rate / 20, length=source.size(2, 60))),
    "stuck bits": (0.7, lambda source, rate: StuckAt(rate, value=source.whole(0, 1))),
    "whole weights": (2, lambda source, rate: WholeWeight(rate)),
    "pages": (1, lambda source, rate: Page(rate, bytes=source.size(64, 4096), fill=source.pick(("random", "zero")))),
    "run": (1, lambda source, rate: Run(source.size(16, 8192), fill=source.pick(("random", "zero")))),
    "zeros": (2, lambda source, rate: SetZero(rate)),
    "erasure": (1.5, lambda source, rate: Erasure(rate, pattern=source.pick(PATTERNS), value=0.0)),
    "one value": (0.7, lambda source, rate: SetValue(rate, value=source.pick((1.0, -1.0, 100.0, 1e-3)))),
    "uniform": (0.7, lambda source, rate: UniformRandom(rate, low=-0.5, high=0.5)),
    "normal": (0.7, lambda source, rate: NormalRandom(rate, std=source.magnitude(0.01, 10))),
    "noise": (1.5, lambda source, rate: Disturb(rate, size=source.magnitude(1e-4, 3))),
    "noise on all": (0.7, lambda source, rate: Disturb(1.0, size=source.magnitude(1e-5, 0.3))),
    "not finite": (1, lambda source, rate: NonFinite(rate, value=source.pick((nan, inf, -inf)))),
    "quantised": (0.5, lambda source, rate: ConductanceQuantisation(source.size(4, 256))),
    "drift": (0.5, lambda source, rate: Drift(source.magnitude(1, 1e7))),
    "programming noise": (0.4, lambda source, rate: ProgrammingNoise(scale=source.magnitude(0.05, 2))),
    "corrupt devices": (0.5, lambda source, rate: CorruptDevice(rate)),
    "stuck devices": (0.5, lambda source, rate: DeviceStuckAt(rate / 3, rate / 3)),
    "zeroed tensors": (0.5, lambda source, rate: ZeroedTensor(count=1)),
    "swapped tensors": (0.4, lambda source, rate: SwappedTensors()),
}
PLACES = {"everywhere": 3.0, "one tensor": 2.0, "some tensors": 1.0, "one stretch": 1.5}


def draw_damage(source: Source, intact: Tensors) -> tuple[str, Tensors]:
    """What was done, in words, and the damaged copy: one kind of damage, or two on one another."""
    told, tensors = [], {name: tensor.clone() for name, tensor in intact.items()}
    for _ in range(2 if source.chance(0.15) else 1):
        words, tensors = _once(source, tensors)
        told.append(words)
    return " and ".join(told), tensors


def _once(source: Source, tensors: Tensors) -> tuple[str, Tensors]:
    while True:
        kind = source.weighted({name: share for name, (share, _) in KINDS.items()})
        rate = source.magnitude(1e-4, 1.0) if source.chance(0.8) else source.between(0.02, 0.3)
        place = source.weighted(PLACES)
        damage = KINDS[kind][1](source, rate)
        names = [name for name in tensors if tensors[name].numel()]
        if place in ("one tensor", "one stretch"):
            # Larger ones more often: a tiny one has a copy, or little to tell.
            sizes = {name: float(tensors[name].numel() ** 0.5) for name in names}
            names = [source.weighted(sizes)]
        elif place == "some tensors":
            names = [name for name in names if source.chance(0.5)]
        chosen = _damageable({name: tensors[name] for name in names}, damage)
        if not chosen:
            continue
        try:
            faults = damage.apply_to_model(chosen, source.generator).tensors
        except InvalidInput:  # not for tensors of these types, or there is no pair to swap
            continue
        if place == "one stretch":
            faults = {name: _within(source, of) for name, of in faults.items()}
        if not any(len(of.index) for of in faults.values()):
            continue
        struck = sum(len(of.index) for of in faults.values())
        damaged = {name: faults[name].replay(tensors[name]) if name in faults else tensors[name] for name in tensors}
        return f"{kind} at {rate:.2g} in {place} ({struck:,} weights)", damaged


def _damageable(tensors: Tensors, damage: Damage) -> Tensors:
    """Those that the damage can break."""
    if isinstance(damage, SwappedTensors):
        return tensors
    able = set()
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        with suppress(InvalidInput):
            damage.apply(torch.zeros(1, dtype=dtype), torch.Generator())
            able.add(dtype)
    wants_finite = isinstance(damage, ON_FINITE)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.dtype in able and not (wants_finite and not tensor.double().isfinite().all())
    }


ON_FINITE = (ConductanceQuantisation, Drift, ProgrammingNoise, DeviceStuckAt)


def _within(source: Source, faults: Faults) -> Faults:
    """Only the faults in one stretch: some rows, a tile, a part."""
    if not len(faults.index):
        return faults
    around = int(faults.index[source.whole(0, len(faults.index) - 1)])
    length = source.size(1, max(int(np.prod(faults.shape)), 2))
    inside = (faults.index >= around) & (faults.index < around + length)
    return Faults(faults.shape, *(part[inside] for part in (faults.index, faults.old, faults.new)))


@dataclass(frozen=True)
class FileDamage:
    """A model's file: as it was, as it is, and what was done to the file itself."""

    words: str
    intact: bytes
    damaged: bytes


def draw_file_damage(source: Source, intact: Tensors, damaged: Tensors) -> FileDamage:
    """The damaged tensors in a file whose end or header is damaged as well, or not."""
    content, whole = in_a_file(intact), in_a_file(damaged)
    header = 8 + int.from_bytes(content[:8], "little")
    kind = source.weighted({"only weights": 4, "cut short": 2, "longer": 1, "header bit": 2})
    if kind == "cut short":
        whole = whole[: source.whole(header, len(whole) - 1) if source.chance(0.8) else source.whole(1, header)]
    elif kind == "longer":
        whole += bytes(source.whole(0, 255) for _ in range(source.size(1, 300)))
    elif kind == "header bit":
        flipped = bytearray(whole)
        for _ in range(source.pick((1, 1, 1, 2, 8))):
            flipped[source.whole(0, header - 1)] ^= 1 << source.whole(0, 7)
        whole = bytes(flipped)
    return FileDamage(kind, content, whole)


def in_a_file(tensors: Tensors) -> bytes:
    """The content of a safetensors file."""
    return save({name: tensor.clone() for name, tensor in tensors.items()}, metadata={"format": "pt"})
