"""How likely a wrong codeword is: against counting, and against what a decoder does beyond its strength."""

from math import comb, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from planaria.codes import ReedSolomon, wrong_codeword_log2

Q = 2**16


def chance(check: int, erasures: int, errors: int, places: int, equal: bool) -> float:
    """Of one word."""
    one = [np.array([number]) for number in (erasures, errors, places)]
    found = wrong_codeword_log2(check, erasures=one[0], errors=one[1], places=one[2], equal=np.array([equal]))
    return float(found[0])


@given(check=st.integers(1, 60), data=st.data(), equal=st.booleans())
def test_it_is_the_share_of_syndromes_that_lead_to_a_word(check: int, data: st.DataObject, equal: bool) -> None:
    erasures = data.draw(st.integers(0, check))
    errors = data.draw(st.integers(0, (check - erasures) // 2))
    places = data.draw(st.integers(check + 1, 60_000))
    words = sum(comb(places, j) * (Q - 1) ** j for j in range(errors + 1))
    exact = log2(words) - 16 * (check - erasures)
    if equal or erasures or not errors:
        same = log2(comb(places, errors)) + erasures - 16 * -(-check // 2)
        exact = max(exact, same) + log2(1 + 2 ** -abs(exact - same))
    found = chance(check, erasures, errors, places, equal)
    assert min(exact, 0) - 1e-6 <= found <= min(exact + 1e-3, 0)


@given(check=st.integers(1, 60), data=st.data())
def test_no_two_words_fit_where_places_are_no_more_than_check_symbols(check: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, check // 2))
    assert chance(check, 0, errors, data.draw(st.integers(errors, check)), True) == -np.inf


def test_more_check_symbols_and_fewer_errors_or_places_are_never_worse() -> None:
    check, errors, places = np.meshgrid(np.arange(1, 20), np.arange(3), np.array([50, 500, 5000]))
    for equal in (True, False):
        found = np.array(
            [chance(c, 0, e, p, equal) for c, e, p in zip(check.flat, errors.flat, places.flat, strict=True)]
        ).reshape(check.shape)
        assert (np.diff(found, axis=1) <= 0).all()  # check symbols
        assert (np.diff(found, axis=2) >= 0).all()
        assert (np.diff(found, axis=0)[0 if equal else 1 :] >= 0).all()  # of no error, equal damage is always thought


@pytest.mark.parametrize("kind", ["random", "signs", "bits"])
@pytest.mark.parametrize(("check", "weight"), [(2, 3), (2, 5), (4, 5), (4, 9), (3, 5)])
def test_decoders_err_as_often_as_calculated(kind: str, check: int, weight: int) -> None:
    length, width, generator = 1000, 30_000, np.random.default_rng(check * weight)
    rows: NDArray[np.int64] = generator.permuted(np.tile(np.arange(length), (300, 1)), axis=1)[:, :weight]
    data = np.zeros((length, width), np.uint16)
    for column in range(width):
        shifted = (rows[column % 300] + column * 7) % length
        if kind == "random":
            data[shifted, column] = generator.integers(1, Q, weight)
        else:
            data[shifted, column] = 0x8000 if kind == "signs" else 1 << generator.integers(0, 16, weight)
    code = ReedSolomon(check)
    found = code.decode(code.feed(data), length)
    wrong = width - len(found.failed)
    expected = width * 2 ** chance(check, 0, check // 2, length + check, False)
    if kind == "signs":  # the other term is that of the same damage, and no other
        expected = max(expected, width * comb(length, check // 2) / Q ** -(-check // 2))
    assert wrong <= expected + 6 * expected**0.5 + 2
    if check % 2 == 0 and expected > 100:
        assert wrong >= expected / 2
