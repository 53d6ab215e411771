"""Weights with noise on them."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.weight_damage import WeightDamage, finite, require_real, rounded
from planaria.errors import InvalidInput

Distribution = Literal["normal", "uniform"]
Unit = Literal["rms", "absolute"]


class Disturb(WeightDamage):
    """Adds noise to weights, drawn uniformly without replacement: MRFI's disturbances (Huang et al., TVLSI 2024), which
    are absolute; here they are relative to the tensor unless asked for otherwise.

    Args:
        size: standard deviation of "normal" noise; "uniform" noise lies in [-size, size].
        distribution: "normal" or "uniform".
        unit: what the size is measured in: "rms", the root of the mean square of the tensor's finite weights, or
            "absolute".
        rate, count: as of `WeightDamage`.

    What a dtype cannot hold becomes the nearest number that it can; weights that are not finite stay as they are.

    Raises:
        InvalidInput: as `WeightDamage` does, and on a negative or infinite size, an unknown distribution or unit; when
            applied, on bools and complex numbers.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        size: float,
        count: int | None = None,
        distribution: Distribution = "normal",
        unit: Unit = "rms",
    ):
        super().__init__(rate, count=count)
        if not 0 <= size < math.inf:
            raise InvalidInput(f"The size of noise is finite and not negative, not {size}.")
        if distribution not in get_args(Distribution):
            raise InvalidInput(f"Unknown distribution {distribution!r}. They are: {', '.join(get_args(Distribution))}.")
        if unit not in get_args(Unit):
            raise InvalidInput(f"Unknown unit {unit!r}. Units are: {', '.join(get_args(Unit))}.")
        self.size = size
        self.distribution = distribution
        self.unit = unit

    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        require_real(old.dtype)
        if self.distribution == "normal":
            noise = torch.randn(len(old), dtype=torch.float64, generator=generator)
        else:
            noise = 2 * torch.rand(len(old), dtype=torch.float64, generator=generator) - 1
        before = old.double()
        after = before + self.size * (root_mean_square(weight) if self.unit == "rms" else 1.0) * noise
        # Bit for bit: a sum with zero would turn -0.0 into 0.0, and float64 does not hold every integer.
        return torch.where(before.isfinite() & (after != before), rounded(after, old.dtype), old)


def root_mean_square(weight: Shaped[Tensor, "*weight"]) -> float:
    """Of the finite weights; 0 if there are none."""
    values = abs(finite(weight))
    largest = max(values.max(initial=0.0), np.finfo(np.float64).tiny)
    return float(largest * np.sqrt(np.mean(np.square(values / largest)))) if len(values) else 0.0
