"""Random choices, each stream named for what it decides."""

from collections.abc import Sequence
from math import exp, log
from typing import TypeVar

import torch
from torch import Tensor

from planaria.streams import generator

T = TypeVar("T")


class Source:
    """What one part of a draw is decided by: depends on `seed` and `name` alone."""

    def __init__(self, seed: int, name: str):
        self.generator = generator(seed, f"referee {name}")

    def share(self) -> float:
        """Uniform in [0, 1)."""
        return float(torch.rand((), dtype=torch.float64, generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.share() < probability

    def whole(self, low: int, high: int) -> int:
        """Uniform in [low, high]."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.share()

    def magnitude(self, low: float, high: float) -> float:
        """Uniform in the logarithm."""
        return exp(self.between(log(low), log(high)))

    def size(self, low: int, high: int) -> int:
        """A whole number, uniform in the logarithm."""
        return round(self.magnitude(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.whole(0, len(options) - 1)]

    def weighted(self, options: dict[T, float]) -> T:
        """One of the keys, with probabilities in proportion to the values."""
        at = self.between(0, sum(options.values()))
        for option, weight in options.items():
            at -= weight
            if at < 0:
                return option
        return next(reversed(options))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def mask(self, shape: Sequence[int], share: float) -> Tensor:
        """True for each weight with that probability."""
        return torch.rand(tuple(shape), generator=self.generator) < share
