"""Whole tensors of zeros."""

import torch
from torch import Tensor

from planaria.damages.base import ScatteredDamage
from planaria.damages.faults import Faults


class ZeroedTensor(ScatteredDamage):
    """Zeroes all bits of whole tensors, drawn uniformly without replacement from those that are not empty.

    A hole in a file or a shard that was never filled leaves them so. The faults list only weights whose bits changed.

    Args:
        rate: probability of each tensor to be lost, in [0, 1].
        count: how many tensors are lost, instead of a rate.

    Raises:
        InvalidInput: as `ScatteredDamage` does.
    """

    def _size(self, weight: Tensor) -> int:
        return min(weight.numel(), 1)

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        return Faults.between(weight, torch.zeros_like(weight)) if len(struck) else Faults.none(weight)
