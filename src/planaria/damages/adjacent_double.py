"""Two neighbouring bits of one weight."""

import torch
from torch import Tensor

from planaria.damages.base import ScatteredDamage
from planaria.damages.bits import flipped, width
from planaria.damages.faults import Faults
from planaria.errors import InvalidInput


class AdjacentDouble(ScatteredDamage):
    """Flips two neighbouring bits of a weight, as NVBitFI does in a register (Tsai et al., DSN 2021).

    The weights are drawn uniformly, without replacement, and so is the pair of bits in each. A burst of two bits may
    instead straddle two weights, and may hit a weight again.

    Args:
        rate: probability of each weight to be hit, in [0, 1].
        count: how many weights are hit, instead of a rate; over all tensors together.

    Raises:
        InvalidInput: as `ScatteredDamage` does; when applied, on bools, which have one bit.
    """

    def _size(self, weight: Tensor) -> int:
        if width(weight.dtype) < 2:
            raise InvalidInput(f"{weight.dtype} has no two neighbouring bits. Leave such tensors out.")
        return weight.numel()

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        bits = width(weight.dtype)
        lower = struck * bits + torch.randint(bits - 1, (len(struck),), generator=generator)
        return flipped(weight, torch.stack([lower, lower + 1], dim=1).flatten(), range(bits))
