"""Means, intervals and minima."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria_lab.bench.statistics import Summary, summary

numbers = st.floats(-100, 100)


@st.composite
def measurements(draw: st.DrawFn, *, masks: int = 1) -> list[list[float]]:
    count = draw(st.integers(masks, 6))
    return draw(st.lists(st.lists(numbers, min_size=count, max_size=count), min_size=1, max_size=4))


@given(values=measurements())
def test_mean_minimum_and_count_are_over_every_run(values: list[list[float]]) -> None:
    flat = [value for fit in values for value in fit]
    found = summary(values)
    assert found.mean == pytest.approx(sum(flat) / len(flat), abs=1e-9)
    assert found.minimum == min(flat) and found.count == len(flat)


@given(values=measurements(masks=2))
def test_the_interval_is_students_over_masks_of_the_mean_over_fits(values: list[list[float]]) -> None:
    by_mask = np.mean(values, axis=0)
    quantile = {2: 12.7062, 3: 4.30265, 4: 3.18245, 5: 2.77645, 6: 2.57058}[len(by_mask)]
    expected = quantile * by_mask.std(ddof=1) / math.sqrt(len(by_mask))
    assert summary(values).interval == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_fits_that_disagree_alike_on_every_mask_do_not_widen_the_interval() -> None:
    assert summary([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]]).interval == pytest.approx(summary([[1.0, 2.0, 3.0]]).interval)


def test_a_single_measurement_has_no_interval() -> None:
    assert summary([[3.0]]) == Summary(3.0, None, 3.0, 1)
    assert summary([[3.0], [5.0]]) == Summary(4.0, None, 3.0, 2)
