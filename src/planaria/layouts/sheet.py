"""One grid per neuron over the spatial axes of its input: a neuron's weights are an image."""

import math

from jaxtyping import Shaped
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts.base import Layout, require_rank


class Sheet(Layout):
    """A weight of shape `(out, channels * h * w)` as one grid per neuron over the input's axes.

    Args:
        space: the input's spatial axes, for example `(28, 28)`.
        channels: input channels, outermost in the flattened input as PyTorch flattens images. One channel gives grids
            `(out, *space)`; several stack as depth: `(out, channels, *space)`.
    """

    def __init__(self, space: tuple[int, ...], *, channels: int = 1):
        if not space or min(space) < 1 or channels < 1:
            raise InvalidInput(f"A sheet's axes and channels are at least 1, not {space} and {channels}.")
        self.space = tuple(space)
        self.channels = channels

    def to_grid(self, weight: Shaped[Tensor, "out in"]) -> Shaped[Tensor, "out *space"]:
        require_rank(weight, 2, "sheet")
        inputs = self.channels * math.prod(self.space)
        if weight.shape[1] != inputs:
            raise InvalidInput(
                f"Sheets of {self.channels} x {self.space} take {inputs} inputs a neuron; the weight has shape "
                f"{tuple(weight.shape)}. Give the axes of its input."
            )
        depth = (self.channels,) if self.channels > 1 else ()
        return weight.reshape(weight.shape[0], *depth, *self.space)

    def from_grid(self, grid: Shaped[Tensor, "out *space"], shape: tuple[int, ...]) -> Shaped[Tensor, "out in"]:
        return grid.reshape(shape)

    @property
    def dimensions(self) -> int:
        return len(self.space) + (self.channels > 1)

    def __repr__(self) -> str:
        return f"Sheet({self.space}, channels={self.channels})"
