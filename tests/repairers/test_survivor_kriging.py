"""Kriging with a covariance that nobody stored."""

import pytest
import torch
from helpers import drawn, mask, smooth_sheets

from planaria.layouts import Sheet
from planaria.repairers import Record
from planaria_lab.repairers import Kriging, MeanFill, SurvivorKriging


def test_it_notes_nothing() -> None:
    assert SurvivorKriging(Sheet((2, 3))).prepare(drawn(4, 6)).nbytes == 0


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_it_comes_near_to_kriging_with_the_covariance_of_the_intact_weights(share: float) -> None:
    weight, known = smooth_sheets(40, 12, 12), mask(40, 144, share=share)
    layout = Sheet((12, 12))
    errors = []
    for repairer in (SurvivorKriging(layout), Kriging(layout), MeanFill()):
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        errors.append(float((restored - weight)[~known].square().mean()))
    survivors, own, mean = errors
    assert own < survivors < own + 0.1 * (mean - own)


def test_a_scale_changes_nothing_else() -> None:
    weight, known = smooth_sheets(5, 6, 6), mask(5, 36)
    repairer = SurvivorKriging(Sheet((6, 6)))
    one, other = (repairer.restore(scale * weight, known, Record()) / scale for scale in (1.0, 1e-20))
    torch.testing.assert_close(one, other)


def test_without_differences_the_mean_is_best() -> None:
    weight, known = torch.full((3, 6), 2.5), mask(3, 6)
    restored = SurvivorKriging(Sheet((2, 3))).restore(weight, known, Record())
    torch.testing.assert_close(restored, weight)
