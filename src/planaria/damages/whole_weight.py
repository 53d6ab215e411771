"""Weights whose every bit is random, as a lost and reused memory word leaves them."""

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from planaria.damages.base import ScatteredDamage
from planaria.damages.run import random_bytes


class WholeWeight(ScatteredDamage):
    """Gives weights, drawn uniformly without replacement, random bits: any but those they held. Bools flip.

    Args:
        rate: probability of each weight to break, in [0, 1].
        count: how many weights break, instead of a rate; over all tensors together.

    Raises:
        InvalidInput: as `ScatteredDamage` does.
    """

    def _places(self, dtype: torch.dtype) -> int:
        return 1

    def _broken(
        self,
        old: Integer[Tensor, " weights"],
        owner: Int64[Tensor, " struck"],
        place: Int64[Tensor, " struck"],
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> Integer[Tensor, " weights"]:
        new = old.clone()
        while (same := new == old).any():
            new[same] = random_bytes(int(same.sum()) * dtype.itemsize, dtype, generator).view(old.dtype)
        return new
