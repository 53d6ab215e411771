"""Means of neighbours, by the definition."""

import itertools
import math

import pytest
import torch
from helpers import drawn, mask
from hypothesis import given
from hypothesis import strategies as st

from planaria.layouts import Flat, Layout, Sheet
from planaria.repairers import Record
from planaria_lab.repairers import NeighbourFill


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(Flat(), (6, 7)), (Sheet((3, 4)), (5, 12)), (Sheet((9,)), (4, 9)), (Sheet((3, 2, 3)), (4, 18))],
)
@given(share=st.sampled_from([0.05, 0.3, 0.7]), seed=st.integers(0, 50))
def test_a_missing_cell_becomes_the_mean_of_its_known_neighbours(
    layout: Layout, shape: tuple[int, int], share: float, seed: int
) -> None:
    weight, known = drawn(*shape, seed=seed), mask(*shape, share=share, seed=seed)
    restored = layout.to_grid(NeighbourFill(layout).restore(weight, known, Record()))
    grid, there = layout.to_grid(weight), layout.to_grid(known)
    fallback = weight[known].mean() if known.any() else torch.tensor(0.0)
    for place in itertools.product(*[range(size) for size in grid.shape]):
        if there[place]:
            continue
        window = (place[0], *[slice(max(0, at - 1), at + 2) for at in place[1:]])
        near = grid[window][there[window]]
        expected = near.mean() if len(near) else fallback
        assert math.isclose(restored[place], expected, rel_tol=1e-4, abs_tol=1e-5)


def test_it_needs_no_bytes() -> None:
    assert NeighbourFill(Flat()).prepare(drawn(3, 4)).nbytes == 0
