"""What repairs in one pass of a module that was trained on damaged networks with clean targets."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from planaria_lab.network_repairers.base import Masks, NetworkRepairer, Progress, Shapes, Stack
from planaria_lab.network_repairers.chain import refusal_of_chain
from planaria_lab.network_repairers.fitting import (
    Behaviour,
    FittingObjective,
    Units,
    drawn_masks,
    drawn_parameters,
    fit,
)
from planaria_lab.zoo import Population


class LearnedModule(NetworkRepairer):
    """Draws `batch` networks a step, hides some of their weights, and trains the module that `_made` makes.

    MLPs alone. Cost: learning, `steps` passes over `batch` networks; repair, one pass.

    Args:
        behaviour: the loss that follows the function; None for the error of weights alone.
    """

    stream: ClassVar[str]
    """Of the random numbers that parameters start from."""

    def __init__(self, *, steps: int, batch: int, learning_rate: float, behaviour: Behaviour | None) -> None:
        super().__init__()
        self.steps, self.batch, self.learning_rate = steps, batch, learning_rate
        self.behaviour = behaviour

    @abstractmethod
    def _made(self, stack: Stack, units: Units) -> nn.Module:
        """A module that maps visible weights and masks of networks like these to repaired ones."""

    def refusal(self, shapes: Shapes, learned: Shapes) -> str | None:
        return refusal_of_chain(shapes) or super().refusal(shapes, learned)

    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        stack = population.stack

        def examples(generator: torch.Generator) -> tuple[Stack, Masks, tuple[Stack, ...]]:
            some = torch.randint(len(population), (self.batch,), generator=generator)
            intact = {name: tensor[some] for name, tensor in stack.items()}
            return intact, drawn_masks(intact, generator), ()

        units = Units(stack)
        with drawn_parameters(seed, self.stream):
            self._module = self._made(stack, units)
        fit(
            self._module,
            examples,
            FittingObjective(units, self.behaviour),
            steps=self.steps,
            learning_rate=self.learning_rate,
            seed=seed,
            progress=progress,
        )

    @torch.no_grad()
    def _fill(self, visible: Stack, known: Masks) -> Stack:
        filled: Stack = self._module(visible, known)
        return filled
