"""The contract of a damage."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.faults import Faults


class Damage(ABC):
    """A named way to break weights.

    `apply` leaves its input alone and answers with a broken copy and the exact list of what it broke, which replays on
    any copy of the tensor and saves to a file.
    """

    @abstractmethod
    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        """A damaged copy of `weight`, and its faults. The same generator state gives the same faults."""
