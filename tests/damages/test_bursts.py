"""Flipped bits side by side: bursts over all memory, and pairs within a weight."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from weights import DTYPES, bits_of, far_from_even, random_weight, shapes, width

from planaria.damages import AdjacentDouble, BurstFlip
from planaria.errors import InvalidInput
from planaria.streams import generator


def stretches(flipped: Tensor) -> list[tuple[int, int]]:
    """Start and length of each stretch of True."""
    edges = torch.cat([torch.zeros(1), flipped.flatten().float(), torch.zeros(1)]).diff()
    starts, ends = (edges > 0).nonzero().flatten(), (edges < 0).nonzero().flatten()
    return list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=shapes, length=st.integers(1, 70), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_count_bursts_of_consecutive_bits_flip(
    dtype: torch.dtype, shape: tuple[int, ...], length: int, share: float, seed: int
) -> None:
    weight = random_weight(dtype, *shape)
    room = bits_of(weight).numel() // length
    count = int(share * room)
    damaged, faults = BurstFlip(length=length, count=count).apply(weight, generator(seed, "damage"))
    flipped = bits_of(damaged) ^ bits_of(weight)
    assert int(flipped.sum()) == count * length
    assert all(size % length == 0 for _, size in stretches(flipped))  # bursts may touch, but share no bit
    assert torch.equal(faults.index, flipped.any(1).nonzero().flatten())
    with pytest.raises(InvalidInput, match=f"{room + 1} places cannot break where there are {room}|cannot break"):
        BurstFlip(length=length, count=room + 1).apply(weight, generator(seed, "damage"))


def test_a_burst_crosses_from_one_tensor_into_the_next_and_lies_anywhere() -> None:
    model = {"a": torch.zeros(2, dtype=torch.uint8), "none": torch.zeros(0), "b": torch.zeros(1, dtype=torch.int16)}
    starts = []
    for seed in range(600):
        damaged = BurstFlip(length=9, count=1).apply_to_model(model, generator(seed, "damage")).replay(model)
        ((start, length),) = stretches(torch.cat([bits_of(weight).flatten() for weight in damaged.values()]))
        assert length == 9
        starts.append(start)
    assert set(starts) == set(range(24)) and not far_from_even(torch.tensor(starts).bincount())


def test_all_placements_of_bursts_are_equally_likely() -> None:
    seen = torch.zeros(6, 6)
    for seed in range(1500):
        damaged, _ = BurstFlip(length=3, count=2).apply(torch.zeros(1, dtype=torch.uint8), generator(seed, "damage"))
        places = stretches(bits_of(damaged))
        first = places[0][0]
        seen[first, places[1][0] if len(places) > 1 else first + 3] += 1
    # 8 bits less 4 leave 4 places for 2 bursts.
    assert int((seen > 0).sum()) == math.comb(4, 2) and not far_from_even(seen[seen > 0])


def test_a_rate_is_the_share_of_bits_that_flip() -> None:
    damaged, _ = BurstFlip(0.02, length=8).apply(torch.zeros(100_000), generator(0, "damage"))
    bursts = int(bits_of(damaged).sum()) / 8
    assert abs(bursts - 8_000) < 5 * math.sqrt(400_000 * 0.02 * 0.98)
    assert bits_of(BurstFlip(1.0, length=8).apply(torch.zeros(10), generator(0, "damage"))[0]).all()


@pytest.mark.parametrize("length", [0, -3])
def test_a_burst_without_a_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"1 or more bits, not {length}"):
        BurstFlip(0.1, length=length)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.bool], ids=str)
@given(shape=shapes, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_two_neighbouring_bits_of_exactly_count_weights_flip(
    dtype: torch.dtype, shape: tuple[int, ...], share: float, seed: int
) -> None:
    weight = random_weight(dtype, *shape)
    count = int(share * weight.numel())
    damaged, faults = AdjacentDouble(count=count).apply(weight, generator(seed, "damage"))
    flipped = bits_of(damaged) ^ bits_of(weight)
    assert len(faults.index) == int(flipped.any(1).sum()) == count
    assert all([size for _, size in stretches(row)] == [2] for row in flipped[faults.index])


def test_every_pair_and_every_weight_is_as_likely_as_the_others() -> None:
    damaged, faults = AdjacentDouble(0.5).apply(torch.zeros(40_000, dtype=torch.int16), generator(0, "damage"))
    lower = bits_of(damaged)[faults.index].int().argmax(1)
    assert set(lower.tolist()) == set(range(width(torch.int16) - 1)) and not far_from_even(lower.bincount())
    assert abs(len(faults.index) - 20_000) < 5 * math.sqrt(10_000)
    assert not far_from_even((faults.index // 4000).bincount(minlength=10))
