"""Weights that hold uniform random numbers."""

import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.weight_damage import WeightDamage, require_real, rounded
from planaria.errors import InvalidInput


class UniformRandom(WeightDamage):
    """Gives weights, drawn uniformly without replacement, uniform random numbers: the fault of pytorchfi (Mahmoud et
    al., DSN-W 2020), whose range is the default.

    Args:
        low: least of the numbers. What a dtype cannot hold becomes the nearest number that it can.
        high: the number below which they lie.
        rate, count: as of `WeightDamage`.

    Raises:
        InvalidInput: as `WeightDamage` does, and unless low and high are finite and low is not above high; when
            applied, on bools and complex numbers.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None, low: float = -1.0, high: float = 1.0):
        super().__init__(rate, count=count)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InvalidInput(f"A range goes from a finite low to a high that is not below it, not {low} to {high}.")
        self.low = low
        self.high = high

    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        require_real(old.dtype)
        drawn = torch.rand(len(old), dtype=torch.float64, generator=generator)
        return rounded(self.low + (self.high - self.low) * drawn, old.dtype)
