"""Bits that hold one value whatever is written."""

from collections.abc import Sequence

import torch
from torch import Tensor

from planaria.damages.bits import BitDamage, Field, flipped
from planaria.damages.faults import Faults
from planaria.dtypes import integers
from planaria.errors import InvalidInput


class StuckAt(BitDamage):
    """Gives bits, drawn uniformly without replacement, one value; those that held it change nothing and are not listed.

    So do broken memory cells. Rate and count are of every bit that is stuck, whether it shows or not.

    Args:
        value: 0 or 1.
        rate, count, bits: as of `BitDamage`.

    Raises:
        InvalidInput: as `BitDamage` does, and on another value.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        value: int,
        count: int | None = None,
        bits: Field | Sequence[int] = "all",
    ):
        super().__init__(rate, count=count, bits=bits)
        if value not in (0, 1):
            raise InvalidInput(f"A bit is stuck at 0 or 1, not {value}.")
        self.value = value

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        flips = flipped(weight, struck, self._allowed(weight.dtype))
        old, new = integers(flips.old), integers(flips.new)
        stuck = old | new if self.value == 1 else old & new  # a struck bit is set in one of both, and unset in one
        changed = stuck != old
        return Faults(
            shape=flips.shape,
            index=flips.index[changed],
            old=old[changed].view(weight.dtype),
            new=stuck[changed].view(weight.dtype),
        )
