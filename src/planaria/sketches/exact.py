"""Arithmetic with the same bits on every machine, for any number of threads.

Single operations on float64 are (IEEE 754 rounds them one way); sums are not, as their order is free. So sums here are
of integers held in float64: while all partial sums stay below 2^53, no order rounds.
"""

import numpy as np
from jaxtyping import Float64, Integer

from planaria.errors import InvalidInput

_BITS = 53
_FARTHEST = 1000
_QUARTERS = np.array([1048576, 1246974, 1482910, 1763488], np.float64)  # 2^20 times 1, 2^(1/4), 2^(1/2), 2^(3/4)


def quarter_octaves(codes: Integer[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """2^(code / 4), to 20 bits.

    Raises:
        InvalidInput: on codes beyond 1000 either way; none arises from finite weights.
    """
    if np.abs(codes).max(initial=0) > _FARTHEST:
        raise InvalidInput(f"A scale is at most 2^250 either way, not 2^{np.abs(codes).max() / 4}. Content is damaged.")
    return np.ldexp(_QUARTERS[codes % 4], (codes // 4 - 20).astype(np.int32))


def product(
    a: Float64[np.ndarray, "rows inner"], b: Float64[np.ndarray, "inner columns"]
) -> Float64[np.ndarray, "rows columns"]:
    """The matrix product of both factors, each rounded to multiples of a power of two: to 21 bits for inner = 1000.

    The largest number of a factor keeps that many bits; smaller ones share its exponent.
    """
    bits = (_BITS - max(a.shape[1], 1).bit_length()) // 2
    (left, left_exponent), (right, right_exponent) = _integers(a, bits), _integers(b, bits)
    return np.ldexp(left @ right, left_exponent + right_exponent)


def _integers(values: Float64[np.ndarray, "*shape"], bits: int) -> tuple[Float64[np.ndarray, "*shape"], int]:
    """Integers up to 2^bits and the exponent of two that makes them `values` again."""
    exponent = int(np.frexp(np.abs(values).max(initial=0))[1]) - bits
    return np.rint(np.ldexp(values, -exponent)), exponent
