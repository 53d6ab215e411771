"""Missing weights become 0."""

from jaxtyping import Bool, Float
from torch import Tensor

from planaria.repairers import Record, Repairer


class ZeroFill(Repairer):
    """Fills with 0: what a network sees when lost memory reads as zeros. No bytes."""

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        return visible
