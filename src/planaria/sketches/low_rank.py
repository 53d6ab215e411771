"""A product of two thin matrices: the combinations of inputs that a layer's outputs feel most."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64

from planaria.errors import InvalidInput
from planaria.sketches import exact
from planaria.sketches.base import Array, Groups, Moments, Sketch, quantised, quarter_codes
from planaria.sketches.entropy import GroupReader

_SMALLEST = 1e-10  # eigenvalues, in units of the largest: below it they are rounding
_RIDGE = 1e-5  # on the Gram matrix of a factor whose rows may be 0


class LowRankSketch(Sketch):
    """The singular value decomposition that is best in the outputs, its factors quantised.

    W is A B with B M B' = 1 and A = W M B', M the moments (1 without): then the squares of the columns of A are what
    each component adds to the outputs, and leaving out the smallest is the best approximation of a rank (Eckart and
    Young, of W L with M = L L'). An error of B counts times its component's singular value s and its input's root mean
    square r. So A has one step, and B's are A's divided by s and r, both to quarter octaves. A is refitted to B as
    quantised, in least squares of the outputs, before it is quantised itself.

    A component is kept if that lowers the error by more than its bits would elsewhere, see `_kept`.

    Groups: the rank; quarter octaves of r; those of s in steps, as differences from component to component; the columns
    of A; the rows of B.
    """

    def _analyse(self, weight: Array, moments: Moments | None) -> tuple[float, Callable[[float], Groups]]:
        squares, left, right = _decomposed(weight, moments)
        values = np.sqrt(squares)
        inputs = np.zeros(weight.shape[1], np.int64)
        if moments is not None:
            inputs = quarter_codes(np.sqrt(np.diagonal(moments)))
        spread = exact.quarter_octaves(inputs).astype(np.float32)
        felt = right if moments is None else right @ moments.astype(np.float32)

        def quantise(step: float) -> Groups:
            rank = _kept(squares, step * step / 12, weight.shape)
            if not rank:
                return []
            scales = quarter_codes(values[:rank] / step)
            sizes = exact.quarter_octaves(scales).astype(np.float32)[:, None] * spread
            second = quantised(right[:rank] * sizes, 1.0)
            coarse = second / sizes
            own = coarse @ (coarse.T if moments is None else moments.astype(np.float32) @ coarse.T)
            own = own.astype(np.float64) + _RIDGE * max(float(own.trace()) / rank, 1e-30) * np.eye(rank)
            refit = np.linalg.solve(own, (coarse @ felt.T).astype(np.float64)).astype(np.float32)
            first = quantised(refit @ left, step)
            return [np.array([rank]), inputs, np.diff(scales, prepend=0), *first, *second]

        peak = max(np.abs(left).max(), 1.2 * (values * np.abs(right * spread).max(1)).max())
        return float(peak), quantise

    def _decode(self, groups: GroupReader, shape: tuple[int, int]) -> Array:
        rank = int(groups.take(1)[0])
        if not 1 <= rank <= min(shape):
            raise InvalidInput(f"A matrix of shape {shape} has no rank of {rank}. The content is damaged.")
        spread = exact.quarter_octaves(-groups.take(shape[1]))
        scales = exact.quarter_octaves(-groups.take(rank).cumsum())
        left, right = (np.empty((rank, size)) for size in shape)
        for factor in (left, right):
            for component in factor:
                component[:] = groups.take(len(component))
        return exact.product((left * scales[:, None]).T, right) * spread


def _decomposed(
    weight: Array, moments: Moments | None
) -> tuple[Float64[np.ndarray, " rank"], Float32[np.ndarray, "rank rows"], Float32[np.ndarray, "rank columns"]]:
    """Squared singular values, largest first, A' and B; by way of the smaller Gram matrix."""
    root = np.eye(0) if moments is None else np.linalg.cholesky(moments)
    tall = weight.shape[0] >= weight.shape[1]
    if tall:
        gram = weight.T @ weight
        gram = gram if moments is None else root.T @ gram @ root
    else:
        gram = (weight if moments is None else weight @ moments) @ weight.T
    squares, vectors = np.linalg.eigh((gram + gram.T) / 2)
    large = squares > _SMALLEST * squares[-1]
    squares, vectors = squares[large][::-1], vectors[:, large][:, ::-1]
    if tall:
        left = (weight @ (vectors if moments is None else root @ vectors)).T
        right = vectors.T if moments is None else np.linalg.solve(root.T, vectors).T
    else:
        left = (vectors * np.sqrt(squares)).T
        right = (vectors / np.sqrt(squares)).T @ weight
    return squares, left.astype(np.float32), right.astype(np.float32)


def _kept(squares: Float64[np.ndarray, " rank"], noise: float, shape: tuple[int, ...]) -> int:
    """How many components pay, for the noise of a number as quantised.

    A bit spent on a number of variance v takes 2 ln 2 times the noise off the error, and a uniform quantiser takes
    log2(v / noise) / 2 of them and a quarter more (Gish and Pierce 1968). A component brings as much noise as its
    numbers, and takes its energy off.
    """
    cost = sum(size * noise * (1 + np.log(2) / 2 + np.log(np.maximum(squares / (size * noise), 1))) for size in shape)
    return int((squares > cost).sum())
