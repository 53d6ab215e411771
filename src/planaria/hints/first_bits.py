"""The first bits of the weights that matter, stored as they are."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from planaria.hints.base import Array, Groups, Hint, Moments, quantised, quarter_codes
from planaria.hints.entropy import GroupReader
from planaria.hints.exact import quarter_octaves


class FirstBits(Hint):
    """Every weight on its own: for tensors in which nothing has structure.

    A column's step is the smaller the more its input matters (the square root of its mean square, to quarter octaves;
    all alike without moments), so that all noise is alike in the outputs; columns that fall below it get nothing.

    Groups: quarter octaves of each column's step, then the columns of each step, smallest first, row by row.
    """

    name: ClassVar[str] = "first_bits"

    def _analyse(self, weight: Array, moments: Moments | None) -> tuple[float, Callable[[float], Groups]]:
        importance = np.ones(weight.shape[1]) if moments is None else np.diagonal(moments)
        codes = quarter_codes(1 / np.sqrt(importance))
        scaled = [
            (weight[:, codes == code] / quarter_octaves(code)).astype(np.float32).ravel() for code in np.unique(codes)
        ]

        def quantise(step: float) -> Groups:
            groups = [quantised(values, step) for values in scaled]
            return [codes, *groups] if any(group.any() for group in groups) else []

        peak = max((float(np.abs(values).max(initial=0)) for values in scaled), default=0.0)
        return peak, quantise

    def _decode(self, groups: GroupReader, shape: tuple[int, int]) -> Array:
        rows, columns = shape
        codes = groups.take(columns)
        steps = quarter_octaves(codes)
        values = np.zeros(shape)
        for code in np.unique(codes):
            own = np.flatnonzero(codes == code)
            values[:, own] = groups.take(rows * len(own)).reshape(rows, -1) * steps[own]
        return values
