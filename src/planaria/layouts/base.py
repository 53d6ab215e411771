"""The contract of a layout."""

from abc import ABC, abstractmethod

from jaxtyping import Shaped
from torch import Tensor

from planaria.errors import InvalidInput


class Layout(ABC):
    """How a weight tensor becomes grids of cells and back: `from_grid(to_grid(w), w.shape)` is `w` bit for bit.

    A grid has shape `(batch, *space)`; each item of the batch is repaired on its own. Both directions are views where
    PyTorch allows it, work for any dtype, and carry masks as well as weights.
    """

    @abstractmethod
    def to_grid(self, weight: Shaped[Tensor, "*weight"]) -> Shaped[Tensor, "batch *space"]:
        """The tensor as grids. Raises `InvalidInput` if the tensor does not fit the layout."""

    @abstractmethod
    def from_grid(self, grid: Shaped[Tensor, "batch *space"], shape: tuple[int, ...]) -> Shaped[Tensor, "*weight"]:
        """The tensor of `shape` whose grid this is."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Spatial dimensions of the grids."""


def require_rank(weight: Tensor, rank: int, layout: str) -> None:
    """Raises `InvalidInput` unless `weight` has `rank` dimensions."""
    if weight.dim() != rank:
        raise InvalidInput(
            f"The {layout} layout takes a weight of {rank} dimensions, not one of shape {tuple(weight.shape)}."
        )
