"""A weight is damaged if it is more likely to be what a flipped bit left than what the weights around it predict."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from planaria.detectors.base import Detector, checked_rate, intact_range, largest_but, outside, working
from planaria.detectors.outlier import SHORTEST_LINE
from planaria.detectors.residual import (
    Predictor,
    checked_folds,
    cross_predicted,
    predictors_record,
    with_prefix,
    worst_first,
)
from planaria.errors import InvalidInput
from planaria.records import Record

Bits = Literal["all", "sign", "exponent", "mantissa", "msb"]
PRIOR_CELLS = 4  # of the whole tensor's spread, mixed into that of a line
STEPS = 8  # of a stored spread in an octave
NARROWEST = 1e-4  # of the largest weight: no spread is smaller
ROUNDING = 1e-5  # of the largest weight: how far apart two machines' predictions may be


class FlippedBit(Detector):
    """The likelihood ratio of "one bit of this weight was flipped" to "it is intact" (Neyman and Pearson 1933).

    Each weight is predicted from the weights of other folds, as `Residual` does; the prediction misses intact weights
    by a normal error, whose spread is noted for each row and column of the matrix `(shape[0], the rest)` that has 32
    cells, else for the whole tensor. A weight that holds the value v has the probability P(v) = density(v) * (distance
    of the floats at v), and its score is

        log mean over bits b of P(v with bit b flipped back) - log P(v).

    So a weight that is far from its prediction is damaged only if a flipped bit explains it, and one that is absurdly
    small (an exponent's bit cleared) is damaged though it is near zero. For errors of this kind no other score of the
    same predictions finds more at the same rate of false alarms. A weight is named if its score exceeds that of any (or
    of all but a share `rate`) of the intact weights, in rounds as `Residual` does, or if it lies outside the intact
    range. Takes floats, and int8 as two's complement.

    Time: as `Residual`, and O(cells) a bit. Space: a few copies of the tensor in float64.

    Args:
        predictor: what fills missing weights, for example `planaria_lab.repairers.RowKriging(layout)`.
        bits: which may be flipped: "all"; "msb" or "sign", the top one; "exponent" or "mantissa", for floats only; or
            positions, 0 being the lowest.
        rate: the share of intact weights that may be named damaged, 0 <= rate < 1.
        folds: at least 2. More cost more and hide less at a time. Predictors that leave out one by one need none.

    Record: the predictor's, 1 byte for each row and column with a spread of its own, and 20 bytes (28 for float64).

    Raises:
        InvalidInput: on another rate, fewer folds, unknown, repeated, negative or no bits; later if a dtype lacks them.
    """

    def __init__(self, predictor: Predictor, *, bits: Bits | Sequence[int] = "all", rate: float = 0.0, folds: int = 5):
        if isinstance(bits, str):
            if bits not in get_args(Bits):
                raise InvalidInput(f"Unknown bits {bits!r}. They are {', '.join(get_args(Bits))}, or positions.")
        elif len(bits) == 0 or min(bits) < 0 or len(set(bits)) < len(bits):
            raise InvalidInput(f"Positions of bits are 0 or more, each named once, at least one; not {list(bits)}.")
        self.predictor = predictor
        self.bits = bits if isinstance(bits, str) else tuple(bits)
        self.rate = checked_rate(rate)
        self.folds = checked_folds(folds)

    def prepare(self, weight: Shaped[Tensor, "*weight"]) -> Record:
        values = _numbers(weight)
        positions(weight.dtype, self.bits)  # refuses what lacks them, empty or not
        if values.numel() == 0:
            return Record()
        low_and_high = intact_range(values)
        noted = self.predictor.prepare(values)
        known = torch.ones_like(values, dtype=torch.bool)
        predicted = cross_predicted(self.predictor, values, known, noted, folds=self.folds).double()
        spreads = _spreads(values - predicted, low_and_high)
        spread = _spread(values.shape, spreads, low_and_high)
        away = ROUNDING * low_and_high.abs().max()
        scores = [self._ratio(weight, predicted + shift, spread) for shift in (0.0, away, -away)]
        limit = largest_but(self.rate, torch.stack(scores).amax(0))
        return Record({"range": low_and_high, "limits": limit.view(1), **spreads.tensors, **with_prefix(noted)})

    def scores(self, weight: Shaped[Tensor, "*weight"], record: Record) -> Float64[Tensor, "*weight"]:
        """The log likelihood ratio of each weight, natural; finite, but infinite where a weight is no number.

        One round, and what lies outside the intact range is hidden from the predictor.
        """
        values = _numbers(weight)
        if values.numel() == 0:
            return values.double()
        return self._scores(weight, values, ~outside(values, record["range"]), record)

    def _damaged(
        self, weight: Shaped[Tensor, "*weight"], record: Record, suspect: Bool[Tensor, "*weight"]
    ) -> Bool[Tensor, "*weight"]:
        values = _numbers(weight)
        broken = outside(values, record["range"])
        limit = record["limits"].to(values.device)[0]
        return worst_first(lambda known: self._scores(weight, values, known, record), broken, suspect, limit)

    def _scores(
        self,
        weight: Shaped[Tensor, "*weight"],
        values: Float[Tensor, "*weight"],
        known: Bool[Tensor, "*weight"],
        record: Record,
    ) -> Float64[Tensor, "*weight"]:
        noted = predictors_record(record)
        predicted = cross_predicted(self.predictor, values, known, noted, folds=self.folds).double()
        return self._ratio(weight, predicted, _spread(values.shape, record, record["range"].to(values)))

    def _ratio(
        self,
        weight: Shaped[Tensor, "*weight"],
        predicted: Float64[Tensor, "*weight"],
        spread: Float64[Tensor, "*weight"],
    ) -> Float64[Tensor, "*weight"]:
        bits = positions(weight.dtype, self.bits)
        flipped = torch.full_like(predicted, -torch.inf)
        for bit in bits:
            flipped = torch.logaddexp(flipped, _log_probability(with_bit_flipped(weight, bit), predicted, spread))
        ratio = flipped - math.log(len(bits)) - _log_probability(weight, predicted, spread)
        lost = ~weight.double().isfinite()
        return ratio.nan_to_num(0.0, neginf=-1e300, posinf=1e300).masked_fill(lost, torch.inf)


def positions(dtype: torch.dtype, bits: Bits | tuple[int, ...]) -> Sequence[int]:
    """The positions of bits in a weight of `dtype`. Raises `InvalidInput` if it lacks them."""
    top = 8 * dtype.itemsize - 1
    if bits == "all":
        return range(top + 1)
    if bits in ("msb", "sign"):
        return [top]
    if not isinstance(bits, str):
        if max(bits) > top:
            raise InvalidInput(f"{dtype} has bits 0 to {top} and no bit {max(bits)}. Name others.")
        return bits
    if not dtype.is_floating_point:
        raise InvalidInput(f'{dtype} is no float and has no {bits} bits. Name "all", "msb" or positions.')
    mantissa = _mantissa(dtype)
    return range(mantissa) if bits == "mantissa" else range(mantissa, top)


def with_bit_flipped(weight: Shaped[Tensor, "*weight"], bit: int) -> Shaped[Tensor, "*weight"]:
    """A copy in which that bit of every weight is the other way round; bit 0 is the lowest."""
    width = 8 * weight.element_size()
    integers = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}[width]
    mask = 1 << bit if bit < width - 1 else -(1 << bit)
    return (weight.detach().contiguous().view(integers) ^ mask).view(weight.dtype)


def _numbers(weight: Shaped[Tensor, "*weight"]) -> Float[Tensor, "*weight"]:
    return weight.float() if weight.dtype == torch.int8 else working(weight)


def _mantissa(dtype: torch.dtype) -> int:
    return round(-math.log2(torch.finfo(dtype).eps))


def _log_probability(
    weight: Shaped[Tensor, "*weight"], predicted: Float64[Tensor, "*weight"], spread: Float64[Tensor, "*weight"]
) -> Float64[Tensor, "*weight"]:
    """Of the values among all that the dtype can hold, but for a constant; minus infinity for NaN and infinity."""
    values = weight.detach().double()
    density = -0.5 * ((values - predicted) / spread).square() - spread.log()
    if weight.is_floating_point():
        limits = torch.finfo(weight.dtype)
        exponent = (torch.frexp(values).exponent - 1).clamp_min(round(math.log2(limits.smallest_normal)))
        density = density + math.log(2) * (exponent - _mantissa(weight.dtype))
    return density.masked_fill(~values.isfinite(), -torch.inf)


def _spreads(missed: Float64[Tensor, "*weight"], low_and_high: Float[Tensor, "2"]) -> Record:
    """Of the errors by column and by row, in eighths of octaves below the unit."""
    square = _matrix(missed).square()
    whole = square.mean().clamp_min((NARROWEST * _largest(low_and_high)) ** 2)
    square = square / whole
    lines = []
    for axis in (0, 1):
        cells = square.shape[axis]
        if cells >= SHORTEST_LINE:
            line = (square.sum(axis, keepdim=True) + PRIOR_CELLS) / (cells + PRIOR_CELLS)
            square = square / line
        else:
            line = square.new_ones(0)
        lines.append(line.flatten())
    columns, rows = (0.5 * line.log2() for line in lines)
    tops = [line.max() if len(line) else line.new_zeros(()) for line in (columns, rows)]
    unit = (0.5 * (whole * square.mean().clamp_min(1e-12)).log2() + sum(tops)).float().view(1)
    steps = [
        (STEPS * (top - line)).round().clamp(0, 255).byte() for line, top in zip((columns, rows), tops, strict=True)
    ]
    return Record({"columns": steps[0], "rows": steps[1], "octaves": unit})


def _spread(shape: torch.Size, record: Record, low_and_high: Float[Tensor, "2"]) -> Float64[Tensor, "*weight"]:
    """Of each weight's prediction, from what `_spreads` noted."""
    columns, rows, octaves = (record[name].to(low_and_high.device).double() for name in ("columns", "rows", "octaves"))
    height, width = _matrix(torch.empty(shape, device="meta")).shape
    if columns.numel() not in (0, width) or rows.numel() not in (0, height):
        raise InvalidInput(
            f"The record holds spreads of {rows.numel()} rows and {columns.numel()} columns, not those of a weight of "
            f"shape {tuple(shape)}. Hand over the record of this tensor."
        )
    steps = (rows.view(-1, 1) if rows.numel() else 0) + (columns if columns.numel() else 0)
    log = octaves - torch.as_tensor(steps, dtype=torch.float64) / STEPS
    spread = torch.exp2(log).clamp_min(NARROWEST * _largest(low_and_high))
    return spread.expand(height, width).reshape(shape)


def _largest(low_and_high: Float[Tensor, "2"]) -> float:
    """The largest weight's size, 1 where all are 0."""
    return float(low_and_high.abs().max()) or 1.0


def _matrix(weight: Shaped[Tensor, "*weight"]) -> Shaped[Tensor, "rows columns"]:
    return weight.flatten(1) if weight.dim() > 1 else weight.reshape(1, -1)
