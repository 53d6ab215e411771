"""What the bits of weights are called, and how they are flipped."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from planaria.damages import kernels
from planaria.damages.base import ScatteredDamage
from planaria.damages.faults import Faults
from planaria.dtypes import DTYPES, integers, torch_dtypes
from planaria.errors import InvalidInput

Field = Literal["all", "sign", "exponent", "mantissa", "msb"]
MANTISSA_BITS = {
    dtype: mantissa for name, dtype in torch_dtypes().items() if (mantissa := DTYPES[name].mantissa) is not None
}


class BitDamage(ScatteredDamage):
    """Strikes bits drawn uniformly, without replacement, among all allowed bits of the tensor or model.

    Args:
        rate: probability of each allowed bit to be struck, in [0, 1].
        count: how many bits are struck, instead of a rate; over all tensors together.
        bits: "all"; "msb", the top bit, which is the sign of floats and signed integers; "sign", "exponent" or
            "mantissa", for floats only; or positions, 0 being the lowest bit. A bool has bit 0 alone.

    Raises:
        InvalidInput: as `ScatteredDamage` does, and on unknown, repeated, negative or no bits; when applied, if a
            tensor's dtype lacks the bits.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None, bits: Field | Sequence[int] = "all"):
        super().__init__(rate, count=count)
        self.bits = known_bits(bits)

    def _size(self, weight: Tensor) -> int:
        return weight.numel() * len(self._allowed(weight.dtype))

    def _allowed(self, dtype: torch.dtype) -> Sequence[int]:
        return positions_of(self.bits, dtype)


def known_bits(bits: Field | Sequence[int]) -> Field | tuple[int, ...]:
    """The same bits, kept. Raises `InvalidInput` on unknown, repeated, negative or no bits."""
    if isinstance(bits, str):
        if bits not in get_args(Field):
            raise InvalidInput(f"Unknown bits {bits!r}. They are {', '.join(get_args(Field))}, or positions.")
        return bits
    if len(bits) == 0 or min(bits) < 0 or len(set(bits)) < len(bits):
        raise InvalidInput(f"Positions of bits are 0 or more, each named once, at least one; not {list(bits)}.")
    return tuple(bits)


def positions_of(bits: Field | Sequence[int], dtype: torch.dtype) -> Sequence[int]:
    """Where such bits of a weight of `dtype` are, the lowest at 0. Raises `InvalidInput` if it lacks them."""
    top = width(dtype) - 1
    if bits == "all":
        return range(top + 1)
    if bits == "msb":
        return [top]
    if not isinstance(bits, str):
        if max(bits) > top:
            raise InvalidInput(
                f"{dtype} has bits 0 to {top} and no bit {max(bits)}. Name others, or leave such tensors out."
            )
        return bits
    if dtype not in MANTISSA_BITS:
        raise InvalidInput(
            f'{dtype} is no float and has no {bits} bits. Name "all", "msb" or positions, or leave such tensors out.'
        )
    mantissa = MANTISSA_BITS[dtype]
    return {"sign": [top], "exponent": range(mantissa, top), "mantissa": range(mantissa)}[bits]


def width(dtype: torch.dtype) -> int:
    """How many bits of a weight may change: all, but one of a bool."""
    return 1 if dtype == torch.bool else 8 * dtype.itemsize


def words(weight: Shaped[Tensor, "*weight"]) -> np.ndarray:
    """The weights' bits as unsigned integers, one after the other; on the CPU."""
    flat = integers(weight.detach().reshape(-1)).cpu().numpy()
    return flat.view(f"u{flat.itemsize}")


def flipped(weight: Shaped[Tensor, "*weight"], struck: Int64[Tensor, " struck"], positions: Sequence[int]) -> Faults:
    """Flips bits of a tensor: struck place p is bit positions[p % len(positions)] of weight p // len(positions).

    Places are ascending and unique. Two flips may hit one weight, which the faults list once.
    """
    index, old, new = blank_faults(weight, len(struck))
    allowed = np.array(positions, dtype=np.int64)
    return listed(weight, index, old, new, kernels.flip(words(weight), struck.numpy(), allowed, index, old, new))


def blank_faults(weight: Tensor, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for so many faults: index, old and new. NumPy's memory, as it asks for large pages."""
    word = f"u{weight.element_size()}"
    return np.empty(size, dtype=np.int64), np.empty(size, dtype=word), np.empty(size, dtype=word)


def listed(weight: Tensor, index: np.ndarray, old: np.ndarray, new: np.ndarray, count: int) -> Faults:
    """The first `count` of these as faults of the weight, on its device."""
    return Faults(
        shape=tuple(weight.shape),
        index=torch.from_numpy(index[:count]).to(weight.device),
        old=torch.from_numpy(old[:count]).view(weight.dtype).to(weight.device),
        new=torch.from_numpy(new[:count]).view(weight.dtype).to(weight.device),
    )
