"""Kriging with the covariance of the other rows."""

import pytest
import torch
from helpers import drawn, mask

from planaria.errors import InvalidInput
from planaria.layouts import Sheet
from planaria_lab.repairers import Kriging, RowKriging


def test_without_a_share_it_is_kriging() -> None:
    weight, known = drawn(6, 20).cumsum(1), mask(6, 20, share=0.7)
    exact = Kriging(Sheet((4, 5)), tolerance=1e-12)
    record = exact.prepare(weight)
    expected = exact.restore(weight, known, record)
    torch.testing.assert_close(RowKriging(Sheet((4, 5)), share=0.0).restore(weight, known, record), expected)


def test_other_rows_tell_which_places_go_together() -> None:
    weight = drawn(200, 6)[:, [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0]] + 0.1 * drawn(200, 12, name="noise")
    known = mask(200, 12, share=0.8)
    errors = []
    for repairer in (Kriging(Sheet((12,))), RowKriging(Sheet((12,)), share=0.9)):
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        errors.append(float((restored - weight)[~known].square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_left_out_one_by_one_a_weight_has_no_part_in_its_own_prediction() -> None:
    weight, known = drawn(6, 20).cumsum(1), torch.ones(6, 20, dtype=torch.bool)
    repairer = RowKriging(Sheet((4, 5)))
    record = repairer.prepare(weight)
    predicted = repairer.left_one_out(weight, known, record)
    other = weight.clone()
    other[2, 7] = 50.0
    torch.testing.assert_close(repairer.left_one_out(other, known, record)[2, 7], predicted[2, 7])
    known[2, 7] = False
    torch.testing.assert_close(repairer.restore(weight, known, record)[2, 7], predicted[2, 7])
    torch.testing.assert_close(repairer.left_one_out(weight, known, record)[2, 7], predicted[2, 7])


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=f"not {share}"):
        RowKriging(Sheet((4, 5)), share=share)


def test_grids_that_are_too_large_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"at most 4,096 cells here, not 4,225\. Use Kriging"):
        RowKriging(Sheet((65, 65))).prepare(drawn(2, 65 * 65))
