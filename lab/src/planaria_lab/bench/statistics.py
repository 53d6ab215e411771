"""Mean, interval and minimum of repeated measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Summary:
    """`interval` is half the width of the 95 % Student-t interval of the mean; None for a single measurement."""

    mean: float
    interval: float | None
    minimum: float
    count: int


def summary(by_fit: Sequence[Sequence[float]]) -> Summary:
    """Of measurements by fit and mask. All fits share the masks, so the interval is over masks, of the mean over fits;
    the minimum is over every run."""
    values = np.asarray(by_fit, dtype=float)
    by_mask = values.mean(axis=0)
    count = len(by_mask)
    interval = float(stats.t.ppf(0.975, count - 1) * stats.sem(by_mask)) if count > 1 else None
    return Summary(float(values.mean()), interval, float(values.min()), values.size)


@dataclass(frozen=True)
class Proportion:
    """`count` of `of` trials, and Wilson's 95 % interval of the share (1927), which holds at 0 and all as well."""

    count: int
    of: int
    low: float
    high: float


def proportion(outcomes: Sequence[bool]) -> Proportion:
    """Of one trial or more."""
    count, of = sum(outcomes), len(outcomes)
    interval = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    return Proportion(count, of, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Median:
    """`low` to `high` is an interval of the median, of 95 % or a little more whatever the distribution; None for fewer
    than 6 measurements, of which there is none."""

    median: float
    low: float | None
    high: float | None
    count: int


def median(values: Sequence[float]) -> Median:
    """Of one measurement or more, with the interval between two of them that the binomial distribution gives."""
    ordered = sorted(values)
    count = len(ordered)
    below = int(stats.binom.ppf(0.025, count, 0.5)) - 1
    low, high = (ordered[below], ordered[-1 - below]) if below >= 0 else (None, None)
    return Median(float(np.median(ordered)), low, high, count)
