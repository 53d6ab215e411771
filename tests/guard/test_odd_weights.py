"""Which weights a repair takes for impossible, for known extremes, or for out of all proportion."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planaria.guard.locate import known_extremes, stuck
from planaria.guard.statistics import Statistics
from planaria.guard.unmeasured import absurd_weights, mildly_damaged
from planaria.streams import generator


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed, "odd weights"))


# --- Tensors without statistics --------------------------------------------------------------------------------------


@given(st.integers(0, 99), st.sampled_from([(200,), (20, 30), (4, 3, 5, 5)]), st.floats(1e-6, 1e3))
def test_weights_of_any_scale_are_in_proportion(seed: int, shape: tuple[int, ...], scale: float) -> None:
    assert not absurd_weights(scale * normal(*shape, seed=seed))[0].any()


@given(st.integers(0, 99), st.sampled_from([float("nan"), 1e30, -1e25, float("inf")]))
def test_one_that_ends_a_network_is_absurd_wherever_it_is(seed: int, value: float) -> None:
    for weight in (0.1 * normal(300, seed=seed), 0.1 * normal(30, 40, seed=seed)):
        weight.view(-1)[seed] = value
        absurd, median, _ = absurd_weights(weight)
        assert absurd.sum() == 1 and absurd.view(-1)[seed] and abs(median) < 0.1


@pytest.mark.parametrize("shape", [(120,), (40, 30)])
def test_where_no_size_is_typical_no_number_is_absurd(shape: tuple[int, ...]) -> None:
    source = generator(1, "scattered sizes")
    weight = torch.exp2(120 * torch.rand(shape, generator=source) - 90)  # as of random bits, or of stuck ones
    assert not absurd_weights(weight)[0].any()


def test_where_nearly_all_is_destroyed_the_weight_that_is_left_stays() -> None:
    weight = torch.exp2(-80 - 40 * torch.rand(100, generator=generator(2, "destroyed")))
    weight[7] = 0.03
    assert not absurd_weights(weight)[0].any()


def test_what_is_no_number_stays_where_sizes_are_those_of_a_mask_or_of_noise() -> None:
    mask = torch.full((20, 20), torch.finfo(torch.float32).min)
    noise = torch.exp2(200 * torch.rand((20, 20), generator=generator(3, "noise")) - 100)
    for weight in (mask, noise):
        weight[3, 4] = torch.nan
        assert not absurd_weights(weight)[0].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("left", [4, 8, 20])
def test_what_is_left_of_a_row_of_padding_stays(left: int, value: float) -> None:
    weight = normal(60, 48)
    weight[0, torch.randperm(48, generator=generator(left, "left"))[:left]] = value
    assert not absurd_weights(weight)[0].any()


@pytest.mark.parametrize("left", [3, 5, 16])
def test_a_row_of_padding_that_a_narrow_type_held_stays(left: int) -> None:
    weight = 0.05 * normal(120, 16)
    weight[0, torch.randperm(16, generator=generator(left, "left"))[:left]] = 448.0
    assert not absurd_weights(weight.to(torch.float8_e4m3fn))[0].any()
    weight[0] = 0.05
    weight[0, 2:9] = torch.tensor([300.0, -400.0, 350.0, 250.0, 448.0, -280.0, 210.0])  # garbage is of many values
    assert absurd_weights(weight)[0].sum() == 7


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_of_eight_random_bits_no_number_is_absurd(dtype: torch.dtype) -> None:
    noise = torch.randint(256, (40, 60), dtype=torch.uint8, generator=generator(0, "noise")).view(dtype)
    assert not absurd_weights(noise)[0].any()
    weight = normal(40, 60).to(dtype)
    weight.view(torch.uint8)[3, 4] = 0x7F
    assert absurd_weights(weight)[0].sum() == 1


def test_weights_about_zero_are_filled_with_zero_and_others_with_their_median() -> None:
    for centre, expected in ((0.01, 0.0), (3.0, 3.0)):
        weight = centre + normal(40, 30)
        weight[3, 4] = torch.nan
        _, value, error = absurd_weights(weight)
        assert abs(value - expected) < 0.1 and abs(error - 1) < 0.1
    weight = 0.1 * normal(300).abs()  # a scale that was near to zero is none: variances are positive
    weight[7] = torch.nan
    assert absurd_weights(weight)[1] > 0.05


def test_one_large_weight_of_many_that_a_test_named_is_as_it_was() -> None:
    weight = 1e-5 * normal(36, 36)
    weight[2, 3], named = 7.8, torch.ones(36, 36, dtype=torch.bool)
    absurd, *_ = absurd_weights(weight)
    assert absurd.sum() == 1 and torch.equal(mildly_damaged(weight, named, absurd), absurd)
    few = torch.zeros_like(named)
    few[2] = True
    assert not mildly_damaged(weight, few, absurd).any()
    assert not mildly_damaged(torch.where(absurd, weight, 0.0), named, absurd).any()  # all others were erased
    for value in (1e30, torch.inf):
        assert not mildly_damaged(torch.where(absurd, value, weight), named, absurd).any()


# --- Bounds of tensors that were measured ----------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_scales_that_were_rounded_past_their_range_are_nearly_possible(sign: int) -> None:
    scales = sign * (1 + normal(50).abs())
    of = Statistics.of(scales)
    for bound, out in ((of.lowest, -1), (of.highest, 1)):
        rounded = torch.tensor([bound + out * 1e-3 * abs(bound), bound + out * 30.0])
        assert of.nearly_possible(rounded, twice=True).tolist() == [True, False]
        assert of.nearly_possible(rounded, twice=False).tolist() == [True, False]
    assert not of.nearly_possible(scales, twice=True).any()


def test_noise_on_large_weights_leaves_them_nearly_possible() -> None:
    weight = 0.01 * normal(1000)
    weight[0], weight[1] = 1.0, -0.8
    of = Statistics.of(weight)
    assert of.nearly_possible(torch.tensor([1.2, -0.95, 1.5, -1.2]), twice=False).tolist() == [True, True, False, False]


@pytest.mark.parametrize("share", [1.0, 0.7, 0.3])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_one_outlier_is_known_though_the_other_end_is_crowded(share: float, sign: int) -> None:
    weight = 0.1 * normal(500)
    weight[17] = sign * 7.0
    of = Statistics.of(weight)
    found = weight.clone()
    found[17] *= share
    extremes = known_extremes(found, torch.ones(500, dtype=torch.bool), of)
    assert extremes[17] and extremes.sum() < 4


def test_cells_stuck_at_the_largest_weight_are_no_extremes() -> None:
    weight = normal(500)
    of = Statistics.of(weight)
    weight[:20] = weight.max()
    assert not known_extremes(weight, torch.ones(500, dtype=torch.bool), of)[:20].any()


def test_many_impossible_weights_of_one_size_are_stuck_and_so_are_those_of_the_other_sign() -> None:
    weight = normal(40, 50)
    all_of_it, places = torch.ones(40, 50, dtype=torch.bool), torch.randperm(2000, generator=generator(0, "places"))
    weight.view(-1)[places[:100]], weight.view(-1)[places[100:200]] = 5.0, -5.0
    found = stuck(weight, weight > 4, all_of_it)
    assert torch.equal(found, weight.abs() == 5.0)
    assert not stuck(weight, weight > 4, ~all_of_it).any()
    assert not stuck(weight, (weight > 4) & (torch.arange(2000).view(40, 50) < 100), all_of_it).any()  # by chance
    assert not stuck(weight.round(), weight > 4, all_of_it).any()  # rounded: all repeat
