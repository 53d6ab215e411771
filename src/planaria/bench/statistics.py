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
