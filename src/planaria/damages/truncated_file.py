"""A file that was cut short and padded."""

import torch
from jaxtyping import Int64
from torch import Tensor

from planaria.damages.byte_damage import ByteDamage
from planaria.damages.sampling import few_without_replacement
from planaria.errors import InvalidInput


class TruncatedFile(ByteDamage):
    """Zeroes the model's bytes, its tensors laid end to end, from a point on: a download that stopped in a full-size
    file, whose readers see nothing amiss.

    Args:
        kept: share of the bytes before that point, in [0, 1], rounded to a whole byte; drawn uniformly if left out.

    Raises:
        InvalidInput: on a share outside [0, 1].
    """

    def __init__(self, kept: float | None = None):
        if kept is not None and not 0 <= kept <= 1:
            raise InvalidInput(f"The kept share of a file lies in [0, 1], not {kept}.")
        super().__init__(fill="zero")
        self.kept = kept

    def _lost(self, total: int, generator: torch.Generator) -> Int64[Tensor, "stretches 2"]:
        drawn = int(few_without_replacement(1, total + 1, generator))
        return torch.tensor([[drawn if self.kept is None else round(self.kept * total), total]])
