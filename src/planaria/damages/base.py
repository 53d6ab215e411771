"""The contract of a damage, and what damages drawn over a whole model share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.faults import Faults
from planaria.damages.model_faults import ModelFaults
from planaria.damages.sampling import Scatter


class Damage(ABC):
    """A named way to break weights.

    `apply` leaves its input alone and answers with a broken copy and the exact list of what it broke, which replays on
    any copy of the tensor and saves to a file. `apply_to_model` lists the faults of all tensors of a model, and makes
    no copies.
    """

    @abstractmethod
    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        """A damaged copy of `weight`, and its faults. The same generator state gives the same faults."""

    def apply_to_model(self, tensors: Mapping[str, Shaped[Tensor, "..."]], generator: torch.Generator) -> ModelFaults:
        """The faults of all tensors. Unless a damage says otherwise, each tensor is broken by itself, in order.

        Cost: memory for the faults and one tensor, if `tensors` loads them one at a time.
        """
        return ModelFaults({name: self.apply(tensors[name], generator)[1] for name in tensors})

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({settings})"


class JointDamage(Damage):
    """Damage drawn over all tensors together, as if laid end to end; one tensor is a model of one.

    Subclasses say how many places (bits, bytes, weights ...) a tensor has, what strikes each tensor, and what a struck
    tensor's faults are.
    """

    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        faults = self.apply_to_model({"weight": weight}, generator).tensors["weight"]
        return faults.replay(weight), faults

    def apply_to_model(self, tensors: Mapping[str, Shaped[Tensor, "..."]], generator: torch.Generator) -> ModelFaults:
        """The faults of all tensors, drawn over them together. Looks each tensor up twice, one at a time."""
        sizes = [self._size(tensors[name]) for name in tensors]
        struck = self._struck(sizes, generator)
        return ModelFaults(
            {name: self._faults(tensors[name], here, generator) for name, here in zip(tensors, struck, strict=True)}
        )

    @abstractmethod
    def _size(self, weight: Tensor) -> int:
        """How many places the tensor has. Raises `InvalidInput` if the damage cannot break it."""

    @abstractmethod
    def _struck(self, sizes: Sequence[int], generator: torch.Generator) -> Iterable[Tensor]:
        """For each tensor, of so many places, what strikes it: on the CPU, wherever the tensors are."""

    @abstractmethod
    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        """The faults of a tensor that is struck so, on its device: only weights whose bits change."""


class ScatteredDamage(JointDamage):
    """Strikes places drawn uniformly, without replacement: each with probability `rate`, or exactly `count` of them.

    Raises:
        InvalidInput: unless one of rate, in [0, 1], and count, not negative, is given; when applied, if there are fewer
            than `count` places.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None):
        self._scatter = Scatter(rate, count)
        self.rate = rate
        self.count = count

    def _struck(self, sizes: Sequence[int], generator: torch.Generator) -> Iterable[Tensor]:
        return self._scatter.struck(sizes, generator)
