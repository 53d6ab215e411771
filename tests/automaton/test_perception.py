"""The filter bank on inputs whose derivatives are known."""

import pytest
import torch
from helpers import drawn
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.automaton import Perception
from planaria.automaton.perception import filter_bank
from planaria.errors import InvalidInput

SIZE = 7


def coordinates(dimensions: int) -> list[Tensor]:
    return list(torch.meshgrid(*[torch.arange(float(SIZE))] * dimensions, indexing="ij"))


def perceived(grid: Tensor) -> Tensor:
    """Features of a grid with one channel: (filters, *space)."""
    return Perception(grid.dim())(grid[None, None])[0]


def interior(grid: Tensor) -> Tensor:
    return grid[(..., *[slice(1, -1)] * (grid.dim() - 1))]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@given(slopes=st.tuples(*[st.integers(-8, 8)] * 3), offset=st.integers(-8, 8))
def test_a_linear_ramp_has_its_slopes_as_gradient_and_no_laplacian(
    dimensions: int, slopes: tuple[int, ...], offset: int
) -> None:
    ramp = sum((slope * at for slope, at in zip(slopes, coordinates(dimensions), strict=False)), start=Tensor([offset]))
    seen = interior(perceived(ramp))
    assert torch.equal(seen[0], interior(ramp[None])[0])
    for axis in range(dimensions):
        assert torch.equal(seen[1 + axis], torch.full_like(seen[0], slopes[axis]))
    assert torch.equal(seen[-1], torch.zeros_like(seen[0]))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@given(curvatures=st.tuples(*[st.integers(-8, 8)] * 3))
def test_a_parabola_has_a_quarter_of_its_laplacian(dimensions: int, curvatures: tuple[int, ...]) -> None:
    bends = list(zip(curvatures, coordinates(dimensions), strict=False))
    parabola = sum((bend * at**2 for bend, at in bends), start=torch.zeros(1))
    laplacian = sum(2 * bend for bend, _ in bends)
    seen = interior(perceived(parabola))[-1]
    assert torch.equal(seen, torch.full_like(seen, laplacian / 4))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@given(shift=st.tuples(*[st.integers(-2, 2)] * 3))
def test_shifting_a_pattern_away_from_the_border_shifts_its_features(dimensions: int, shift: tuple[int, ...]) -> None:
    axes = tuple(range(1, 1 + dimensions))
    grid = torch.zeros(1, *[SIZE] * dimensions)
    inside = (slice(None), *[slice(3, -3)] * dimensions)
    grid[inside] = drawn(*grid[inside].shape)
    moved = grid.roll(shift[:dimensions], axes)
    torch.testing.assert_close(perceived(moved[0]), perceived(grid[0]).roll(shift[:dimensions], axes))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_reflection_flips_the_sobel_of_its_axis_and_no_other_feature(dimensions: int) -> None:
    grid = drawn(*[SIZE] * dimensions)
    for axis in range(dimensions):
        expected = perceived(grid).flip(axis + 1)
        expected[1 + axis] *= -1
        torch.testing.assert_close(perceived(grid.flip(axis)), expected)


def test_beyond_the_border_everything_is_zero() -> None:
    seen = perceived(torch.ones(3))
    torch.testing.assert_close(seen, torch.tensor([[1.0, 1, 1], [0.5, 0, -0.5], [-0.25, 0, -0.25]]))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_features_come_filter_by_filter_for_every_channel(dimensions: int) -> None:
    state = drawn(2, 3, *[4] * dimensions)
    seen = Perception(dimensions)(state)
    for channel in range(3):
        alone = Perception(dimensions)(state[:, channel : channel + 1])
        torch.testing.assert_close(seen[:, channel::3], alone)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_without_the_laplacian_the_other_filters_stay_the_same(dimensions: int) -> None:
    whole = filter_bank(dimensions, laplacian=True)
    assert whole.shape == (dimensions + 2, *[3] * dimensions)
    assert torch.equal(filter_bank(dimensions, laplacian=False), whole[:-1])


def test_perception_has_nothing_to_learn_or_to_save() -> None:
    perception = Perception(2)
    assert list(perception.parameters()) == []
    assert perception.state_dict() == {}


@pytest.mark.parametrize("dimensions", [0, 4, -1])
def test_other_than_one_to_three_dimensions_are_refused(dimensions: int) -> None:
    with pytest.raises(InvalidInput, match=f"1, 2 or 3 spatial dimensions, not {dimensions}"):
        Perception(dimensions)
