"""Weights beyond the intact range are brought back into it."""

import torch
from torch import Tensor

from planaria_lab.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors, verdict


class ClipToRange(Defence):
    """Keeps the lowest and highest weight of every tensor, and clips to them; what is no number becomes 0.

    The idea of Ranger (Chen, Li, Pattabiraman, DSN 2021), of weights in the place of activations.
    """

    def prepare(self, tensors: Tensors) -> Protection:
        ranges = {name: (tensor.min(), tensor.max()) for name, tensor in tensors.items() if _has_order(tensor)}
        return _Ranges({name: (low.clone(), high.clone()) for name, (low, high) in ranges.items()})


class _Ranges(Protection):
    def __init__(self, ranges: dict[str, tuple[Tensor, Tensor]]):
        self.ranges = ranges

    @property
    def nbytes(self) -> int:
        return sum(low.nbytes + high.nbytes for low, high in self.ranges.values())

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        clipped, verdicts = dict(tensors), {}
        for name, (low, high) in self.ranges.items():
            tensor = tensors[name]
            outside = ~((tensor >= low) & (tensor <= high))  # what is no number is outside
            inside = tensor.nan_to_num(0.0) if tensor.is_floating_point() else tensor
            clipped[name] = torch.where(outside, inside.clamp(low, high), tensor)
            verdicts[name] = verdict(outside, "estimated")
        return Restored(clipped, verdicts)


def _has_order(tensor: Tensor) -> bool:
    return tensor.numel() > 0 and tensor.dtype != torch.bool and not tensor.is_complex()
