"""Runs of lost bytes."""

import pytest
import torch
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st
from weights import DTYPES, bytes_of, far_from_even, full_weight, random_weight, shapes

from planaria.damages import Run
from planaria.errors import InvalidInput
from planaria.streams import generator


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=shapes, length=st.integers(1, 60), seed=st.integers(0, 99))
def test_a_zero_run_is_one_stretch_of_its_length(
    dtype: torch.dtype, shape: tuple[int, ...], length: int, seed: int
) -> None:
    weight = full_weight(dtype, *shape)
    damaged, faults = Run(length, fill="zero").apply(weight, generator(seed, "damage"))
    lost = (bytes_of(damaged) == 0).nonzero().flatten()
    assert len(lost) == min(length, weight.nbytes)
    assert (lost.diff() == 1).all()
    assert torch.equal(faults.index, (lost // dtype.itemsize).unique())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(length=st.integers(1, 60), seed=st.integers(0, 99))
def test_a_random_run_changes_nothing_outside_and_lists_only_what_changed(
    dtype: torch.dtype, length: int, seed: int
) -> None:
    weight = random_weight(dtype, 9, 2)
    damaged, faults = Run(length).apply(weight, generator(seed, "damage"))
    changed = (bytes_of(damaged) != bytes_of(weight)).nonzero().flatten()
    assert len(changed) == 0 or changed[-1] - changed[0] < length
    assert torch.equal(faults.index, (changed // dtype.itemsize).unique())
    assert dtype != torch.bool or bytes_of(damaged).max() <= 1


def test_a_random_fill_is_random() -> None:
    damaged, faults = Run(50_000).apply(torch.zeros(50_000, dtype=torch.uint8), generator(0, "damage"))
    counts = damaged.long().bincount(minlength=256)
    assert not far_from_even(counts)
    assert len(faults.index) == 50_000 - counts[0]


def test_a_run_starts_at_every_byte_with_equal_chances() -> None:
    weight = full_weight(torch.int32, 3)
    starts = [
        int((bytes_of(Run(5, fill="zero").apply(weight, generator(seed, "damage"))[0]) == 0).int().argmax())
        for seed in range(500)
    ]
    assert set(starts) == set(range(8))
    assert not far_from_even(torch.tensor(starts).bincount())


def test_zeroed_zeros_are_no_faults() -> None:
    assert len(Run(100, fill="zero").apply(torch.zeros(30), generator(0, "damage"))[1].index) == 0


def test_the_stream_alone_decides_where_a_run_lies_and_what_fills_it() -> None:
    weight = random_weight(torch.float32, 30, 20)
    one, again, other = (Run(40).apply(weight, generator(seed, "damage"))[0] for seed in (1, 1, 2))
    assert same_bits(one, again) and not same_bits(one, other)


@pytest.mark.parametrize("length", [0, -3])
def test_a_run_without_a_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"1 or more bytes, not {length}"):
        Run(length)


def test_an_unknown_fill_is_answered_with_those_that_exist(unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"'ones'.*random, zero"):
        Run(3, fill="ones")  # type: ignore[arg-type]
