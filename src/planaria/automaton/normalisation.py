"""Weights in the automaton's units: mean 0, standard deviation 1."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Mean, standard deviation and range of an intact tensor: 16 bytes of any record.

    A constant tensor has scale 0: it normalises to 0, and anything restores to its mean.
    """

    mean: float
    scale: float
    low: float
    high: float

    @classmethod
    def of(cls, weight: Float[Tensor, "*weight"]) -> "Normalisation":
        if weight.numel() == 0:
            return cls(0.0, 0.0, 0.0, 0.0)
        weight = weight.detach().double()
        return cls.from_tensor(torch.stack([weight.mean(), weight.std(correction=0), weight.min(), weight.max()]))

    def apply(self, weight: Float[Tensor, "*weight"]) -> Float[Tensor, "*weight"]:
        return (weight - self.mean) / self.scale if self.scale > 0 else torch.zeros_like(weight)

    def undo(self, normalised: Float[Tensor, "*weight"]) -> Float[Tensor, "*weight"]:
        """Back to weights, clipped to the range of the intact ones; what is not a number becomes the mean."""
        return (
            (normalised * self.scale + self.mean).nan_to_num(self.mean, self.high, self.low).clamp(self.low, self.high)
        )

    def to_tensor(self) -> Float[Tensor, "4"]:
        return torch.tensor([self.mean, self.scale, self.low, self.high])

    @classmethod
    def from_tensor(cls, values: Float[Tensor, "4"]) -> "Normalisation":
        """Rounded to float32 first, so that what is stored is what was used."""
        mean, scale, low, high = values.float().tolist()
        return cls(mean, scale, low, high)


def survivors_scale(
    weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean and deviation of the known weights, where no others are stored; 0 and 1 if they tell none."""
    survivors = weight[known].double()
    if len(survivors) < 2:
        return weight.new_zeros(()), weight.new_ones(())
    deviation = survivors.std(correction=0)
    return survivors.mean().to(weight), (deviation if deviation > 0 else torch.ones_like(deviation)).to(weight)
