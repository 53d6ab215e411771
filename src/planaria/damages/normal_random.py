"""Weights that hold normal random numbers."""

import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.weight_damage import WeightDamage, require_real, rounded
from planaria.errors import InvalidInput


class NormalRandom(WeightDamage):
    """Gives weights, drawn uniformly without replacement, normal random numbers, as MRFI does (Huang et al., TVLSI
    2024), whose mean and standard deviation are the default.

    Args:
        mean: of the numbers. What a dtype cannot hold becomes the nearest number that it can.
        std: their standard deviation.
        rate, count: as of `WeightDamage`.

    Raises:
        InvalidInput: as `WeightDamage` does, and unless mean and std are finite and std is not negative; when applied,
            on bools and complex numbers.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None, mean: float = 0.0, std: float = 1.0):
        super().__init__(rate, count=count)
        if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
            raise InvalidInput(f"A mean is finite, and a std too and not negative; not {mean} and {std}.")
        self.mean = mean
        self.std = std

    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        require_real(old.dtype)
        drawn = torch.randn(len(old), dtype=torch.float64, generator=generator)
        return rounded(self.mean + self.std * drawn, old.dtype)
