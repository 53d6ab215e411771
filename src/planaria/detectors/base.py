"""The contract of a detector."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.records import Record


class Detector(ABC):
    """Finds the damaged weights of a tensor.

    `prepare` looks at the intact tensor and answers with a record, all of which counts as guard bytes; `find` is handed
    the damaged tensor and that record. On the intact tensor `find` raises no false alarm, or at most the share of
    weights that the detector was told to allow. Any shape is taken, empty and 0-dimensional ones included. Neither
    method writes to what it is given, and the same input has the same answer.

    Detectors take finite floating-point weights. They always find NaN, infinity and whatever lies outside the intact
    range; a damage that stays among plausible values they may miss.
    """

    @abstractmethod
    def prepare(self, weight: Shaped[Tensor, "*weight"]) -> Record:
        """Notes what `find` will need. Raises `InvalidInput` on a weight that the detector does not take."""

    def find(
        self,
        weight: Shaped[Tensor, "*weight"],
        record: Record,
        *,
        suspect: Bool[Tensor, "*weight"] | None = None,
    ) -> Bool[Tensor, "*weight"]:
        """The known mask: True where a weight is trusted.

        Args:
            weight: the damaged tensor, of the shape and dtype that `prepare` saw.
            record: what `prepare` noted.
            suspect: only these may be named damaged, if given; the others are proven intact by other means.

        Raises:
            InvalidInput: if `suspect` is not a bool tensor of the weight's shape, the record is of another detector or
                tensor, or the weight has a dtype that the detector does not take.
        """
        if suspect is None:
            suspect = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
        if suspect.shape != weight.shape or suspect.dtype != torch.bool:
            raise InvalidInput(
                f"suspect is a bool tensor of the weight's shape {tuple(weight.shape)}, not {suspect.dtype} of "
                f"{tuple(suspect.shape)}."
            )
        if weight.numel() == 0:
            return suspect.clone()
        return ~(self._damaged(weight.detach(), record, suspect) & suspect)

    @abstractmethod
    def _damaged(
        self, weight: Shaped[Tensor, "*weight"], record: Record, suspect: Bool[Tensor, "*weight"]
    ) -> Bool[Tensor, "*weight"]:
        """True where damage was found; what is not suspect is taken off by `find`."""


def checked_rate(rate: float) -> float:
    """The rate itself. Raises `InvalidInput` unless 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise InvalidInput(f"The rate of false alarms is at least 0 and below 1, not {rate}.")
    return rate


def working(weight: Shaped[Tensor, "*weight"]) -> Float[Tensor, "*weight"]:
    """Floating-point weights as float32, float64 left as it is. Raises `InvalidInput` on any other dtype."""
    if not weight.is_floating_point():
        raise InvalidInput(
            f"A detector takes floating-point weights, not {weight.dtype}. Digests find damage in any dtype."
        )
    return weight.detach().to(torch.float64 if weight.dtype == torch.float64 else torch.float32)


def intact_range(weight: Float[Tensor, "*weight"]) -> Float[Tensor, "2"]:
    """Lowest and highest weight of a tensor that is not empty. Raises `InvalidInput` unless all are finite."""
    finite = weight.isfinite()
    if not finite.all():
        raise InvalidInput(
            f"{int((~finite).sum())} of {weight.numel()} weights are NaN or infinite already before any damage. "
            "Digests find damage in such a tensor."
        )
    return torch.stack([weight.min(), weight.max()])


def outside(weight: Float[Tensor, "*weight"], low_and_high: Float[Tensor, "2"]) -> Bool[Tensor, "*weight"]:
    """True where a weight is NaN, infinite or outside the intact range, which proves damage."""
    low, high = low_and_high.to(weight)
    return ~((weight >= low) & (weight <= high))


def largest_but(rate: float, scores: Float[Tensor, "*weight"]) -> Float[Tensor, ""]:
    """The least score that no more than a share `rate` of the scores exceeds: the largest one at rate 0."""
    return scores.flatten().kthvalue(scores.numel() - int(rate * scores.numel())).values
