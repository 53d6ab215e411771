"""The masks that the referee draws: what a hardware test would say, right or not."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planaria.dtypes import integers
from referee.source import Source
from referee.subjects import Tensors

KINDS = {"none": 5.0, "right": 2.5, "partly wrong": 1.6, "some tensors": 0.8, "upside down": 0.1}


@dataclass(frozen=True)
class Mask:
    """What is known good, by tensor; None for no mask. A tensor that it does not name counts as good."""

    kind: str
    known: dict[str, Tensor] | None
    as_numpy: bool = False

    def given(self) -> dict[str, Tensor] | dict[str, np.ndarray] | None:
        """As it is handed over."""
        if self.known is None or not self.as_numpy:
            return self.known
        return {name: mask.numpy() for name, mask in self.known.items()}

    def good(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """By weight, in a line: whether the mask marks it good. None for no mask."""
        if self.known is None:
            return None
        return (self.known[name] if name in self.known else torch.ones(shape, dtype=torch.bool)).flatten().numpy()


def draw_mask(source: Source, intact: Tensors, damaged: Tensors) -> Mask:
    kind = source.weighted(KINDS)
    if kind == "none":
        return Mask(kind, None)
    known = {name: ~_struck(intact[name], damaged[name]) for name in intact}
    if kind == "partly wrong":
        missed, blamed = (source.magnitude(1e-3, 0.5) if source.chance(0.7) else 0.0 for _ in range(2))
        blamed = min(blamed, 0.2)
        known = {
            name: (mask | source.mask(mask.shape, missed)) & ~(mask & source.mask(mask.shape, blamed))
            for name, mask in known.items()
        }
    elif kind == "some tensors":
        known = {name: mask for name, mask in known.items() if source.chance(0.6)}
    elif kind == "upside down":
        known = {name: ~mask for name, mask in known.items()}
    return Mask(kind, known, as_numpy=source.chance(0.08))


def _struck(intact: Tensor, damaged: Tensor) -> Tensor:
    one, other = (integers(tensor.contiguous()) for tensor in (intact, damaged))
    return one != other
