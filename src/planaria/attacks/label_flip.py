"""Training on wrong labels: the control that changes everything."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from planaria.attacks.base import Attack
from planaria.attacks.retraining import retrained
from planaria.attacks.rounding import nearest
from planaria.attacks.victim import Victim, Weights
from planaria.errors import InvalidInput


class LabelFlip(Attack):
    """Poisoning by flipped labels: fine-tunes every attacked tensor on a batch some of whose labels are wrong.

    The attack of Biggio, Nelson, Laskov 2012 ("Poisoning Attacks against Support Vector Machines") in its simplest
    form, as a control: the change is dense, small in each weight and has no place. Unlike there, the labels to flip are
    drawn at random, and each becomes any other class alike.

    Args:
        fraction: share of the batch whose labels are flipped, in (0, 1].
        steps: of Adam, on up to 128 inputs each; 1 or more.
        rate: of learning, relative to the root mean square of each tensor; above 0.
        names: as for `Attack`.

    Cost: a gradient a step. Raises `InvalidInput` on settings outside these ranges, and for a model of one class.
    """

    def __init__(
        self,
        fraction: float = 0.5,
        *,
        steps: int = 100,
        rate: float = 0.02,
        names: str | Sequence[str] | None = None,
    ):
        super().__init__(names=names)
        if not 0 < fraction <= 1:
            raise InvalidInput(f"A share of flipped labels lies in (0, 1], not {fraction}.")
        if steps < 1 or not 0 < rate < float("inf"):
            raise InvalidInput(f"Steps are 1 or more and a rate is above 0, not {steps} and {rate}.")
        self.fraction = fraction
        self.steps = steps
        self.rate = rate

    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        if victim.classes < 2:
            raise InvalidInput("Labels of a model with one class cannot be flipped.")
        count = len(victim.labels)
        flipped = torch.randperm(count, generator=generator)[: max(1, round(self.fraction * count))]
        shift = torch.zeros(count, dtype=torch.int64)
        shift[flipped] = torch.randint(1, victim.classes, (len(flipped),), generator=generator)
        labels = (victim.labels + shift.to(victim.labels.device)) % victim.classes

        def loss(weights: Weights, rows: Tensor) -> Tensor:
            return F.cross_entropy(victim.outputs(weights, victim.inputs[rows]), labels[rows])

        weights = retrained(victim, list(victim.weights), loss, steps=self.steps, rate=self.rate, generator=generator)
        return {name: nearest(weight, victim.stored[name].dtype) for name, weight in weights.items()}
