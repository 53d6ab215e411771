"""A weight is damaged if it lies far outside what its row or its column holds."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from planaria.detectors.base import Detector, intact_range, outside, working
from planaria.records import Record

SHORTEST_LINE = 32
"""Cells that a row or column needs for a median of its own.

At 20 % of scattered damage half of a line of 32 is damaged, which would carry its median off, once in ten thousand
lines; of a line of 16, once in 150.
"""


class Outlier(Detector):
    """The robust z-score, |weight - median| / median absolute deviation (Hampel 1974), of each weight in its line.

    The lines are the rows and the columns of the matrix `(shape[0], the rest)`, as far as they have 32 cells; the whole
    tensor is one line if neither has. A weight is damaged if its score exceeds that of the intact tensor, rows and
    columns each on their own, or if it lies outside the intact range. Medians stand up to 20 % of damaged cells: those
    outside the intact range are left out of them, and those inside move them little.

    Holds five copies of the tensor in float32 (or float64), at O(cells) time: about 0.1 s a million cells.

    The limit is the largest intact score, so a single far-out weight makes the detector deaf up to there.

    Record: the range, a limit for rows and one for columns (infinite where only one of them, or the whole tensor, is
    looked at), and the least deviation that counts: 20 bytes (40 for float64).
    """

    def prepare(self, weight: Shaped[Tensor, "*weight"]) -> Record:
        values = working(weight)
        if values.numel() == 0:
            return Record()
        low_and_high = intact_range(values)
        # Lines of equal values (pruned weights, biases at zero) have deviation 0, in units of which all others are
        # infinitely far. The floor comes from the intact tensor, so that no damage moves it.
        floor = 0.1 * (values - values.median()).abs().mean()
        scores = _scores(values, floor)
        limits = values.new_full((2,), torch.inf)
        for place, score in enumerate(scores):
            limits[place] = score.max()
        return Record({"range": low_and_high, "limits": limits, "floor": floor})

    def _damaged(
        self, weight: Shaped[Tensor, "*weight"], record: Record, suspect: Bool[Tensor, "*weight"]
    ) -> Bool[Tensor, "*weight"]:
        values = working(weight)
        damaged = outside(values, record["range"])
        scores = _scores(values.masked_fill(damaged, torch.nan), record["floor"].to(values))
        for score, limit in zip(scores, record["limits"].to(values), strict=False):
            damaged = damaged | (score > limit)
        return damaged


def _scores(values: Float[Tensor, "*weight"], floor: Float[Tensor, ""]) -> list[Float[Tensor, "*weight"]]:
    """Of each weight in its row and in its column, as far as these are long enough. NaN is missing, and stays NaN."""
    matrix = values.flatten(1) if values.dim() > 1 else values.reshape(1, -1)
    axes = [axis for axis in (1, 0) if matrix.shape[axis] >= SHORTEST_LINE]
    if not axes:
        matrix, axes = values.reshape(1, -1), [1]
    return [_line_scores(matrix, axis, floor).view(values.shape) for axis in axes]


def _line_scores(
    matrix: Float[Tensor, "rows columns"], axis: int, floor: Float[Tensor, ""]
) -> Float[Tensor, "rows columns"]:
    distance = (matrix - matrix.nanmedian(axis, keepdim=True).values).abs()
    return distance / distance.nanmedian(axis, keepdim=True).values.clamp_min(floor)
