"""The exact list of what a damage did to a tensor: replayed, undone, turned into a mask."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from planaria.dtypes import integers
from planaria.errors import InvalidFile, InvalidInput


@dataclass(frozen=True)
class Faults:
    """Which weights of one tensor broke, what they held and what they hold now.

    Attributes:
        shape: of the tensor.
        index: flat positions in it, ascending and unique.
        old: the intact values, bit for bit, in the tensor's dtype.
        new: the broken values.
    """

    shape: tuple[int, ...]
    index: Int64[Tensor, " faults"]
    old: Shaped[Tensor, " faults"]
    new: Shaped[Tensor, " faults"]

    @classmethod
    def none(cls, weight: Shaped[Tensor, "*weight"]) -> "Faults":
        """Those of an intact tensor."""
        few = weight.detach().reshape(-1)[:0]
        return cls(shape=tuple(weight.shape), index=torch.empty(0, dtype=torch.int64).to(few.device), old=few, new=few)

    @classmethod
    def between(cls, weight: Shaped[Tensor, "*weight"], broken: Shaped[Tensor, "*weight"]) -> "Faults":
        """Those that turn a tensor into another one of its shape, dtype and device: where their bits differ."""
        old, new = (integers(tensor.detach().reshape(-1)) for tensor in (weight, broken))
        index = (old != new).nonzero().flatten()
        old, new = (tensor[index].view(weight.dtype) for tensor in (old, new))
        return cls(shape=tuple(weight.shape), index=index, old=old, new=new)

    @property
    def known(self) -> Bool[Tensor, "*weight"]:
        """True where the weight was left intact, on the device of the faults."""
        known = torch.ones(math.prod(self.shape), dtype=torch.bool, device=self.index.device)
        known[self.index] = False
        return known.view(self.shape)

    def replay(self, weight: Shaped[Tensor, "*weight"]) -> Shaped[Tensor, "*weight"]:
        """A copy of `weight` with these faults. Raises `InvalidInput` if shape or dtype differ from the faults'."""
        return self._written(weight, self.new)

    def undo(self, weight: Shaped[Tensor, "*weight"]) -> Shaped[Tensor, "*weight"]:
        """A copy of `weight` with the intact values back in place."""
        return self._written(weight, self.old)

    def _written(self, weight: Tensor, values: Tensor) -> Tensor:
        if tuple(weight.shape) != self.shape or weight.dtype != values.dtype:
            raise InvalidInput(
                f"These faults are of a {values.dtype} tensor of shape {self.shape}; the weight is {weight.dtype} of "
                f"shape {tuple(weight.shape)}."
            )
        copy = _contiguous_copy(weight.detach())
        integers(copy).view(-1)[self.index.to(copy.device)] = integers(values).to(copy.device)
        return copy

    def require_sound(self, source: str) -> None:
        """Raises `InvalidFile`, naming the `source`, unless these faults could be those of a tensor."""
        index = self.index
        count = math.prod(self.shape)
        sound = (
            index.dtype == torch.int64
            and index.dim() == 1
            and index.shape == self.old.shape == self.new.shape
            and self.old.dtype == self.new.dtype
            and all(size >= 0 for size in self.shape)
            and bool((index.diff() > 0).all())
            and (len(index) == 0 or 0 <= int(index[0]) <= int(index[-1]) < count)
        )
        if not sound:
            raise InvalidFile(
                f"{source} is not a sound fault list: positions must be int64, ascending, unique and inside shape "
                f"{self.shape}, with one old and one new value each. Make it again."
            )


def _contiguous_copy(weight: Tensor) -> Tensor:
    if weight.device.type != "cpu" or weight.numel() == 0:
        return weight.clone(memory_format=torch.contiguous_format)
    # NumPy asks for large pages of memory, which come three times as fast.
    memory = np.empty(tuple(weight.shape), dtype=f"i{weight.element_size()}")
    return torch.from_numpy(memory).view(weight.dtype).copy_(weight)
