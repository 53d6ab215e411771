"""Weights against their rows and columns."""

import pytest
import torch
from helpers import drawn, mask
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.detectors import Outlier

# Damage moves medians a little, and so may lift the largest intact scores over the limit: of 5,120 weights, so many.
FEW = 10
LINES = torch.exp(torch.linspace(-3, 3, 60))  # deviations of lines that differ twenty-fold and more


def flipped(weight: Tensor, places: Tensor, bit: int) -> Tensor:
    return torch.where(places, (weight.view(torch.int32) ^ (1 << bit)).view(torch.float32), weight)


def alarms(known: Tensor, damaged: Tensor) -> int:
    return int((~known & ~damaged).sum())


@given(seed=st.integers(0, 100))
def test_flips_of_the_highest_exponent_bit_are_all_found(seed: int) -> None:
    weight, places = drawn(64, 80, seed=seed) * 0.05, mask(64, 80, share=0.01, seed=seed)
    known = Outlier().find(flipped(weight, places, 30), Outlier().prepare(weight))
    assert not known[places].any()
    assert alarms(known, places) <= FEW


@given(seed=st.integers(0, 100))
def test_flips_that_enlarge_a_weight_sixteen_fold_are_mostly_found(seed: int) -> None:
    weight, places = drawn(64, 80, seed=seed) * 0.05, mask(64, 80, share=0.05, seed=seed)
    places &= (weight.abs() > 2**-7) & (weight.abs() < 2**-3)
    broken = torch.where(places, weight * 16, weight)
    known = Outlier().find(broken, Outlier().prepare(weight))
    assert (~known & places).sum() > 0.75 * places.sum()
    assert alarms(known, places) <= FEW


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@given(seed=st.integers(0, 100))
def test_a_fifth_of_the_weights_may_be_any_rubbish(dtype: torch.dtype, seed: int) -> None:
    weight, places = drawn(64, 80, seed=seed).to(dtype), mask(64, 80, share=0.2, seed=seed)
    rubbish = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -20.0], dtype=dtype)
    broken = torch.where(places, rubbish[torch.arange(64 * 80).view(64, 80) % 5], weight)
    known = Outlier().find(broken, Outlier().prepare(weight))
    assert not known[places].any()
    assert alarms(known, places) <= FEW


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_a_weight_that_is_usual_elsewhere_is_found_in_a_quiet_line(axis: str) -> None:
    weight = LINES[:, None] * drawn(60, 50).clamp(-3, 3)
    broken = weight.clone()
    broken[2, 7], broken[5, 40] = weight[55, 3], 30.0
    assert broken.max() <= weight.max() and broken.min() >= weight.min(), "else the range alone finds them"
    if axis == "columns":
        weight, broken = weight.T, broken.T
    known = Outlier().find(broken, Outlier().prepare(weight))
    assert torch.equal(known, broken == weight)


def test_lines_of_zeros_do_not_make_it_deaf() -> None:
    weight = torch.zeros(60, 50)
    weight[7] = drawn(50)
    broken = weight.clone()
    broken[30, 20] = 0.5
    assert torch.equal(Outlier().find(broken, Outlier().prepare(weight)), broken == weight)


def test_damage_that_shrinks_weights_looks_like_weights() -> None:
    weight, places = drawn(64, 80) * 0.05, mask(64, 80, share=0.01)
    known = Outlier().find(flipped(weight, places, 29), Outlier().prepare(weight))
    assert known[places].all()


@given(seed=st.integers(0, 100), share=st.sampled_from([0.01, 0.2]))
def test_order_of_rows_and_scale_do_not_matter(seed: int, share: float) -> None:
    weight, places = drawn(40, 45, seed=seed), mask(40, 45, share=share, seed=seed)
    broken = torch.where(places, 4 * drawn(40, 45, seed=seed, name="broken"), weight)
    known = Outlier().find(broken, Outlier().prepare(weight))
    assert not known.all()
    assert torch.equal(Outlier().find(8 * broken, Outlier().prepare(8 * weight)), known)
    order = drawn(40, seed=seed).argsort()
    assert torch.equal(Outlier().find(broken[order], Outlier().prepare(weight[order])), known[order])


@pytest.mark.parametrize("shape", [(41, 37), (3, 41), (1517,), (3, 5), (37, 3, 15)])
def test_the_limits_are_the_largest_scores_of_long_lines_by_the_definition(shape: tuple[int, ...]) -> None:
    weight = drawn(*shape)
    matrix = weight.double().flatten(1) if len(shape) > 1 else weight.double().view(1, -1)
    long = [lines for lines in (matrix, matrix.T) if lines.shape[1] >= 32] or [matrix.reshape(1, -1)]
    expected = [float("inf")] * 2
    for place, lines in enumerate(long):
        distances = (lines - lines.quantile(0.5, 1, keepdim=True)).abs()  # of an odd number of cells
        expected[place] = float((distances / distances.quantile(0.5, 1, keepdim=True)).max())
    assert Outlier().prepare(weight).tensors["limits"].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_record_has_twenty_bytes_whatever_the_size() -> None:
    for shape in [(), (5,), (64, 80), (40, 2, 30)]:
        assert Outlier().prepare(drawn(*shape)).nbytes == 20
    assert Outlier().prepare(drawn(64, 80).double()).nbytes == 40
