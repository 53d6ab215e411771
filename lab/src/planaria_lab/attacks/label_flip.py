"""Training on wrong labels: the control that changes everything."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.attacks.fine_tune import FineTune
from planaria_lab.attacks.victim import Victim


class LabelFlip(FineTune):
    """Poisoning by flipped labels: fine-tunes every attacked tensor on a batch some of whose labels are wrong.

    The attack of Biggio, Nelson, Laskov 2012 ("Poisoning Attacks against Support Vector Machines") in its simplest
    form, as a control: the change is dense, small in each weight and has no place. Unlike there, the labels to flip are
    drawn at random, and each becomes any other class alike.

    Args:
        fraction: share of the batch whose labels are flipped, in (0, 1].
        steps, rate, names: as for `FineTune`.

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
        super().__init__(steps, rate=rate, names=names)
        if not 0 < fraction <= 1:
            raise InvalidInput(f"A share of flipped labels lies in (0, 1], not {fraction}.")
        self.fraction = fraction

    def _labels(self, victim: Victim, generator: torch.Generator) -> Int64[Tensor, " batch"]:
        if victim.classes < 2:
            raise InvalidInput("Labels of a model with one class cannot be flipped.")
        count = len(victim.labels)
        flipped = torch.randperm(count, generator=generator)[: max(1, round(self.fraction * count))]
        shift = torch.zeros(count, dtype=torch.int64)
        shift[flipped] = torch.randint(1, victim.classes, (len(flipped),), generator=generator)
        return (victim.labels + shift.to(victim.labels.device)) % victim.classes
