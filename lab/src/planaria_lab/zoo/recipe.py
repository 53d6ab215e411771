"""How one network of a zoo is trained, and how the networks of a zoo differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch

from planaria import streams
from planaria.errors import InvalidInput

Optimiser = Literal["adam", "sgd"]
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class TrainingRecipe:
    """One network's own settings.

    Attributes:
        optimiser: "adam" (betas .9 and .999) or "sgd" (momentum .9).
        learning_rate: falls to zero along half a cosine; above 0.
        weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019); 0 or more.
        initial_scale: factor on PyTorch's initialisation; above 0.
        epochs: passes over the training images; above 0, and may be a fraction.

    Raises `InvalidInput` on anything else.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    initial_scale: float = 1.0
    epochs: float = 3.0

    def __post_init__(self) -> None:
        if self.optimiser not in get_args(Optimiser):
            raise InvalidInput(f"Optimisers are {', '.join(get_args(Optimiser))}, not {self.optimiser!r}.")
        if not (0 < self.learning_rate < 10 and 0 <= self.weight_decay < 10):
            raise InvalidInput(
                f"A learning rate lies in (0, 10) and a weight decay in [0, 10), "
                f"not {self.learning_rate} and {self.weight_decay}."
            )
        if not (0 < self.initial_scale <= 100 and 0 < self.epochs <= 1000):
            raise InvalidInput(
                f"An initial scale lies in (0, 100] and epochs in (0, 1000], "
                f"not {self.initial_scale} and {self.epochs}."
            )


@dataclass(frozen=True)
class Variety:
    """What the recipes of a zoo are drawn from: each network takes one of each, independently.

    Attributes are those of `TrainingRecipe`, in the plural. With one value each, networks differ by their seed alone.
    Raises `InvalidInput` if one of them is empty.
    """

    optimisers: Sequence[Optimiser] = ("adam",)
    learning_rates: Sequence[float] = (1e-3,)
    weight_decays: Sequence[float] = (0.0,)
    initial_scales: Sequence[float] = (1.0,)
    epochs: Sequence[float] = (3.0,)

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not values:
                raise InvalidInput(f"A variety needs one value or more of each setting; {name} has none.")

    def drawn(self, seed: int, network: int) -> TrainingRecipe:
        """The recipe of this network."""
        generator = streams.generator(seed, f"zoo recipe {network}")

        def one(values: Sequence[Choice]) -> Choice:
            return values[int(torch.randint(len(values), (), generator=generator))]

        return TrainingRecipe(
            one(self.optimisers),
            one(self.learning_rates),
            one(self.weight_decays),
            one(self.initial_scales),
            one(self.epochs),
        )
