"""Layouts there and back."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st

from planaria.errors import InvalidInput
from planaria.layouts import Flat, Layout, Sheet
from planaria.streams import generator

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int64, torch.bool]


@st.composite
def fitting(draw: st.DrawFn) -> tuple[Callable[[], Layout], tuple[int, int], tuple[int, ...]]:
    """A layout, the shape of a weight that fits it, and the shape of its grids."""
    rows = draw(st.integers(0, 5))
    if draw(st.booleans()):
        shape = (rows, draw(st.integers(0, 6)))
        return Flat, shape, (1, *shape)
    space = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    return partial(Sheet, space), (rows, math.prod(space)), (rows, *space)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(case=fitting(), transposed=st.booleans())
def test_a_weight_comes_back_bit_for_bit(
    dtype: torch.dtype, case: tuple[Callable[[], Layout], tuple[int, int], tuple[int, ...]], transposed: bool
) -> None:
    make, shape, grids = case
    layout = make()
    drawn_bytes = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8, generator=generator(0, "bytes"))
    weight = drawn_bytes.view(dtype).view(shape) if dtype != torch.bool else drawn_bytes.view(shape) > 127
    if transposed:
        weight = weight.T.contiguous().T
    before = weight.clone()
    grid = layout.to_grid(weight)
    assert grid.shape == grids and grid.dtype == dtype
    assert layout.dimensions == grid.dim() - 1
    back = layout.from_grid(grid, tuple(weight.shape))
    assert same_bits(back, before) and same_bits(weight, before)


def test_a_sheet_is_the_image_of_a_neurons_inputs() -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    assert torch.equal(Sheet((3, 4, 5)).to_grid(images.flatten(1)), images)
    assert torch.equal(Sheet((4, 5)).to_grid(images[:, 0].flatten(1)), images[:, 0])


@pytest.mark.parametrize("layout", [Flat(), Sheet((2, 3))], ids=repr)
@pytest.mark.parametrize("shape", [(), (6,), (1, 2, 3)])
def test_a_weight_of_another_rank_is_refused(layout: Layout, shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(InvalidInput, match="2 dimensions"):
        layout.to_grid(torch.zeros(shape))


@pytest.mark.parametrize(("layout", "needed"), [(Sheet((2, 3)), 6), (Sheet((2, 2, 3)), 12)])
def test_a_sheet_refuses_another_number_of_inputs_and_says_how_many_it_takes(layout: Sheet, needed: int) -> None:
    with pytest.raises(InvalidInput, match=rf"take {needed} inputs.*\(4, {needed + 1}\)"):
        layout.to_grid(torch.zeros(4, needed + 1))


@pytest.mark.parametrize("space", [(), (0, 3), (2, -1)])
def test_a_sheet_needs_axes(space: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        Sheet(space)
