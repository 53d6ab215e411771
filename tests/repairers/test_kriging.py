"""Kriging against the textbook formula, written out with a dense covariance."""

import itertools

import pytest
import torch
from helpers import drawn, mask, smooth_sheets
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts import Flat, Layout, Sheet
from planaria.repairers import Record
from planaria_lab.repairers import Kriging, MeanFill

GRIDS = {
    "sheets": (Sheet((4, 5)), (6, 20)),
    "flat": (Flat(), (7, 6)),
    "lines": (Sheet((11,)), (5, 11)),
    "volumes": (Sheet((3, 3, 4)), (6, 36)),
    "four axes": (Sheet((2, 2, 3, 2)), (6, 24)),
    "one cell": (Sheet((1,)), (9, 1)),
}
on_every_grid = pytest.mark.parametrize(("layout", "shape"), GRIDS.values(), ids=GRIDS.keys())


def autocorrelations(grid: Tensor) -> dict[tuple[int, ...], float]:
    """By lag: the biased estimate, pooled over the batch, from its definition."""
    deviation = (grid - grid.mean()).flatten(1)
    space = grid.shape[1:]
    places = list(itertools.product(*[range(size) for size in space]))
    sums: dict[tuple[int, ...], float] = {}
    for one, first in enumerate(places):
        for other, second in enumerate(places):
            lag = tuple(b - a for a, b in zip(first, second, strict=True))
            sums[lag] = sums.get(lag, 0.0) + float((deviation[:, one] * deviation[:, other]).sum())
    zero = sums[(0,) * len(space)]
    return {lag: value / zero for lag, value in sums.items()}


def conditional_mean(grid: Tensor, known: Tensor, record: Record) -> Tensor:
    """C_mk C_kk^-1 applied to the known deviations, C from the record's lags."""
    stored = record.tensors["correlations"].double()
    mean = record.tensors["mean_and_deviation"][0].double()
    places = list(itertools.product(*[range(size) for size in grid.shape[1:]]))
    covariance = torch.zeros(len(places), len(places), dtype=torch.float64)
    for one, first in enumerate(places):
        for other, second in enumerate(places):
            lag = tuple(b - a for a, b in zip(first, second, strict=True))
            covariance[one, other] = stored[lag if lag[0] >= 0 else tuple(-step for step in lag)]
    filled = torch.full(grid.flatten(1).shape, mean.item(), dtype=torch.float64)
    for item, values, there in zip(filled, grid.flatten(1).double(), known.flatten(1), strict=True):
        solved = torch.linalg.solve(covariance[there][:, there], values[there] - mean)
        item += covariance[:, there] @ solved
    return filled.view(grid.shape)


@on_every_grid
def test_the_record_holds_the_autocorrelation_at_every_lag(layout: Layout, shape: tuple[int, int]) -> None:
    weight = drawn(*shape)
    grid = layout.to_grid(weight).double()
    stored = Kriging(layout).prepare(weight).tensors
    for lag, value in autocorrelations(grid).items():
        if lag[0] >= 0:
            assert stored["correlations"][lag].item() == pytest.approx(value, abs=1e-3)
    expected = torch.stack([grid.mean(), grid.std(correction=0)]).float()
    torch.testing.assert_close(stored["mean_and_deviation"], expected)


@on_every_grid
def test_kriging_is_the_conditional_mean_of_a_gaussian(layout: Layout, shape: tuple[int, int]) -> None:
    weight, known = drawn(*shape), mask(*shape, share=0.6)
    repairer = Kriging(layout, tolerance=1e-12, iterations=5000)
    record = repairer.prepare(weight)
    expected = conditional_mean(layout.to_grid(weight), layout.to_grid(known), record)
    restored = layout.to_grid(repairer.restore(weight, known, record)).double()
    # The floor under the spectrum moves the covariance by at most a millionth of its largest eigenvalue.
    torch.testing.assert_close(restored[layout.to_grid(~known)], expected[layout.to_grid(~known)], rtol=2e-3, atol=2e-3)


def test_kriging_beats_the_mean_on_smooth_sheets() -> None:
    weight, known = smooth_sheets(20, 8, 8), mask(20, 64, share=0.3)
    errors = []
    for repairer in (Kriging(Sheet((8, 8))), MeanFill()):
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        errors.append((restored - weight)[~known].square().mean())
    assert errors[0] < 0.5 * errors[1]


def test_without_survivors_the_mean_is_best() -> None:
    weight = drawn(4, 6) + 2
    repairer = Kriging(Sheet((2, 3)))
    restored = repairer.restore(weight, torch.zeros(4, 6, dtype=torch.bool), repairer.prepare(weight))
    torch.testing.assert_close(restored, weight.mean().expand(4, 6))


@pytest.mark.parametrize(("layout", "lags"), [(Sheet((4, 5)), 4 * 10), (Flat(), 6 * 40), (Sheet((20,)), 20)])
def test_the_record_has_two_bytes_a_lag_of_a_half_space_and_eight_more(layout: Layout, lags: int) -> None:
    assert Kriging(layout).prepare(drawn(6, 20)).nbytes == 2 * lags + 8


def test_the_record_of_other_grids_is_refused() -> None:
    weight, known = drawn(6, 20), mask(6, 20)
    with pytest.raises(InvalidInput, match=r"not those of grids of \(5, 4\)"):
        Kriging(Sheet((5, 4))).restore(weight, known, Kriging(Sheet((4, 5))).prepare(weight))
