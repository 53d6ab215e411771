"""Weights whose every bit is random."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.byte_damage import random_bytes
from planaria.damages.weight_damage import WeightDamage
from planaria.dtypes import integers


class WholeWeight(WeightDamage):
    """Gives weights, drawn uniformly without replacement, random bits, as a lost and reused memory word
    has: any but those they held. Bools flip.

    Args:
        rate, count: as of `WeightDamage`.
    """

    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        before, after = integers(old), integers(old).clone()
        while (same := after == before).any():
            content = random_bytes(int(same.sum()) * old.element_size(), old.dtype, generator)
            after[same] = content.view(before.dtype)
        return after.view(old.dtype)
