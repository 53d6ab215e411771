"""Missing weights become the mean of the known ones."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.repairers.base import Record, Repairer, known_mean


class MeanFill(Repairer):
    """Fills with the mean of the known weights of the tensor, 0 if none is known. No bytes."""

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        return torch.where(known, visible, known_mean(visible, known))
