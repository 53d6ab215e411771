"""The matrix itself as one grid, rows by columns: the talk's layout."""

from jaxtyping import Shaped
from torch import Tensor

from planaria.layouts.base import Layout, require_rank


class Flat(Layout):
    """A weight of shape `(out, in)` as one grid `(1, out, in)`: row = output neuron, column = input neuron."""

    def to_grid(self, weight: Shaped[Tensor, "out in"]) -> Shaped[Tensor, "1 out in"]:
        require_rank(weight, 2, "flat")
        return weight.unsqueeze(0)

    def from_grid(self, grid: Shaped[Tensor, "1 out in"], shape: tuple[int, ...]) -> Shaped[Tensor, "out in"]:
        return grid.reshape(shape)

    @property
    def dimensions(self) -> int:
        return 2

    def __repr__(self) -> str:
        return "Flat()"
