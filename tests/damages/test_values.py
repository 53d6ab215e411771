"""Scattered weights that get new values."""

import math

import pytest
import torch
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st
from weights import DTYPES, FLOATS, SIGNED, UNSIGNED, far_from_even, full_weight, random_weight

from planaria.damages import CorruptDevice, Damage, Disturb, NonFinite, NormalRandom, SetValue, SetZero, UniformRandom
from planaria.errors import InvalidInput
from planaria.streams import generator

INTEGERS = [*SIGNED, *UNSIGNED]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_count_weights_become_zero(dtype: torch.dtype, share: float, seed: int) -> None:
    weight = full_weight(dtype, 6, 7)
    count = int(share * 42)
    damaged, faults = SetZero(count=count).apply(weight, generator(seed, "damage"))
    assert len(faults.index) == count
    assert same_bits(damaged[~faults.known], torch.zeros(count, dtype=dtype))


def test_every_weight_is_as_likely_as_the_others() -> None:
    counts = sum((~SetZero(count=3).apply(torch.ones(12), generator(seed, "d"))[1].known).long() for seed in range(300))
    assert int(counts.sum()) == 900 and not far_from_even(counts)


def test_what_holds_the_value_already_is_no_fault() -> None:
    weight = torch.tensor([0.0, -0.0, 1.0])
    assert SetZero(1.0).apply(weight, generator(0, "damage"))[1].index.tolist() == [1, 2]


@pytest.mark.parametrize("value", [7.5, -0.0, math.nan, math.inf, -math.inf])
def test_a_weight_holds_the_chosen_value(value: float) -> None:
    damaged, _ = SetValue(1.0, value=value).apply(drawn(9), generator(0, "damage"))
    assert same_bits(damaged, torch.full((9,), value))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_an_integer_holds_the_ends_of_its_range_and_nothing_beyond_or_between(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    for value in (limits.min, 1.0):
        assert (
            SetValue(1.0, value=float(value)).apply(full_weight(dtype, 3), generator(0, "d"))[0].tolist() == [value] * 3
        )
    for value in (limits.min - 1e19, limits.max + 1e19, 0.5, math.nan, math.inf):
        with pytest.raises(InvalidInput, match=f"{dtype} cannot hold"):
            SetValue(1.0, value=value).apply(full_weight(dtype, 3), generator(0, "damage"))


@pytest.mark.parametrize("value", [2.0, -1.0, math.nan])
def test_a_bool_holds_no_number(value: float) -> None:
    with pytest.raises(InvalidInput, match="bool cannot hold"):
        SetValue(1.0, value=value).apply(torch.ones(3, dtype=torch.bool), generator(0, "damage"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_float_holds_no_more_than_its_range(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    assert SetValue(1.0, value=largest).apply(full_weight(dtype, 1), generator(0, "d"))[0].double() == largest
    if dtype != torch.float64:
        with pytest.raises(InvalidInput, match=f"{dtype} cannot hold"):
            SetValue(1.0, value=2.5 * largest).apply(full_weight(dtype, 1), generator(0, "damage"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_float_holds_nan_and_those_with_infinities_hold_them(dtype: torch.dtype) -> None:
    weight = torch.ones(20).to(dtype)
    assert NonFinite(1.0).apply(weight, generator(0, "damage"))[0].double().isnan().all()
    for value in (math.inf, -math.inf):
        if dtype in (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
            with pytest.raises(InvalidInput, match=f"{dtype} cannot hold {value}"):
                NonFinite(1.0, value=value).apply(weight, generator(0, "damage"))
        else:
            assert (NonFinite(1.0, value=value).apply(weight, generator(0, "damage"))[0].double() == value).all()


def test_an_integer_holds_no_nan() -> None:
    with pytest.raises(InvalidInput, match=r"int8 cannot hold nan.*leave such tensors out"):
        NonFinite(0.5).apply(torch.ones(9, dtype=torch.int8), generator(0, "damage"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int16], ids=str)
def test_uniform_numbers_fill_their_range_evenly(dtype: torch.dtype) -> None:
    low, high = (-3.0, 5.0) if dtype.is_floating_point else (-3000.5, 4999.5)
    damaged, _ = UniformRandom(1.0, low=low, high=high).apply(full_weight(dtype, 40_000), generator(0, "damage"))
    shares = (damaged.double() - low) / (high - low)
    assert shares.min() >= -1e-4 and shares.max() <= 1 + 1e-4
    assert not far_from_even((16 * shares.clamp(0, 0.9999)).long().bincount(minlength=16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32], ids=str)
def test_normal_numbers_have_their_mean_and_deviation(dtype: torch.dtype) -> None:
    damaged, _ = NormalRandom(1.0, mean=-40.0, std=25.0).apply(full_weight(dtype, 40_000), generator(0, "damage"))
    values = damaged.double()
    assert abs(values.mean() + 40) < 5 * 25 / 200 and abs(values.std() - 25) < 5 * 25 / math.sqrt(80_000)
    within = ((values + 40).abs() < 25).double().mean()
    assert abs(within - 0.6827) < 0.02


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_what_lies_beyond_a_range_becomes_its_end(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    for low, wanted in ((1e307, info.max), (-1e307, info.min)):
        if dtype == torch.float64:
            continue
        damaged, _ = UniformRandom(1.0, low=low, high=low).apply(random_weight(dtype, 30), generator(0, "damage"))
        # The float64 nearest to the end of 64 bits lies beyond it; the one before is taken.
        slack = 2048 if dtype.itemsize == 8 else 0
        assert all(abs(value - wanted) <= slack for value in damaged.double().tolist())


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("unit", ["rms", "absolute"])
def test_a_disturbance_has_its_size_in_its_unit(distribution: str, unit: str) -> None:
    weight = 7 * drawn(50_000).double()
    damaged, faults = Disturb(0.5, size=0.3, distribution=distribution, unit=unit).apply(weight, generator(0, "damage"))
    noise = (damaged - weight).flatten()[faults.index]
    size = 0.3 * (float(weight.square().mean().sqrt()) if unit == "rms" else 1)
    deviation = size if distribution == "normal" else size / math.sqrt(3)
    assert abs(len(faults.index) - 25_000) < 5 * math.sqrt(12_500)
    assert abs(noise.mean()) < 5 * deviation / math.sqrt(25_000)
    assert abs(noise.std() / deviation - 1) < 5 / math.sqrt(50_000)
    if distribution == "uniform":
        assert noise.abs().max() <= size
        assert not far_from_even((8 * (noise / size + 1)).long().clamp(0, 15).bincount(minlength=16))


def test_a_disturbance_leaves_what_is_not_finite_and_does_not_measure_it() -> None:
    weight = torch.tensor([math.nan, math.inf, -math.inf, 2.0, -2.0], dtype=torch.float64)
    damaged, faults = Disturb(1.0, size=1.0, distribution="uniform").apply(weight, generator(0, "damage"))
    assert faults.index.tolist() == [3, 4] and (damaged - weight)[3:].abs().max() <= 2
    lone = Disturb(1.0, size=1.0).apply(weight[:1], generator(0, "damage"))
    assert len(lone[1].index) == 0


def test_the_unit_of_huge_and_tiny_weights_neither_overflows_nor_vanishes() -> None:
    for scale in (1e300, 1e-300):
        weight = torch.full((1000,), scale, dtype=torch.float64)
        damaged, _ = Disturb(1.0, size=0.1).apply(weight, generator(0, "damage"))
        assert abs(float(((damaged - weight) / scale).std()) - 0.1) < 0.02


def test_a_corrupt_device_holds_a_small_value_of_its_own() -> None:
    weight = 3 * drawn(60_000)
    _, faults = CorruptDevice().apply(weight, generator(0, "damage"))
    assert abs(len(faults.index) - 0.1348 * 60_000) < 5 * math.sqrt(60_000 * 0.1348 * 0.8652)
    shares = faults.new / (0.01 * weight.abs().max())
    assert shares.abs().max() <= 1
    assert not far_from_even((8 * (shares + 1)).long().clamp(0, 15).bincount(minlength=16))
    assert len(CorruptDevice(count=7).apply(weight, generator(0, "damage"))[1].index) == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetValue(value=1.0), "either a rate or a count"),
        (lambda: SetZero(-0.1), r"\[0, 1\], not -0\.1"),
        (lambda: SetZero(math.nan), r"\[0, 1\], not nan"),
        (lambda: SetZero(count=-1), "0 or more, not -1"),
        (lambda: NonFinite(0.1, value=1.0), r"1\.0 is"),
        (lambda: UniformRandom(0.1, low=1.0, high=0.0), "not 1.0 to 0.0"),
        (lambda: UniformRandom(0.1, low=-math.inf), "not -inf to 1.0"),
        (lambda: UniformRandom(0.1, high=math.nan), "not -1.0 to nan"),
        (lambda: NormalRandom(0.1, std=-1.0), "not 0.0 and -1.0"),
        (lambda: NormalRandom(0.1, mean=math.nan), "not nan and 1.0"),
        (lambda: Disturb(0.1, size=-1.0), "not -1.0"),
        (lambda: Disturb(0.1, size=math.inf), "not inf"),
        (lambda: Disturb(0.1, size=1.0, distribution="cauchy"), "'cauchy'.*normal, uniform"),
        (lambda: Disturb(0.1, size=1.0, unit="volts"), "'volts'.*rms, absolute"),
        (lambda: CorruptDevice(0.1, spread=1.5), r"\[0, 1\], not 1\.5"),
        (lambda: CorruptDevice(0.1, count=3), "either a rate or a count"),
    ],
)
def test_impossible_values_are_refused(make: object, message: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


@pytest.mark.parametrize("damage", [SetZero(count=7), UniformRandom(count=7), CorruptDevice(count=7)], ids=repr)
def test_more_weights_than_there_are_cannot_break(damage: Damage) -> None:
    with pytest.raises(InvalidInput, match="7 places cannot break where there are 6"):
        damage.apply(torch.ones(2, 3), generator(0, "damage"))
