"""Flipped bits: which, how many, and each as likely as the others."""

import math

import pytest
import torch
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st
from weights import DTYPES, FLOATS, SIGNED, bits_of, far_from_even, random_weight, shapes, width

from planaria.damages import BitFlip
from planaria.damages.sampling import drawn_without_replacement
from planaria.dtypes import integers
from planaria.errors import InvalidInput
from planaria.streams import generator


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=shapes, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_count_bits_flip(dtype: torch.dtype, shape: tuple[int, ...], share: float, seed: int) -> None:
    weight = random_weight(dtype, *shape)
    count = int(share * bits_of(weight).numel())
    damaged, faults = BitFlip(count=count).apply(weight, generator(seed, "damage"))
    flipped = bits_of(damaged) ^ bits_of(weight)
    assert int(flipped.sum()) == count
    assert torch.equal(faults.index, flipped.any(1).nonzero().flatten())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rate_one_flips_every_bit_and_rate_zero_none(dtype: torch.dtype) -> None:
    weight = random_weight(dtype, 5, 3)
    assert same_bits(BitFlip(0.0).apply(weight, generator(0, "damage"))[0], weight)
    assert torch.equal(bits_of(BitFlip(1.0).apply(weight, generator(0, "damage"))[0]), ~bits_of(weight))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_fields_of_a_float_are_its_sign_exponent_and_mantissa(dtype: torch.dtype) -> None:
    after_one = (integers(torch.ones((), dtype=dtype)) + 1).view(dtype).double()
    mantissa = -round(math.log2(after_one - 1))
    top = width(dtype) - 1
    weight = random_weight(dtype, 40)
    for field, allowed in {
        "sign": [top],
        "msb": [top],
        "exponent": list(range(mantissa, top)),
        "mantissa": list(range(mantissa)),
    }.items():
        damaged, _ = BitFlip(1.0, bits=field).apply(weight, generator(0, "damage"))
        flipped = bits_of(damaged) ^ bits_of(weight)
        assert flipped[:, allowed].all() and int(flipped.sum()) == 40 * len(allowed), field


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_flipped_sign_negates_a_float(dtype: torch.dtype) -> None:
    weight = torch.tensor([1.5, -0.25, 2.0]).to(dtype)
    assert same_bits(BitFlip(1.0, bits="sign").apply(weight, generator(0, "damage"))[0], (-weight.double()).to(dtype))


@pytest.mark.parametrize("dtype", SIGNED, ids=str)
def test_the_top_bit_of_a_signed_integer_is_its_sign(dtype: torch.dtype) -> None:
    damaged, _ = BitFlip(1.0, bits="msb").apply(torch.tensor([0, 5, -1], dtype=dtype), generator(0, "damage"))
    limits = torch.iinfo(dtype)
    assert damaged.tolist() == [limits.min, limits.min + 5, limits.max]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_only_named_positions_flip(dtype: torch.dtype, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, width(dtype) - 1), min_size=1, unique=True))
    weight = random_weight(dtype, 6)
    flipped = bits_of(BitFlip(1.0, bits=positions).apply(weight, generator(0, "damage"))[0]) ^ bits_of(weight)
    assert flipped[:, positions].all() and int(flipped.sum()) == 6 * len(positions)


def test_a_bool_stays_a_bool() -> None:
    damaged, _ = BitFlip(0.5).apply(torch.ones(100, dtype=torch.bool), generator(0, "damage"))
    assert set(damaged.view(torch.uint8).tolist()) == {0, 1}


def test_every_bit_is_as_likely_as_the_others() -> None:
    weight = torch.zeros(3, dtype=torch.int16)
    counts = sum(bits_of(BitFlip(count=7).apply(weight, generator(seed, "damage"))[0]).long() for seed in range(300))
    assert int(counts.sum()) == 300 * 7
    assert not far_from_even(counts)


def test_the_number_of_flips_at_a_rate_is_binomial() -> None:
    weight = torch.zeros(100, dtype=torch.uint8)
    counts = torch.tensor(
        [int(bits_of(BitFlip(0.1).apply(weight, generator(seed, "damage"))[0]).sum()) for seed in range(300)]
    ).double()
    mean, variance = 80, 72
    assert abs(counts.mean() - mean) < 5 * math.sqrt(variance / 300)
    assert abs(counts.var() - variance) < 5 * variance * math.sqrt(2 / 300)


@given(total=st.integers(0, 500), data=st.data(), seed=st.integers(0, 99))
def test_what_is_drawn_is_ascending_unique_and_as_many_as_asked(total: int, data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(0, total))
    drawn = drawn_without_replacement(count, total, generator(seed, "draw"))
    assert len(drawn) == count and (drawn.diff() > 0).all()
    assert count == 0 or 0 <= drawn[0] <= drawn[-1] < total


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_set_of_a_size_is_as_likely_as_the_others(count: int) -> None:
    source = generator(0, "draw")
    sets = torch.zeros(2**6)
    for _ in range(1500):
        sets[int((2 ** drawn_without_replacement(count, 6, source)).sum())] += 1
    assert int((sets > 0).sum()) == math.comb(6, count)
    assert not far_from_even(sets[sets > 0])


def test_few_of_many_prefer_no_place_and_no_distance() -> None:
    source = generator(0, "draw")
    pairs = torch.stack([drawn_without_replacement(2, 64, source) for _ in range(2000)])
    assert not far_from_even(pairs.flatten().bincount(minlength=64))
    assert not far_from_even(torch.cat([pairs.diff(), 64 - pairs.diff()]).flatten().bincount(minlength=64)[1:])


def test_low_places_of_a_large_model_are_not_preferred() -> None:
    drawn = drawn_without_replacement(100_000, 3 * 2**30, generator(0, "draw"))
    assert not far_from_even((drawn // 2**30).bincount(minlength=3))


def test_the_stream_alone_decides_what_flips() -> None:
    weight = random_weight(torch.float32, 30, 20)
    one, again, other = (BitFlip(0.01).apply(weight, generator(seed, "damage"))[0] for seed in (1, 1, 2))
    assert same_bits(one, again) and not same_bits(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a rate or a count"),
        ({"rate": 0.1, "count": 3}, "either a rate or a count"),
        ({"rate": -0.1}, r"\[0, 1\], not -0\.1"),
        ({"rate": 1.1}, r"\[0, 1\], not 1\.1"),
        ({"rate": float("nan")}, r"\[0, 1\], not nan"),
        ({"count": -1}, "0 or more, not -1"),
        ({"rate": 0.1, "bits": "lsb"}, "'lsb'.*all, sign, exponent, mantissa, msb"),
        ({"rate": 0.1, "bits": ()}, r"not \[\]"),
        ({"rate": 0.1, "bits": [3, 3]}, r"not \[3, 3\]"),
        ({"rate": 0.1, "bits": [-1]}, r"not \[-1\]"),
    ],
)
def test_what_no_tensor_could_suffer_is_refused(arguments: dict, message: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=message):
        BitFlip(**arguments)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype not in FLOATS], ids=str)
@pytest.mark.parametrize("field", ["sign", "exponent", "mantissa"])
def test_what_is_no_float_has_no_fields(dtype: torch.dtype, field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{dtype} is no float and has no {field} bits"):
        BitFlip(0.1, bits=field).apply(random_weight(dtype, 3), generator(0, "damage"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_position_or_count_beyond_the_tensor_is_refused(dtype: torch.dtype) -> None:
    bits = width(dtype)
    with pytest.raises(InvalidInput, match=f"bits 0 to {bits - 1} and no bit {bits}"):
        BitFlip(0.1, bits=[0, bits]).apply(random_weight(dtype, 3), generator(0, "damage"))
    with pytest.raises(InvalidInput, match=f"{3 * bits + 1} places cannot break where there are {3 * bits}"):
        BitFlip(count=3 * bits + 1).apply(random_weight(dtype, 3), generator(0, "damage"))


@pytest.mark.parametrize("direction", ["0to1", "1to0"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(shape=shapes, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_direction_flips_exactly_count_bits_that_hold_its_start(
    direction: str, dtype: torch.dtype, shape: tuple[int, ...], share: float, seed: int
) -> None:
    weight = random_weight(dtype, *shape, seed=seed)
    before = bits_of(weight)
    may = before if direction == "1to0" else ~before
    count = int(share * may.sum())
    damaged, faults = BitFlip(count=count, direction=direction).apply(weight, generator(seed, "damage"))
    flipped = bits_of(damaged) ^ before
    assert int(flipped.sum()) == count and not (flipped & ~may).any()
    assert torch.equal(faults.index, flipped.any(1).nonzero().flatten())
    with pytest.raises(
        InvalidInput, match=f"{int(may.sum()) + 1} places cannot break where there are {int(may.sum())}"
    ):
        BitFlip(count=int(may.sum()) + 1, direction=direction).apply(weight, generator(seed, "damage"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_direction_at_rate_one_sets_or_clears_all_its_bits(dtype: torch.dtype) -> None:
    weight = random_weight(dtype, 5, 3)
    top = [width(dtype) - 1]
    for bits in ("all", "msb"):
        allowed = top if bits == "msb" else list(range(width(dtype)))
        rising = BitFlip(1.0, direction="0to1", bits=bits).apply(weight, generator(0, "damage"))[0]
        falling = BitFlip(1.0, direction="1to0", bits=bits).apply(weight, generator(0, "damage"))[0]
        assert bits_of(rising)[:, allowed].all() and not bits_of(falling)[:, allowed].any()
        spared = [bit for bit in range(width(dtype)) if bit not in allowed]
        assert torch.equal(bits_of(rising)[:, spared], bits_of(weight)[:, spared])


def test_a_rate_is_of_the_bits_that_may_flip() -> None:
    weight = torch.full((100_000,), 0b00000111, dtype=torch.uint8)
    flips = bits_of(BitFlip(0.25, direction="1to0").apply(weight, generator(0, "damage"))[0] ^ weight)
    assert abs(int(flips.sum()) - 75_000) < 5 * math.sqrt(300_000 * 0.25 * 0.75)
    assert not far_from_even(flips.sum(0)[:3])


def test_every_eligible_bit_is_as_likely_as_the_others() -> None:
    weight = torch.tensor([0b0110, 0, 0b1011], dtype=torch.int16)
    counts = sum(
        bits_of(BitFlip(count=2, direction="1to0").apply(weight, generator(seed, "damage"))[0] ^ weight).long()
        for seed in range(400)
    )
    assert not far_from_even(counts[bits_of(weight)])


def test_a_direction_is_drawn_over_all_tensors_together() -> None:
    model = {"ones": torch.full((10,), -1, dtype=torch.int8), "zeros": torch.zeros(10), "few": torch.tensor([1, 2, 3])}
    faults = BitFlip(count=84, direction="1to0").apply_to_model(model, generator(0, "damage"))
    assert not any(bool(weight.any()) for weight in faults.replay(model).values())
    with pytest.raises(InvalidInput, match="85 places cannot break where there are 84"):
        BitFlip(count=85, direction="1to0").apply_to_model(model, generator(0, "damage"))


def test_an_unknown_direction_is_answered_with_those_that_exist(unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"'up'.*both, 0to1, 1to0"):
        BitFlip(0.1, direction="up")
