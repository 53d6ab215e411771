"""Survivors scaled up for the missing ones, as dropout does."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.repairers import Record, Repairer


class RescaledZero(Repairer):
    """Zero-fill, with the survivors divided by the share that survived, so that sums keep their expected size.

    The one repairer that breaks the contract and changes known weights (Srivastava et al. 2014, "Dropout", section 5,
    in reverse); a row of tables, not a repair to ship: it cannot be told apart from damage, and applying it twice
    scales twice. No bytes.
    """

    def restore(
        self, weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        filled = super().restore(weight, known, record)
        if not filled.numel():
            return filled
        values = filled.to(torch.promote_types(filled.dtype, torch.float32))
        share = known.double().mean().clamp_min(1 / known.numel()).to(values)
        limit = torch.finfo(filled.dtype).max
        return (values / share).clamp(-limit, limit).to(filled.dtype)

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        return visible
