"""What estimates say of the weights that they would replace."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planaria.guard.evidence import small_ones
from planaria.streams import generator

SEEDS = st.integers(0, 2**31)


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
