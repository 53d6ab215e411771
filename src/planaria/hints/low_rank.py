"""A product of two thin matrices: the combinations of inputs that a layer's outputs feel most."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cholesky, solve_triangular

from planaria.errors import InvalidInput
from planaria.hints import exact
from planaria.hints.base import Array, Groups, Hint, quantised, quarter_codes
from planaria.hints.entropy import Groups as Reader

_SMALLEST = 1e-10  # eigenvalues, in units of the largest: below it they are rounding


class LowRank(Hint):
    """The singular value decomposition that is best in the outputs, its factors quantised.

    W is A B with B M B' = 1 and A = W M B', M the moments: then the squares of the columns of A are what each component
    adds to the outputs, and leaving out the smallest is the best approximation of a rank (Eckart and Young, of W L with
    M = L L'). An error of B counts times its component's singular value s and its input's root mean square r. So A
    has one step, and B's are A's divided by s and r, both to quarter octaves.

    A component is kept if the noise that it would bring and what its bits are worth (2 ln 2 times the noise of a number
    for each) are below its energy, numbers of variance v at noise d taking log2(v / d) / 2 bits.

    Groups: the rank, quarter octaves of r, of s in steps (differences from component to component), then the columns of
    A, then the rows of B.
    """

    name: ClassVar[str] = "low_rank"

    def _analyse(self, weight: Array, moments: Array | None) -> tuple[float, float, Callable[[float], Groups]]:
        rows, columns = weight.shape
        if not weight.any():
            return 0.0, 0.0, lambda step: []
        left, right, squares = _decomposed(weight, moments)
        codes = np.zeros(columns, np.int64) if moments is None else quarter_codes(np.sqrt(np.diagonal(moments)))
        left = left.astype(np.float32)
        right = (right * exact.quarter_octaves(codes)).astype(np.float32)
        values = np.sqrt(squares)

        def quantise(step: float) -> Groups:
            rank = int(_worth_it(squares, step * step / 12, rows, columns).sum())
            scales = quarter_codes(values[:rank] / step)
            first = quantised(left[:rank], step)
            second = quantised(right[:rank] * exact.quarter_octaves(scales).astype(np.float32)[:, None], 1.0)
            if not rank:
                return []
            return [np.array([rank]), codes, np.diff(scales, prepend=0), *first, *second]

        peak = max(float(np.abs(left).max()), float(1.2 * (values * np.abs(right).max(1)).max()))
        return float(np.sqrt(squares.sum() / weight.size)), peak, quantise

    def _decode(self, groups: Reader, shape: tuple[int, int]) -> Array:
        rank = int(groups.take(1)[0])
        if not 0 <= rank <= min(shape):
            raise InvalidInput(f"A matrix of shape {shape} has no rank of {rank}. The content is damaged.")
        inputs = exact.quarter_octaves(-groups.take(shape[1]))
        scales = exact.quarter_octaves(-groups.take(rank).cumsum())
        left, right = (np.zeros((rank, size)) for size in shape)
        for factor in (left, right):
            for component in factor:
                component[:] = groups.take(len(component))
        return exact.product((left * scales[:, None]).T, right) * inputs


def _decomposed(
    weight: Array, moments: Array | None
) -> tuple[
    Float64[np.ndarray, "rank rows"], Float64[np.ndarray, "rank columns"], Float64[np.ndarray, " rank"]
]:
    """A' and B, and the squared singular values, largest first; by the smaller Gram matrix."""
    root = None if moments is None else cholesky(moments, lower=True)
    if weight.shape[0] >= weight.shape[1]:
        gram = weight.T @ weight
        squares, vectors = np.linalg.eigh(gram if root is None else root.T @ gram @ root)
        squares, vectors = squares[::-1], vectors[:, ::-1]
        kept = squares > _SMALLEST * squares[0]
        squares, vectors = squares[kept], vectors[:, kept]
        left = (weight @ (vectors if root is None else root @ vectors)).T
        right = vectors.T if root is None else solve_triangular(root, vectors, lower=True, trans=1).T
    else:
        felt = weight if moments is None else weight @ moments
        squares, vectors = np.linalg.eigh(felt @ weight.T)
        squares, vectors = squares[::-1], vectors[:, ::-1]
        kept = squares > _SMALLEST * squares[0]
        squares, vectors = squares[kept], vectors[:, kept]
        left = (vectors * np.sqrt(squares)).T
        right = (vectors / np.sqrt(squares)).T @ weight
    return left, right, squares


def _worth_it(squares, noise: float, rows: int, columns: int):
    cost = sum(noise * size * (1 + np.log(np.maximum(squares / (noise * size), 1))) for size in (rows, columns))
    return squares > cost
