"""Flipped bits that lie side by side."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from planaria.damages.base import ScatteredDamage
from planaria.damages.bits import flipped, width
from planaria.damages.faults import Faults
from planaria.damages.sampling import drawn_without_replacement
from planaria.errors import InvalidInput


class BurstFlip(ScatteredDamage):
    """Flips stretches of consecutive bits: the multi-bit burst fault of PVF (Jiao et al. 2024, arXiv 2405.01741).

    A model's bits lie end to end in the mapping's order, the lowest of a weight first. A burst may start and end within
    a weight, and may cross from one tensor into the next; two bursts share no bit. All placements are equally likely.

    Args:
        length: bits of a burst, 1 or more; a longer one than all bits together has no place.
        rate: share of the bits that bursts flip, on average, in [0, 1].
        count: how many bursts, instead of a rate; over all tensors together.

    Cost: memory for the flipped bits.

    Raises:
        InvalidInput: as `ScatteredDamage` does, and on a length below 1; when applied, if `count` bursts find no room.
    """

    def __init__(self, rate: float | None = None, *, length: int, count: int | None = None):
        super().__init__(rate, count=count)
        if length < 1:
            raise InvalidInput(f"A burst flips 1 or more bits, not {length}.")
        self.length = length

    def _size(self, weight: Tensor) -> int:
        return weight.numel() * width(weight.dtype)

    def _struck(self, sizes: Sequence[int], generator: torch.Generator) -> Iterable[Tensor]:
        total = sum(sizes)
        bursts = self._scatter.number(total // self.length, generator)
        # Bursts that share no bit are as many single bits of a row from which all others of each burst were taken out.
        starts = drawn_without_replacement(bursts, total - bursts * (self.length - 1), generator)
        starts += (self.length - 1) * torch.arange(bursts)
        bits = (starts[:, None] + torch.arange(self.length)).flatten()
        ends = torch.tensor(sizes, dtype=torch.int64).cumsum(0)
        for size, end in zip(sizes, ends.tolist(), strict=True):
            first, last = torch.searchsorted(bits, torch.tensor([end - size, end])).tolist()
            yield bits[first:last] - (end - size)

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        return flipped(weight, struck, range(width(weight.dtype)))
