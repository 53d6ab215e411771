"""Honest training after the guard was made: the control that changes everything and harms nothing."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from planaria.errors import InvalidInput
from planaria_lab.attacks.base import Attack
from planaria_lab.attacks.retraining import retrained
from planaria_lab.attacks.rounding import nearest
from planaria_lab.attacks.victim import Victim, Weights


class FineTune(Attack):
    """Trains every attacked tensor on, with the right labels: what leaves a guard stale.

    No attack but its control. To a guard of the earlier weights a fine-tuned model, and one with an edited or merged
    layer (`names` of that layer), are nowhere as they were and nowhere damaged: it has to say so, and to leave them.

    Args:
        steps: of Adam, on up to 128 inputs each; 1 or more.
        rate: of learning, relative to the root mean square of each tensor; above 0.
        names: as for `Attack`.

    Cost: a gradient a step. Raises `InvalidInput` on settings outside these ranges.
    """

    def __init__(self, steps: int = 100, *, rate: float = 0.005, names: str | Sequence[str] | None = None):
        super().__init__(names=names)
        if steps < 1 or not 0 < rate < float("inf"):
            raise InvalidInput(f"Steps are 1 or more and a rate is above 0, not {steps} and {rate}.")
        self.steps = steps
        self.rate = rate

    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        labels = self._labels(victim, generator)

        def loss(weights: Weights, rows: Tensor) -> Tensor:
            return F.cross_entropy(victim.outputs(weights, victim.inputs[rows]), labels[rows])

        weights = retrained(victim, list(victim.weights), loss, steps=self.steps, rate=self.rate, generator=generator)
        return {name: nearest(weight, victim.stored[name].dtype) for name, weight in weights.items()}

    def _labels(self, victim: Victim, generator: torch.Generator) -> Int64[Tensor, " batch"]:
        """What is trained on."""
        return victim.labels
