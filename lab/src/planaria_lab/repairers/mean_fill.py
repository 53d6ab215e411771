"""Missing weights become the mean of the known ones."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.repairers import Record, Repairer


class MeanFill(Repairer):
    """Fills with the mean of the known weights of the tensor, 0 if none is known. No bytes."""

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        return torch.where(known, visible, known_mean(visible, known))


def known_mean(visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"]) -> Float[Tensor, ""]:
    """Mean of the known weights; 0 if there are none. `visible` is 0 where missing."""
    # Divided before it is summed, and in float64: no sum of finite weights overflows.
    return (visible.double() / known.sum().clamp_min(1)).sum().to(visible)
