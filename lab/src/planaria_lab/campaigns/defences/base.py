"""The contract of a defence."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from planaria.guard.report import VERDICTS

Tensors = Mapping[str, Shaped[Tensor, "..."]]
Masks = Mapping[str, Bool[Tensor, "..."]]


@dataclass(frozen=True)
class Restored:
    """A model after a defence did what it could.

    Attributes:
        tensors: all of the model's.
        verdicts: what the defence says of each weight, as a place in `planaria.guard.report.VERDICTS`: 0 is intact.
            Tensors that are left out are said to be intact.
        scores: how much a weight looks damaged, for defences that tell; higher is worse.
        refused: whether the defence says that this is another model rather than a damaged one, and left it as it is.
    """

    tensors: Tensors
    verdicts: Mapping[str, UInt8[Tensor, "..."]] = field(default_factory=dict)
    scores: Mapping[str, Float[Tensor, "..."]] = field(default_factory=dict)
    refused: bool = False


class Protection(ABC):
    """What a defence noted about an intact model."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """All that it has to keep."""

    @property
    def file(self) -> bytes | None:
        """What it keeps in a file beside the model, where an attacker may write it; None if it keeps none."""
        return None

    def reading(self, file: bytes) -> "Protection":
        """The same defence after its file was replaced by this one, of any bytes."""
        return self

    @abstractmethod
    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        """The best that can be made of a damaged model, whose tensors stay as they are.

        Args:
            tensors: of the names, shapes and types of the intact ones.
            known: True where a weight is known to be good; None if nobody says.
        """


class Defence(ABC):
    """A way to protect a model. Never sees labels, inputs, or which damage is to come."""

    told: ClassVar[bool] = False
    """Whether it is told which weights are damaged, as a memory test would."""

    @abstractmethod
    def prepare(self, tensors: Tensors) -> Protection:
        """Notes what it needs of the intact model."""


def verdict(mask: Bool[Tensor, "*weight"], of: str) -> UInt8[Tensor, "*weight"]:
    """Verdict `of` where the mask is True, else "intact"."""
    return mask.to(torch.uint8) * VERDICTS.index(of)
