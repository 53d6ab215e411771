"""Flipped bits: radiation, worn or hammered memory."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from planaria.damages import kernels
from planaria.damages.bits import BitDamage, Field, blank_faults, flipped, listed, words
from planaria.damages.faults import Faults
from planaria.errors import InvalidInput

Direction = Literal["both", "0to1", "1to0"]


class BitFlip(BitDamage):
    """Flips bits, drawn uniformly without replacement among all that may flip: radiation, worn memory, row hammering.

    Floats have the bits of IEEE 754, signed integers those of the two's complement. Two flips may hit one weight, which
    the faults then list once.

    Args:
        rate, count, bits: as of `BitDamage`.
        direction: "0to1" and "1to0" flip only bits that hold the start value, as a hammered cell of DRAM does (Kim et
            al., ISCA 2014): each such bit with probability `rate`, or exactly `count` of them.

    Cost: memory for the flips, not for all bits. About ten nanoseconds a flip; a direction adds about one for each
    weight of the model.

    Raises:
        InvalidInput: as `BitDamage` does, and on an unknown direction.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        count: int | None = None,
        bits: Field | Sequence[int] = "all",
        direction: Direction = "both",
    ):
        super().__init__(rate, count=count, bits=bits)
        if direction not in get_args(Direction):
            raise InvalidInput(f"Unknown direction {direction!r}. Directions are: {', '.join(get_args(Direction))}.")
        self.direction = direction

    def _size(self, weight: Tensor) -> int:
        if self.direction == "both":
            return super()._size(weight)
        return kernels.eligible(words(weight), self._mask(weight), self._start)

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        if self.direction == "both":
            return flipped(weight, struck, self._allowed(weight.dtype))
        index, old, new = blank_faults(weight, len(struck))
        mask = self._mask(weight)
        count = kernels.flip_eligible(words(weight), struck.numpy(), mask, self._start, index, old, new)
        return listed(weight, index, old, new, count)

    def _mask(self, weight: Tensor) -> np.uint64:
        return np.uint64(sum(1 << bit for bit in self._allowed(weight.dtype)))

    @property
    def _start(self) -> int:
        return int(self.direction[0])
