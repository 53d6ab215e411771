"""The first bits of the weights that matter, stored as they are."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int32
from scipy.linalg import cholesky

from planaria.sketches.base import Array, Groups, Moments, Sketch, quantised, quarter_codes
from planaria.sketches.entropy import GroupReader
from planaria.sketches.exact import quarter_octaves

BLOCK = 64  # columns
HEAPED = 16  # times the largest weight, that errors which are passed on add up to


class FirstBits(Sketch):
    """Every weight on its own: for tensors in which nothing has structure.

    A column's step is the smaller the more its input matters (the square root of its mean square, to quarter octaves;
    all alike without moments), so that all noise is alike in the outputs; columns that fall below it get nothing. With
    moments, the columns that are quantised later make up for the error of each one (GPTQ; Frantar and others 2023,
    algorithm 1), the most important first.

    Groups: quarter octaves of each column's step, then the columns of each step, smallest first, row by row.

    Args:
        even: one step for all columns, whatever their inputs: of few bytes, steps would take a large part. It reads the
            same as any other.
    """

    def __init__(self, *, even: bool = False):
        self.even = even

    def _analyse(self, weight: Array, moments: Moments | None) -> tuple[float, Callable[[float], Groups]]:
        importance = np.ones(weight.shape[1]) if moments is None or self.even else np.diagonal(moments)
        codes = quarter_codes(1 / np.sqrt(importance))
        sizes = quarter_octaves(codes)
        feedback = None if moments is None else _Feedback(moments)

        def quantise(step: float) -> Groups:
            steps = step * sizes
            whole = quantised(weight / steps, 1.0) if feedback is None else feedback.quantised(weight, steps)
            return [codes, *(whole[:, codes == code].ravel() for code in np.unique(codes))] if whole.any() else []

        largest = float(np.abs(weight / sizes).max(initial=0.0))
        return largest if feedback is None else HEAPED * largest, quantise

    def _decode(self, groups: GroupReader, shape: tuple[int, int]) -> Array:
        rows, columns = shape
        codes = groups.take(columns)
        steps = quarter_octaves(codes)
        values = np.zeros(shape)
        for code in np.unique(codes):
            own = np.flatnonzero(codes == code)
            values[:, own] = groups.take(rows * len(own)).reshape(rows, len(own)) * steps[own]
        return values


class _Feedback:
    """Quantises column by column, and lets those that follow make up for each error in the outputs."""

    def __init__(self, moments: Moments):
        self.order = np.argsort(-np.diagonal(moments), kind="stable")
        # Rows of the upper factor of the inverse say how an error is made up for.
        self.factor = cholesky(np.linalg.inv(moments[np.ix_(self.order, self.order)]))

    def quantised(self, weight: Array, steps: Float64[np.ndarray, " columns"]) -> Int32[np.ndarray, "rows columns"]:
        """Multiples of each column's step."""
        left, steps = weight[:, self.order].T.copy(), steps[self.order]
        whole = np.zeros(left.shape, np.int32)
        for start in range(0, len(left), BLOCK):  # what an error changes far away is added up in one product
            stop = min(start + BLOCK, len(left))
            errors = np.empty_like(left[start:stop])
            for at in range(start, stop):
                whole[at] = quantised(left[at] / steps[at], 1.0)
                errors[at - start] = (left[at] - whole[at] * steps[at]) / self.factor[at, at]
                left[at + 1 : stop] -= self.factor[at, at + 1 : stop, None] * errors[at - start]
            left[stop:] -= self.factor[start:stop, stop:].T @ errors
        back = np.empty_like(whole)
        back[self.order] = whole
        return back.T
