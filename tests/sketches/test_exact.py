"""Sums that no order changes."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import drawn, examples
from hypothesis import given
from hypothesis import strategies as st

from planaria.errors import InvalidInput
from planaria.sketches import exact
from planaria.sketches.low_frequency import _cosines


@given(rows=st.integers(1, 4), inner=st.integers(1, 40), columns=st.integers(1, 4), seed=st.integers(0, 99))
@examples(20)
def test_a_product_is_that_of_its_rounded_factors_in_whole_numbers(
    rows: int, inner: int, columns: int, seed: int
) -> None:
    one, other = drawn(rows, inner, seed=seed).double().numpy(), drawn(inner, columns, seed=seed).double().numpy() * 9
    found = exact.product(one, other)
    bits = (53 - inner.bit_length()) // 2
    (left, up), (right, down) = exact._integers(one, bits), exact._integers(other, bits)
    for row in range(rows):
        for column in range(columns):
            terms = [int(a) * int(b) for a, b in zip(left[row], right[:, column], strict=True)]
            assert Fraction(found[row, column]) == sum(terms) * Fraction(2) ** (up + down)
    np.testing.assert_allclose(found, one @ other, atol=inner * 100 * 2.0**-bits)


@pytest.mark.parametrize("inner", [1, 7, 384, 5000])
def test_no_order_of_the_sums_changes_a_bit(inner: int) -> None:
    one, other = drawn(6, inner).double().numpy(), drawn(inner, 5).double().numpy()
    order = drawn(inner, name="order").argsort().numpy()
    found = exact.product(one, other)
    assert np.array_equal(found, exact.product(one[:, order], other[order]))


def test_the_largest_factors_stay_within_what_float64_holds_exactly() -> None:
    for inner in (1, 3, 4, 1023, 1024):
        factor = np.ones((1, inner)) * (2 - 2**-50)  # rounds up to a power of two
        assert exact.product(factor, factor.T)[0, 0] == 4 * inner


def test_nothing_and_zeros_are_legal() -> None:
    assert not exact.product(np.zeros((2, 3)), np.ones((3, 4))).any()
    assert exact.product(np.zeros((2, 0)), np.zeros((0, 4))).shape == (2, 4)


def test_quarter_octaves_are_powers_of_two_to_twenty_bits() -> None:
    codes = np.arange(-1000, 1001)
    np.testing.assert_allclose(exact.quarter_octaves(codes), 2.0 ** (codes / 4), rtol=2.0**-20)
    for code in (1001, -1001):
        with pytest.raises(InvalidInput, match="damaged"):
            exact.quarter_octaves(np.array([0, code]))


def test_no_cosine_of_usual_sizes_is_so_near_a_tie_that_a_platform_decides_it() -> None:
    for size in [*range(1, 65), 96, 128, 224, 256, 384, 512, 768, 1024]:
        angles = np.arange(4 * size)
        exactly = np.cos(np.pi / (2 * size) * angles) * 2.0**14
        assert np.abs(np.abs(exactly % 1) - 0.5).min() > 1e-10
        assert _cosines(size).shape == (size, size)
