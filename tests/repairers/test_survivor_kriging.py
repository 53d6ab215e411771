"""Kriging with a covariance that nobody stored."""

import itertools

import pytest
import torch
from helpers import drawn, mask, smooth_sheets

from planaria.layouts import Sheet
from planaria.repairers import Kriging, MeanFill, Record, SurvivorKriging, survivor_kriging


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


def test_with_many_pairs_a_lag_has_the_tapered_mean_of_its_known_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivor_kriging, "PAIRS", 0.0)
    monkeypatch.setattr(survivor_kriging, "REACH", 1e9)
    known = mask(7, 3, 4)
    deviation = torch.where(known, drawn(7, 3, 4).double(), 0.0)
    found = survivor_kriging._of_survivors(deviation, known)
    for down, right in itertools.product(range(-2, 3), range(-3, 4)):
        products = [
            float(deviation[grid, y, x] * deviation[grid, y + down, x + right])
            for grid, y, x in itertools.product(range(7), range(3), range(4))
            if 0 <= y + down < 3 and 0 <= x + right < 4 and known[grid, y, x] and known[grid, y + down, x + right]
        ]
        taper = (1 - abs(down) / 3) * (1 - abs(right) / 4)
        assert found[down, right].item() == pytest.approx(taper * sum(products) / max(len(products), 1))


def test_with_few_pairs_a_lag_has_that_of_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivor_kriging, "PAIRS", 1e30)
    found = survivor_kriging._of_survivors(drawn(7, 4, 4).double(), torch.ones(7, 4, 4, dtype=torch.bool))
    torch.testing.assert_close(found[0, 2], found[2, 0])
    torch.testing.assert_close(found[1, 2], found[-2, 1])
