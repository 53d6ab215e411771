"""Bits that are stuck."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from weights import DTYPES, bits_of, random_weight, shapes

from planaria.damages import BitFlip, StuckAt
from planaria.errors import InvalidInput
from planaria.streams import generator


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=shapes, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_count_bits_are_stuck_and_only_those_that_differed_show(
    value: int, dtype: torch.dtype, shape: tuple[int, ...], share: float, seed: int
) -> None:
    weight = random_weight(dtype, *shape, seed=seed)
    count = int(share * bits_of(weight).numel())
    stuck = bits_of(BitFlip(count=count).apply(weight, generator(seed, "damage"))[0]) ^ bits_of(weight)
    damaged, faults = StuckAt(value=value, count=count).apply(weight, generator(seed, "damage"))
    assert torch.equal(bits_of(damaged), torch.where(stuck, bool(value), bits_of(weight)))
    assert torch.equal(faults.index, (bits_of(damaged) != bits_of(weight)).any(1).nonzero().flatten())


@pytest.mark.parametrize("value", [0, 1])
def test_at_rate_one_every_named_bit_holds_the_value(value: int) -> None:
    damaged, _ = StuckAt(1.0, value=value, bits="exponent").apply(
        random_weight(torch.float16, 50), generator(0, "damage")
    )
    assert (bits_of(damaged)[:, 10:15] == bool(value)).all()


def test_what_holds_the_value_already_is_no_fault() -> None:
    assert len(StuckAt(1.0, value=0).apply(torch.zeros(9), generator(0, "damage"))[1].index) == 0


def test_a_rate_counts_every_stuck_bit() -> None:
    damaged, _ = StuckAt(0.3, value=1).apply(torch.full((50_000,), 15, dtype=torch.uint8), generator(0, "damage"))
    assert abs(int((bits_of(damaged).sum(1) - 4).sum()) - 60_000) < 5 * math.sqrt(200_000 * 0.3 * 0.7)


@pytest.mark.parametrize("value", [2, -1])
def test_another_value_is_refused(value: int, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=f"0 or 1, not {value}"):
        StuckAt(0.1, value=value)
