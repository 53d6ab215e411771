"""What estimates say of the weights that they would replace."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.guard.evidence import small_ones, unrelated
from planaria.streams import generator

SEEDS = st.integers(0, 2**31)
TILE = 512


def predicted_and_true(told: float, *, seed: int, tiles: int = 4) -> tuple[Tensor, Tensor]:
    """Predictions that tell this share of the variance of weights of deviation 1, and these."""
    drawn = generator(seed, "weights")
    predicted, error = torch.randn(2, tiles * TILE, generator=drawn, dtype=torch.float64)
    return told**0.5 * predicted, told**0.5 * predicted + (1 - told) ** 0.5 * error


def named(found: Tensor, predicted: Tensor, told: float) -> Tensor:
    """By tile, how many weights are said to have been overwritten."""
    every = torch.ones_like(found, dtype=torch.bool)
    error = (1 - told) ** 0.5
    return unrelated(found, predicted, error, every, mean=0.0, deviation=1.0, per_tile=TILE).view(-1, TILE).sum(1)


# --- Tiles and their predictions -------------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.3, 0.95), st.floats(0.5, 2.0), st.floats(0.0, 1.0))
def test_weights_that_follow_their_prediction_are_not_unrelated(
    seed: int, told: float, scale: float, noise: float
) -> None:
    """Whatever noise or drift."""
    predicted, true = predicted_and_true(told, seed=seed)
    found = scale * true + noise * torch.randn(true.shape, generator=generator(seed, "noise"), dtype=torch.float64)
    assert not named(found, predicted, told).any()


@given(SEEDS, st.floats(0.3, 0.95), st.integers(0, 3))
def test_a_tile_that_was_overwritten_with_others_like_it_is_unrelated(seed: int, told: float, at: int) -> None:
    predicted, true = predicted_and_true(told, seed=seed)
    found = true.clone().view(-1, TILE)
    found[at] = predicted_and_true(told, seed=seed + 1)[1].view(-1, TILE)[at]
    assert [bool(count) for count in named(found.flatten(), predicted, told)] == [tile == at for tile in range(4)]


@given(SEEDS, st.floats(0.0, 0.2))
def test_poor_predictions_are_no_witness(seed: int, told: float) -> None:
    predicted, _ = predicted_and_true(told, seed=seed)
    assert not named(predicted_and_true(told, seed=seed + 1)[1], predicted, told).any()


@given(SEEDS, st.floats(0.5, 0.9))
def test_one_large_weight_does_not_speak_for_its_tile(seed: int, told: float) -> None:
    """It is as wrong as it is large, and pulls the slope to where it likes."""
    predicted, true = predicted_and_true(told, seed=seed)
    found = true.clone()
    found[::TILE] = -60.0 * predicted[::TILE]
    assert not named(found, predicted, told).any()


# --- Zeros -----------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(100, 3000), st.sampled_from([1e-9, 1.0, 1e9]), st.floats(0.1, 0.7), st.booleans())
def test_erased_weights_are_not_taken_for_small_ones(
    seed: int, count: int, scale: float, error: float, reported: bool
) -> None:
    drawn = generator(seed, "predictions")
    predicted = scale * torch.randn(4000, generator=drawn, dtype=torch.float64)
    zeros = torch.zeros(4000, dtype=torch.bool)
    zeros[torch.randperm(4000, generator=drawn)[:count]] = True
    assert not small_ones(zeros, predicted, scale * error, reported=reported)


@pytest.mark.parametrize("count", [30, 300, 2000])
@pytest.mark.parametrize("error", [0.2, 0.4])
@pytest.mark.parametrize("scale", [1e-6, 1.0])
@pytest.mark.parametrize("reported", [False, True])
def test_small_weights_that_became_zero_are_told_from_erased_ones(
    count: int, error: float, scale: float, reported: bool
) -> None:
    """The smallest of normal weights, beside predictions with independent errors."""
    drawn = generator(count, "weights")
    weight = scale * torch.randn(20 * count, generator=drawn, dtype=torch.float64)
    predicted = (1 - error**2) * weight
    predicted += scale * error * (1 - error**2) ** 0.5 * torch.randn(20 * count, generator=drawn, dtype=torch.float64)
    smallest = torch.zeros(20 * count, dtype=torch.bool)
    smallest[weight.abs().argsort()[:count]] = True
    assert small_ones(smallest, predicted, scale * error, reported=reported)


@pytest.mark.parametrize("error", [2.0, 4.0])
def test_what_poor_predictions_would_make_worse_stays(error: float) -> None:
    """A few weights that cannot be told: filling in costs more than it may save."""
    predicted = 0.3 * torch.randn(1000, generator=generator(0, "predictions"))
    zeros = torch.zeros(1000, dtype=torch.bool)
    zeros[:3] = True
    assert small_ones(zeros, predicted, error, reported=False)
    assert not small_ones(zeros, predicted, error, reported=True)


def test_neither_none_nor_all_can_be_told() -> None:
    nothing = torch.zeros(100, dtype=torch.bool)
    predicted = torch.randn(100, generator=generator(0, "predictions"))
    for zeros, error in ((nothing, 0.1), (~nothing, 0.1), (predicted.abs() < 0.01, 0.0)):
        assert not small_ones(zeros, predicted, error, reported=False)
