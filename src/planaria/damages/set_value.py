"""Weights that hold one value."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.weight_damage import WeightDamage, filled


class SetValue(WeightDamage):
    """Gives weights, drawn uniformly without replacement, one value, as MRFI does (Huang et al., TVLSI 2024).

    Args:
        value: what they hold; not a number is allowed.
        rate, count: as of `WeightDamage`.

    Raises:
        InvalidInput: as `WeightDamage` does; when applied, if a tensor's dtype cannot hold the value.
    """

    def __init__(self, rate: float | None = None, *, value: float, count: int | None = None):
        super().__init__(rate, count=count)
        self.value = value

    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        return filled(old, self.value)
