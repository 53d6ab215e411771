"""Stationary covariances of grids of which some cells are missing."""

import itertools

import pytest
import torch
from helpers import drawn, mask

from planaria import stationary
from planaria.stationary import covariance_of_survivors, products_by_lag, spectrum_of


def test_with_many_pairs_a_lag_has_the_tapered_mean_of_its_known_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stationary, "PAIRS", 0.0)
    monkeypatch.setattr(stationary, "REACH", 1e9)
    known = mask(7, 3, 4)
    deviation = torch.where(known, drawn(7, 3, 4).double(), 0.0)
    found = covariance_of_survivors(deviation, known)
    for down, right in itertools.product(range(-2, 3), range(-3, 4)):
        products = [
            float(deviation[grid, y, x] * deviation[grid, y + down, x + right])
            for grid, y, x in itertools.product(range(7), range(3), range(4))
            if 0 <= y + down < 3 and 0 <= x + right < 4 and known[grid, y, x] and known[grid, y + down, x + right]
        ]
        taper = (1 - abs(down) / 3) * (1 - abs(right) / 4)
        assert found[down, right].item() == pytest.approx(taper * sum(products) / max(len(products), 1))


def test_with_few_pairs_a_lag_has_that_of_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stationary, "PAIRS", 1e30)
    found = covariance_of_survivors(drawn(7, 4, 4).double(), torch.ones(7, 4, 4, dtype=torch.bool))
    torch.testing.assert_close(found[0, 2], found[2, 0])
    torch.testing.assert_close(found[1, 2], found[-2, 1])


def test_no_eigenvalue_is_negative_or_nearly_zero() -> None:
    spectrum = spectrum_of(products_by_lag(drawn(3, 5, 6).double()))
    assert spectrum.min() >= stationary.FLOOR * spectrum.max() > 0
