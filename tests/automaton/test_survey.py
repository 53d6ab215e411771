"""The fixed channels."""

import itertools
import math

import pytest
import torch
from helpers import drawn, mask
from torch import Tensor

from planaria.automaton.survey import CHANNELS, Survey, analysed, cosines, synthesised

SPACES = [(9,), (5, 6), (3, 4, 5)]


def some_survey(dimensions: int) -> Survey:
    survey = Survey(dimensions, modes=3, frequencies=3)
    survey.fields.copy_(drawn(*survey.fields.shape, name="fields"))
    survey.noise.fill_(0.4)
    return survey


def survivors(*shape: int) -> tuple[Tensor, Tensor]:
    known = mask(*shape)
    return torch.where(known, drawn(*shape), 0.0), known


@pytest.mark.parametrize("space", SPACES)
def test_where_nothing_is_known_the_prior_remains(space: tuple[int, ...]) -> None:
    seen = some_survey(len(space))(torch.zeros(2, *space), torch.zeros(2, *space, dtype=torch.bool))
    assert torch.equal(seen, torch.zeros(2, CHANNELS, *space))


@pytest.mark.parametrize("space", SPACES)
def test_a_new_survey_expects_nothing(space: tuple[int, ...]) -> None:
    seen = Survey(len(space), modes=4, frequencies=3)(*survivors(2, *space))
    assert not seen[:, 1].any() and seen[:, 0].any()


@pytest.mark.parametrize("space", SPACES)
def test_the_first_channel_is_the_deviation_of_all_survivors_nearby(space: tuple[int, ...]) -> None:
    weight, known = survivors(3, *space)
    seen = some_survey(len(space))(weight, known)[:, 0]
    for place in itertools.product(*[range(size) for size in space]):
        count = squares = 3.0
        for other in itertools.product(*[range(size) for size in space]):
            near = math.prod(max(0, 3 - abs(one - two)) for one, two in zip(place, other, strict=True))
            there = (slice(None), *other)
            count += near * float(known[there].sum())
            squares += near * float(weight[there].square().sum())
        expected = torch.full((3,), math.sqrt(squares / count) - 1)
        torch.testing.assert_close(seen[(slice(None), *place)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_the_second_channel_is_the_posterior_mean_given_the_grids_survivors(space: tuple[int, ...]) -> None:
    """As a Gaussian of covariance F'F + noise, whose conditional mean is written out with dense matrices."""
    survey, (weight, known) = some_survey(len(space)), survivors(3, *space)
    seen = survey(weight, known)[:, 1].flatten(1)
    fields = synthesised(survey.fields, space).flatten(1).double()
    covariance = fields.T @ fields
    for answered, values, there in zip(seen, weight.flatten(1).double(), known.flatten(1), strict=True):
        among = covariance[there][:, there] + 0.4 * torch.eye(int(there.sum()), dtype=torch.float64)
        expected = covariance[:, there] @ torch.linalg.solve(among, values[there])
        torch.testing.assert_close(answered, expected.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_the_order_of_grids_does_not_matter(space: tuple[int, ...]) -> None:
    survey, (weight, known) = some_survey(len(space)), survivors(4, *space)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(survey(weight[order], known[order]), survey(weight, known)[order])


@pytest.mark.parametrize("size", [1, 3, 8])
def test_cosines_are_orthonormal_and_zero_where_they_do_not_fit(size: int) -> None:
    waves = cosines(size, 5)
    fitting = torch.diag((torch.arange(5) < size).float())
    torch.testing.assert_close(waves @ waves.T, fitting, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_coefficients_come_back_from_the_fields_they_make(space: tuple[int, ...]) -> None:
    coefficients = drawn(2, *[3] * len(space))
    torch.testing.assert_close(analysed(synthesised(coefficients, space), 3), coefficients, rtol=1e-4, atol=1e-5)


def test_long_axes_are_averaged_like_short_ones() -> None:
    """Beyond 1,024 cells another way of computing takes over."""
    weight, known = survivors(1, 1100)
    survey = some_survey(1)
    whole, part = survey(weight, known)[0, 0], survey(weight[:, :1000], known[:, :1000])[0, 0]
    torch.testing.assert_close(whole[:990], part[:990])
