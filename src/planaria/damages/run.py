"""One run of bytes that is lost, as a bad sector or a failed read leaves it."""

from typing import Literal

import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor

from planaria.damages.base import JointDamage, drawn_without_replacement
from planaria.errors import InvalidInput


class Run(JointDamage):
    """Replaces neighbouring bytes, from a byte drawn uniformly; a run may start or end within a weight.

    A model's tensors lie end to end in the mapping's order, and the run may cross from one into the next. The faults
    list only weights whose bits changed.

    Args:
        bytes: length of the run, 1 or more; what is shorter is replaced whole.
        fill: "random" bytes (a bool gets random truth) or "zero" bytes.

    Raises:
        InvalidInput: on a length below 1 or an unknown fill.
    """

    def __init__(self, bytes: int, *, fill: Literal["random", "zero"] = "random"):
        if bytes < 1:
            raise InvalidInput(f"A run has 1 or more bytes, not {bytes}.")
        if fill not in ("random", "zero"):
            raise InvalidInput(f"Unknown fill {fill!r}. Fills are: random, zero.")
        self.bytes = bytes
        self.fill = fill

    def _places(self, dtype: torch.dtype) -> int:
        return dtype.itemsize

    def _drawn(self, total: int, generator: torch.Generator) -> Int64[Tensor, " struck"]:
        length = min(self.bytes, total)
        start = int(drawn_without_replacement(1, total - length + 1, generator))
        return torch.arange(start, start + length)

    def _broken(
        self,
        old: Integer[Tensor, " weights"],
        owner: Int64[Tensor, " struck"],
        place: Int64[Tensor, " struck"],
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> Integer[Tensor, " weights"]:
        new = old.clone()
        fill = (
            random_bytes(len(place), dtype, generator) if self.fill == "random" else torch.zeros(1, dtype=torch.uint8)
        )
        new.view(torch.uint8)[owner * dtype.itemsize + place] = fill
        return new

    def __repr__(self) -> str:
        return f"Run({self.bytes}, fill={self.fill!r})"


def random_bytes(count: int, dtype: torch.dtype, generator: torch.Generator) -> UInt8[Tensor, " {count}"]:
    """Random bytes for weights of `dtype`: a bool's byte is 0 or 1, as torch expects."""
    return torch.randint(2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
