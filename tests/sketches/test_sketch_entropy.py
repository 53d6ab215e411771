"""Groups of integers come back, in about as many bits as their entropy, from tables that no platform changes."""

from typing import Any

import numpy as np
import pytest
from helpers import drawn, examples
from hypothesis import given
from hypothesis import strategies as st

from planaria.errors import InvalidInput
from planaria.sketches import entropy
from planaria.sketches.entropy import LIMIT, GroupReader, coded_size, encode_groups

Ints = np.ndarray[Any, Any]

integers = st.integers(-3, 3) | st.integers(-100, 100) | st.integers(-LIMIT, LIMIT)
groups_of_integers = st.lists(st.lists(integers, max_size=20).map(lambda group: np.array(group, np.int64)), max_size=6)


def read(content: Ints, sizes: list[int]) -> list[Ints]:
    reader = GroupReader(content)
    groups = [reader.take(size) for size in sizes]
    reader.finish()
    return groups


def laplacian(size: int, scale: float, seed: int = 0) -> Ints:
    numbers = drawn(4, size, seed=seed).double().numpy()  # x y + z w of normal numbers is Laplacian
    return np.rint(scale * (numbers[0] * numbers[1] + numbers[2] * numbers[3])).astype(np.int32)


@examples(200)
@given(groups=groups_of_integers)
def test_any_integers_come_back(groups: list[Ints]) -> None:
    content = encode_groups(groups)
    found = read(content, [len(group) for group in groups])
    assert all(np.array_equal(one, other) for one, other in zip(found, groups, strict=True))
    assert abs(coded_size(groups) - len(content)) <= 0.03 * len(content) + 16


@pytest.mark.parametrize("kind", ["laplacian", "gaussian"])
@pytest.mark.parametrize("scale", [0.15, 0.3, 0.7, 2.0, 6.0, 30.0, 3000.0])
def test_the_length_is_near_the_entropy(kind: str, scale: float) -> None:
    group = laplacian(100_000, scale)
    if kind == "gaussian":
        group = np.rint(scale * drawn(100_000).double().numpy()).astype(np.int32)
    share = np.unique(group, return_counts=True)[1] / len(group)
    ideal = -(share * np.log2(share)).sum() * len(group) / 8
    assert len(encode_groups([group])) < 1.03 * ideal + 150  # the ideal knows the shares of thousands of integers


def test_a_group_of_zeros_costs_next_to_nothing() -> None:
    assert len(encode_groups([np.zeros(1_000_000, np.int32)])) <= 8
    assert len(encode_groups([np.zeros(1_000_000, np.int32)] * 50)) <= 24


def test_groups_alike_cost_little_more_than_their_numbers() -> None:
    one = laplacian(2000, 1.0)
    apart = len(encode_groups(list(one.reshape(20, 100))))
    assert apart < len(encode_groups([one])) * 1.03 + 20


def test_an_outlier_costs_a_few_bytes() -> None:
    group = laplacian(5000, 0.3)
    usual = len(encode_groups([group]))
    group[77] = 10_000
    assert len(encode_groups([group])) < usual + 12


def test_an_integer_beyond_the_limit_is_refused() -> None:
    for integer in (LIMIT + 1, -LIMIT - 1, np.iinfo(np.int32).min):
        with pytest.raises(InvalidInput, match="larger step"):
            encode_groups([np.array([0, integer])])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 41])
def test_what_is_no_row_of_words_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match="no 32-bit words"):
        GroupReader(np.zeros(length, np.uint8))


@examples(200)
@given(words=st.binary(max_size=40).map(lambda words: words[: len(words) // 4 * 4]), sizes=st.lists(st.integers(0, 50)))
def test_rubbish_is_refused_or_is_a_code(words: bytes, sizes: list[int]) -> None:
    content = np.frombuffer(words, np.uint8)
    try:
        groups = read(content, sizes)
    except InvalidInput:
        return
    assert [len(group) for group in groups] == sizes


def test_tables_are_frequencies_that_no_rounding_of_exp_or_erfc_changes() -> None:
    for table in range(entropy._TABLES):
        exact, counts = entropy.frequencies(table), entropy._rounded(table)
        assert counts.min() >= 1 and counts[0] + 2 * counts[1:].sum() == 1 << 16
        assert np.abs(exact[1:] % 1 - 0.5).min() > 1e-6, "an error of 1e-11 in a tail could change the format"
        assert exact[0] + 2 * exact[1:].sum() == pytest.approx(1 << 16)


def test_the_format_stays() -> None:
    groups = [
        np.array([0, 1, -1, 3, 0, 0]),
        np.zeros(9, np.int64),
        np.array([500, -70_000]),
        np.array([0, 90, 0, 0, 0]),
    ]
    assert encode_groups(groups).tobytes().hex() == "394effffd4ead1cd39276397b81e8f3e0ece1021487d89ed"
