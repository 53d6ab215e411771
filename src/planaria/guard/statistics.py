"""Plain statistics of an intact tensor, and what they prove of a damaged one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.detectors import Detector, Residual
from planaria.dtypes import integers, torch_dtypes
from planaria.records import Record
from planaria.streams import generator

STORED = 8  # numbers of a tensor
FLOATS = {name: torch_dtypes()[name] for name in ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")}
# Of the root mean square: a normal variable is nearer to zero once in a thousand million draws, random bits often.
TINY = 2.0**-30
PRUNED = 0.3  # share of zeros from which a weight that is one bit away from zero is a zero with a bit flipped
HEAVY = 6.5  # times the root mean square, to which the largest of even many normal weights reaches
PATTERNS = 4096  # random ones that stand for all of a wide type


@dataclass(frozen=True)
class Statistics:
    """Plain statistics of an intact floating-point tensor: those the guard stores, as float32.

    Attributes:
        lowest, highest: of the finite weights.
        mean, rms: of the finite weights; rms is the root mean square.
        limits: of the detector's scores, see `Outlier`; both infinite where some weights were not finite.
        floor: least deviation that the detector counts with.
        zeros: share of the weights that are exactly 0.
    """

    lowest: float = 0.0
    highest: float = 0.0
    mean: float = 0.0
    rms: float = 0.0
    limits: tuple[float, float] = (float("inf"), float("inf"))
    floor: float = 0.0
    zeros: float = 0.0

    @classmethod
    def of(cls, weight: Float[Tensor, "*weight"], detector: Detector | None = None) -> "Statistics":
        """Measured on the finite weights. The detector's part is left open unless all are finite."""
        finite = weight[weight.isfinite()].double()
        if finite.numel() == 0:
            return cls()
        plain = cls(
            _outwards(float(finite.min()), -1),
            _outwards(float(finite.max()), 1),
            float(finite.mean().float()),
            float(finite.square().mean().sqrt().float()),
            zeros=float(np.float32((finite == 0).double().mean())),
        )
        if detector is None or finite.numel() < weight.numel():
            return plain
        record = detector.prepare(weight)
        limits = [_outwards(float(limit), 1) for limit in record["limits"].flatten()]
        return replace(
            plain, limits=(limits[0], limits[-1]), floor=float(record.tensors.get("floor", torch.zeros(())).float())
        )

    @classmethod
    def merged(cls, parts: Sequence["Statistics"], sizes: Sequence[int]) -> "Statistics":
        """Of a tensor, from those of its pieces of so many weights. Limits and floor are the widest of all."""
        if len(parts) < 2:
            return parts[0] if parts else cls()
        shares = np.array(sizes) / sum(sizes)
        return cls(
            min(part.lowest for part in parts),
            max(part.highest for part in parts),
            float(np.dot([part.mean for part in parts], shares)),
            float(np.dot([part.rms**2 for part in parts], shares) ** 0.5),
            (max(part.limits[0] for part in parts), max(part.limits[1] for part in parts)),
            max(part.floor for part in parts),
            float(np.dot([part.zeros for part in parts], shares)),
        )

    @property
    def row(self) -> tuple[float, ...]:
        """As the guard stores it."""
        return (self.lowest, self.highest, self.mean, self.rms, *self.limits, self.floor, self.zeros)

    @classmethod
    def of_row(cls, row: NDArray[np.generic]) -> "Statistics":
        """As it was stored, or forged: a share of zeros that is none is limited to one."""
        lowest, highest, mean, rms, rows, columns, floor, zeros = (float(number) for number in row)
        return cls(lowest, highest, mean, rms, (rows, columns), floor, min(max(zeros, 0.0), 1.0))

    @property
    def all_finite(self) -> bool:
        """Whether all weights of the intact tensor are known to have been finite."""
        return self.limits != (float("inf"), float("inf"))

    @property
    def deviation(self) -> float:
        """Standard deviation of the finite weights."""
        return max(self.rms**2 - self.mean**2, 0.0) ** 0.5

    @property
    def nearly_constant(self) -> bool:
        """Whether the mean tells more of a weight than zero does, wherever it is: scales, not matrices."""
        return abs(self.mean) > 0.9 * self.rms

    @property
    def heavy(self) -> bool:
        """Whether the largest weight is not that of a normal distribution."""
        return max(abs(self.lowest), abs(self.highest)) > HEAVY * self.rms

    def broken(self, weight: Float[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights that cannot be: outside the intact range, not finite, 0 where the intact tensor has no zero, or so
        near to 0 that only a flipped bit brings a weight there. None where some were no numbers before: it may be them.
        """
        if not self.all_finite:
            return torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
        possible = (weight >= self.lowest) & (weight <= self.highest) & ~self.tiny(weight)
        if not self.zeros:
            possible &= weight != 0
        return ~possible

    def tiny(self, weight: Float[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights that are not 0, and nearer to it than any weight of this tensor has a reason to be."""
        return (weight != 0) & (weight.abs().double() < TINY * self.rms)

    def extremes(
        self, weight: Float[Tensor, "*weight"], *, share: float
    ) -> tuple[Bool[Tensor, "*weight"], Bool[Tensor, "*weight"]]:
        """Weights that are at least this share of the intact tensor's smallest one, and of its largest; in the range.

        With a share of 1 they are it to the bit: odd perhaps, and known to have been.
        """

        def near(bound: float) -> Bool[Tensor, "*weight"]:
            least = torch.tensor(share * bound).float()
            if share == 1 and weight.dtype == torch.float64:  # the range was rounded outwards
                least = torch.nextafter(least, torch.zeros(()))
            reached = rounded >= least if bound > 0 else rounded <= least
            return reached & (rounded >= self.lowest) & (rounded <= self.highest)

        rounded = weight.float()
        return near(self.lowest), near(self.highest)

    def gross(self, weight: Float[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights that are no numbers or over twice as large as any was: no noise or flipped mantissa does that."""
        return ~(weight.abs() <= 2 * max(abs(self.lowest), abs(self.highest)))

    def nearly_possible(self, weight: Float[Tensor, "*weight"], *, twice: bool) -> Bool[Tensor, "*weight"]:
        """Weights that are out of the intact range by so little that the bound is nearer to what they were.

        Little is half a deviation, or a quarter of the bound, as by noise of large weights; or less than twice the
        bound, to which flipped bits of a mantissa take a weight.
        """
        outside = (weight < self.lowest) | (weight > self.highest)
        slack = 0.5 * self.deviation
        factor = 2.0 if twice else 1.25
        low = min(self.lowest - slack, self.lowest * factor, self.lowest / factor)
        high = max(self.highest + slack, self.highest * factor, self.highest / factor)
        return outside & (weight >= low) & (weight <= high)

    def flipped_zeros(self, weight: Shaped[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights, as stored, that were 0 but for flipped bits, where the intact tensor is pruned.

        Those are tiny, or have a single bit set beside the sign. Of a type with few bits a weight may well have that.
        """
        values = weight.double()
        if self.zeros < PRUNED:
            return torch.zeros(weight.shape, dtype=torch.bool)
        found = self.tiny(values)
        if weight.element_size() > 1 and weight.dtype != torch.bfloat16:
            bits = integers(weight.contiguous())
            bits = bits & torch.iinfo(bits.dtype).max
            found = found | ((bits != 0) & (bits & (bits - 1) == 0) & (values.abs() < 1))
        return found

    def record(self, detector: Detector, *, slack: float = 1.0) -> Record:
        """What this detector noted on the intact tensor, but for its predictor, which brings its own record.

        With `slack` its limits are so many times as wide.
        """
        limits = slack * torch.tensor(self.limits, dtype=torch.float64)
        return Record(
            {
                "range": torch.tensor([self.lowest, self.highest], dtype=torch.float64),
                "limits": limits[:1] if isinstance(detector, Residual) else limits,
                "floor": torch.tensor(self.floor, dtype=torch.float64),
            }
        )


@lru_cache(maxsize=256)
def shares_that_show(statistics: Statistics, dtype: torch.dtype) -> tuple[float, float]:
    """Of weights overwritten with random bits, the share that is broken on its face, and that of all but tiny ones."""
    size = dtype.itemsize
    if size <= 2:
        patterns = torch.arange(256**size).to({1: torch.uint8, 2: torch.int32}[size])
        patterns = patterns if size == 1 else (patterns - 2**15).to(torch.int16)
    else:
        draws = generator(0, "random bits")
        patterns = torch.randint(256, (PATTERNS * size,), dtype=torch.uint8, generator=draws)
    weight = patterns.view(dtype)
    weight = weight if dtype == torch.float64 else weight.float()
    broken = statistics.broken(weight)
    return float(broken.double().mean()), float((broken & ~statistics.tiny(weight)).double().mean())


def largest_floats(entries: Sequence[Entry], count: int) -> list[int]:
    """The indices, ascending, of so many floating-point tensors of most weights; of equal ones the first."""
    floats = [index for index, entry in enumerate(entries) if entry.dtype in FLOATS]
    return sorted(sorted(floats, key=lambda index: (-prod(entries[index].shape), index))[:count])


def measured_tensors(entries: Sequence[Entry], rows: int, *, compact: bool) -> Sequence[int]:
    """The indices, ascending, of the tensors that so many rows of statistics are of."""
    return largest_floats(entries, rows) if compact else range(rows)


def _outwards(value: float, direction: int) -> float:
    """As float32, rounded away from the inside of a range: rounding must not raise a false alarm."""
    if value != value:
        return float("-nan")  # of the many, the one that processors make
    with np.errstate(over="ignore"):  # a float64 past the range of float32 becomes infinite
        rounded = np.float32(value)
    if (float(rounded) - value) * direction < 0:
        rounded = np.nextafter(rounded, np.float32(direction * np.inf))
    return float(rounded)
