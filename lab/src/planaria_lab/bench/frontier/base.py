"""What is compared: networks that lose weights, and methods that keep a few bytes to restore them with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria_lab.bench.frontier.tuning import Judge

RATES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Shares of weights lost. A method that plans for no rate in particular plans for all of these alike."""

Weights = Mapping[str, Float[Tensor, "..."]]
Masks = Mapping[str, Bool[Tensor, "..."]]
Moments = Mapping[str, Float[Tensor, "inputs inputs"]]
Spaces = Mapping[str, tuple[int, ...]]


class SideMemory(Protocol):
    """What a method kept beside the weights."""

    @property
    def nbytes(self) -> int:
        """All of it: values, positions, scales, codebooks, plans."""
        ...

    def restore(self, damaged: Weights, known: Masks) -> dict[str, Tensor]:
        """Whole tensors, known weights bit for bit. What a missing weight holds is not looked at."""
        ...


@dataclass(frozen=True)
class FrontierEstimate:
    """A memory that knows an estimate of every weight, whatever survives. Without one, a weight becomes 0."""

    nbytes: int
    values: Mapping[str, Tensor]

    def restore(self, damaged: Weights, known: Masks) -> dict[str, Tensor]:
        return {
            name: torch.where(known[name], tensor, self.values[name].to(tensor) if name in self.values else 0.0)
            for name, tensor in damaged.items()
        }


@dataclass(frozen=True, eq=False)
class FrontierSubject:
    """An intact network.

    Attributes:
        weights: the tensors that lose weights, float32.
        evaluate: from such tensors to the metrics by name; higher is better.
        metric: the one that figures show.
        judge: from such tensors to how like the intact network's outputs are; higher is better. Like `moments` it is of
            calibration data, which `evaluate` never sees.
        moments: second moments of each tensor's layer inputs.
        spaces: the spatial axes that a tensor's inputs end with, where there are any.
    """

    name: str
    weights: dict[str, Tensor]
    evaluate: Callable[[Weights], dict[str, float]]
    metric: str
    judge: Judge
    moments: dict[str, Tensor]
    spaces: dict[str, tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.weights.values())
