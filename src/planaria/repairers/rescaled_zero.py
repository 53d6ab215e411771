"""Survivors scaled up for the missing ones, as dropout does."""

from jaxtyping import Bool, Float
from torch import Tensor

from planaria.repairers.base import Record, Repairer


class RescaledZero(Repairer):
    """Zero-fill, with the survivors divided by the share that survived, so that sums keep their expected size.

    The one repairer that changes known weights (Srivastava et al. 2014, "Dropout", section 5, in reverse); a row of
    tables, not a repair to ship: it cannot be told apart from damage, and applying it twice scales twice. No bytes.
    """

    keeps_known = False

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        return visible / known.double().mean().clamp_min(1 / known.numel()).to(visible)
