"""One run of bytes that is lost."""

import torch
from jaxtyping import Int64
from torch import Tensor

from planaria.damages.byte_damage import ByteDamage, Fill
from planaria.damages.sampling import few_without_replacement
from planaria.errors import InvalidInput


class Run(ByteDamage):
    """Replaces neighbouring bytes, from a byte drawn uniformly, as a bad sector or a failed read does.

    The faults list only weights whose bits changed.

    Args:
        bytes: length of the run, 1 or more; what is shorter is replaced whole.
        fill: as of `ByteDamage`.

    Raises:
        InvalidInput: on a length below 1 or an unknown fill.
    """

    def __init__(self, bytes: int, *, fill: Fill = "random"):
        if bytes < 1:
            raise InvalidInput(f"A run has 1 or more bytes, not {bytes}.")
        super().__init__(fill=fill)
        self.bytes = bytes

    def _lost(self, total: int, generator: torch.Generator) -> Int64[Tensor, "stretches 2"]:
        length = min(self.bytes, total)
        start = int(few_without_replacement(1, total - length + 1, generator))
        return torch.tensor([[start, start + length]])
