"""One grid per neuron over the spatial axes of its input: a neuron's weights are an image."""

import math

from jaxtyping import Shaped
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts.base import Layout, require_rank


class Sheet(Layout):
    """A weight of shape `(out, h * w)` as one grid `(out, *space)`, a neuron each, over the input's axes.

    Args:
        space: the input's axes, for example `(28, 28)`, or `(3, 28, 28)` where channels are one, outermost as PyTorch
            flattens images.
    """

    def __init__(self, space: tuple[int, ...]):
        if not space or min(space) < 1:
            raise InvalidInput(f"A sheet's axes are at least 1, not {space}.")
        self.space = tuple(space)

    def to_grid(self, weight: Shaped[Tensor, "out in"]) -> Shaped[Tensor, "out *space"]:
        require_rank(weight, 2, "sheet")
        inputs = math.prod(self.space)
        if weight.shape[1] != inputs:
            raise InvalidInput(
                f"Sheets of {self.space} take {inputs} inputs a neuron; the weight has shape {tuple(weight.shape)}. "
                "Give the axes of its input."
            )
        return weight.reshape(weight.shape[0], *self.space)

    def from_grid(self, grid: Shaped[Tensor, "out *space"], shape: tuple[int, ...]) -> Shaped[Tensor, "out in"]:
        return grid.reshape(shape)

    @property
    def dimensions(self) -> int:
        return len(self.space)

    def __repr__(self) -> str:
        return f"Sheet({self.space})"
