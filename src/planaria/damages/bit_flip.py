"""Flipped bits, as radiation and worn memory leave them."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from planaria.damages.base import ScatteredDamage
from planaria.errors import InvalidInput

Field = Literal["all", "sign", "exponent", "mantissa", "msb"]
MANTISSA_BITS = {
    torch.float64: 52,
    torch.float32: 23,
    torch.float16: 10,
    torch.bfloat16: 7,
    torch.float8_e4m3fn: 3,
    torch.float8_e4m3fnuz: 3,
    torch.float8_e5m2: 2,
    torch.float8_e5m2fnuz: 2,
}


class BitFlip(ScatteredDamage):
    """Flips bits drawn uniformly, without replacement, among all allowed bits of the tensor or model.

    Args:
        rate: probability of each allowed bit to flip, in [0, 1].
        count: how many bits flip, instead of a rate; over all tensors together.
        bits: "all"; "msb", the top bit, which is the sign of floats and signed integers; "sign", "exponent" or
            "mantissa", for floats only; or positions, 0 being the lowest bit. A bool has bit 0 alone.

    Two flips may hit one weight, which the faults then list once.

    Cost: memory for the flips, not for all bits.

    Raises:
        InvalidInput: as `ScatteredDamage` does, and on unknown, repeated, negative or no bits; when applied, if a
            tensor's dtype lacks the bits.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None, bits: Field | Sequence[int] = "all"):
        super().__init__(rate, count=count)
        if isinstance(bits, str):
            if bits not in get_args(Field):
                raise InvalidInput(f"Unknown bits {bits!r}. They are {', '.join(get_args(Field))}, or positions.")
        elif len(bits) == 0 or min(bits) < 0 or len(set(bits)) < len(bits):
            raise InvalidInput(f"Positions of bits are 0 or more, each named once, at least one; not {list(bits)}.")
        self.bits = bits if isinstance(bits, str) else tuple(bits)

    def _places(self, dtype: torch.dtype) -> int:
        return len(self._allowed(dtype))

    def _broken(
        self,
        old: Integer[Tensor, " weights"],
        owner: Int64[Tensor, " struck"],
        place: Int64[Tensor, " struck"],
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> Integer[Tensor, " weights"]:
        masks = torch.ones((), dtype=torch.int64) << torch.tensor(self._allowed(dtype))
        # The flips of one weight are different bits, so their sum is their union.
        flips = torch.zeros(len(old), dtype=torch.int64).index_add(0, owner, masks[place])
        return old ^ flips.to(old.dtype)

    def _allowed(self, dtype: torch.dtype) -> Sequence[int]:
        width = 1 if dtype == torch.bool else 8 * dtype.itemsize
        if self.bits == "all":
            return range(width)
        if self.bits == "msb":
            return [width - 1]
        if not isinstance(self.bits, str):
            if max(self.bits) >= width:
                raise InvalidInput(
                    f"{dtype} has bits 0 to {width - 1} and no bit {max(self.bits)}. Name others, or leave such "
                    "tensors out."
                )
            return self.bits
        if dtype not in MANTISSA_BITS:
            raise InvalidInput(
                f'{dtype} is no float and has no {self.bits} bits. Flip "all", "msb" or positions, or leave such '
                "tensors out."
            )
        mantissa = MANTISSA_BITS[dtype]
        return {"sign": [width - 1], "exponent": range(mantissa, width - 1), "mantissa": range(mantissa)}[self.bits]

    def __repr__(self) -> str:
        return f"BitFlip(rate={self.rate}, count={self.count}, bits={self.bits!r})"
