"""The contract of a repairer."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.records import Record as Record


class Repairer(ABC):
    """Fills the missing weights of a tensor.

    `prepare` looks at the intact tensor and answers with a record; `restore` is handed the damaged tensor, the known
    mask and that record. What a missing weight holds is never looked at: it may be NaN. Known weights come back bit for
    bit. Results are finite, have the weight's shape and dtype, and are the same for the same input.

    Subclasses implement `_fill`, and `_prepare` if they note anything. Both get clean float32 (or float64) tensors.
    """

    def prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        """Notes what `restore` will need. Raises `InvalidInput` on a weight that is not floating-point and finite.

        Here and in `restore`, finite means in float32: larger float64 weights are refused too.
        """
        _require_float(weight)
        _require_finite(weight, torch.ones_like(weight, dtype=torch.bool))
        return self._prepare(_working(weight))

    def restore(
        self, weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        """A repaired copy of `weight`. Nothing known and everything known are both legal.

        Raises:
            InvalidInput: if shapes differ, `known` is not bool, `weight` is not floating-point, or a known weight is
                NaN or infinite.
        """
        if weight.shape != known.shape:
            raise InvalidInput(
                f"weight has shape {tuple(weight.shape)} and known {tuple(known.shape)}; make them equal."
            )
        if known.dtype != torch.bool:
            raise InvalidInput(f"known is a bool tensor, not {known.dtype}.")
        _require_float(weight)
        _require_finite(weight, known)
        if known.all():
            return weight.clone()
        visible = torch.where(known, _working(weight), 0.0)
        limit = torch.finfo(weight.dtype).max
        filled = self._fill(visible, known, record).clamp(-limit, limit).to(weight.dtype)
        return torch.where(known, weight, filled)

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        return Record()

    @abstractmethod
    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        """The whole tensor with missing weights filled; `visible` is 0 where missing."""


def _working(weight: Tensor) -> Tensor:
    """Half precisions are computed in float32."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def _require_float(weight: Tensor) -> None:
    if not weight.is_floating_point():
        raise InvalidInput(f"A repairer takes floating-point weights, not {weight.dtype}. Dequantise them first.")


def _require_finite(weight: Tensor, known: Tensor) -> None:
    broken = known & ~weight.float().isfinite()
    if broken.any():
        flat = int(broken.flatten().int().argmax())
        place = tuple(int(axis) for axis in torch.unravel_index(torch.tensor(flat), weight.shape))
        raise InvalidInput(
            f"{int(broken.sum())} of {math.prod(weight.shape)} weights are marked known but not finite in float32, the "
            f"first "
            f"({weight.flatten()[flat].item()}) at {place}. Mark them as missing."
        )
