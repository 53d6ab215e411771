"""Whole weights of random bits."""

import math

import pytest
import torch
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st
from weights import DTYPES, bits_of, far_from_even, random_weight, shapes

from planaria.damages import WholeWeight
from planaria.errors import InvalidInput
from planaria.streams import generator


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=shapes, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_count_weights_change(dtype: torch.dtype, shape: tuple[int, ...], share: float, seed: int) -> None:
    weight = random_weight(dtype, *shape)
    count = int(share * weight.numel())
    damaged, faults = WholeWeight(count=count).apply(weight, generator(seed, "damage"))
    changed = (bits_of(damaged) != bits_of(weight)).any(1)
    assert int(changed.sum()) == count
    assert torch.equal(faults.index, changed.nonzero().flatten())


def test_a_weight_turns_into_any_other_with_equal_chances() -> None:
    damaged, _ = WholeWeight(1.0).apply(torch.full((50_000,), 77, dtype=torch.uint8), generator(0, "damage"))
    counts = damaged.long().bincount(minlength=256)
    assert counts[77] == 0
    assert not far_from_even(counts[torch.arange(256) != 77])


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.bool], ids=str)
def test_every_bit_of_a_broken_weight_is_random(dtype: torch.dtype) -> None:
    weight = random_weight(dtype, 2000)
    damaged, _ = WholeWeight(1.0).apply(weight, generator(1, "damage"))
    flipped = (bits_of(damaged) ^ bits_of(weight)).double().mean(0)
    # A weight of 8 bits that must change flips each bit in 128 of 255 cases.
    assert (flipped - 0.5).abs().max() < 128 / 255 - 0.5 + 5 * math.sqrt(0.25 / 2000)


def test_a_bool_flips() -> None:
    weight = random_weight(torch.bool, 50)
    assert torch.equal(WholeWeight(1.0).apply(weight, generator(0, "damage"))[0], ~weight)


def test_every_weight_is_as_likely_as_the_others() -> None:
    counts = torch.zeros(12)
    for seed in range(300):
        counts += ~WholeWeight(count=3).apply(torch.zeros(12), generator(seed, "damage"))[1].known
    assert int(counts.sum()) == 900
    assert not far_from_even(counts)


def test_the_number_of_weights_at_a_rate_is_binomial() -> None:
    counts = torch.tensor(
        [len(WholeWeight(0.2).apply(torch.zeros(100), generator(seed, "damage"))[1].index) for seed in range(300)]
    ).double()
    assert abs(counts.mean() - 20) < 5 * math.sqrt(16 / 300)
    assert abs(counts.var() - 16) < 5 * 16 * math.sqrt(2 / 300)


def test_the_stream_alone_decides_what_breaks() -> None:
    weight = random_weight(torch.float32, 30, 20)
    one, again, other = (WholeWeight(0.1).apply(weight, generator(seed, "damage"))[0] for seed in (1, 1, 2))
    assert same_bits(one, again) and not same_bits(one, other)


def test_more_weights_than_there_are_cannot_break() -> None:
    with pytest.raises(InvalidInput, match="7 places cannot break where there are 6"):
        WholeWeight(count=7).apply(torch.zeros(2, 3), generator(0, "damage"))
