"""Projected gradient ascent on the weights."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.attacks.base import ObjectiveAttack
from planaria_lab.attacks.objective import Objective
from planaria_lab.attacks.rounding import stored_within
from planaria_lab.attacks.victim import Victim, Weights, trainable

Norm = Literal["linf", "l2", "l0"]


class PGD(ObjectiveAttack):
    """Moves all weights along the gradient, in steps, and back into a ball around the intact ones after each.

    Madry et al. 2018 (section 2.1) do so to inputs; Wu, Xia, Wang 2020 ("Adversarial Weight Perturbation Helps Robust
    Generalization", section 4.2) to weights, with a ball relative to the norm of each layer, since layers may be
    rescaled without changing the network. As there, the start is the intact model, and a layer w with gradient g steps
    by a multiple of |w| g / |g| under l2. Unlike there, the steps are shorter than the ball.

    The budget holds exactly in the stored numbers: where rounding would step over it, it is taken back. So int8 weights
    move by whole steps only, and not at all on a budget below one step.

    Args:
        budget: of each attacked tensor, relative to its own size: of "l2" the l2 norm of the change over that of the
            weights; of "linf" and "l0" the largest change of a weight over the tensor's root mean square.
        norm: "linf", "l2", or "l0": only `count` weights change.
        steps: how many; each is 2.5 / steps of the budget long, and at most the whole. One step has no room for
            mistakes: use `FGSM`.
        count: for "l0" only: how many weights of the whole model may change. They are chosen once, by the largest gain
            to first order: gradient times allowed change.
        random_start: start from random weights within the budget (uniform in each weight; not for "l0") instead.
        objective: what to raise; by default the cross-entropy of the batch.
        names: as for `Attack`.

    Cost: a gradient a step; memory for four copies of the weights. Raises `InvalidInput` on settings outside these
    ranges and, when applied, if no stored number can change within the budget.
    """

    def __init__(
        self,
        budget: float,
        *,
        norm: Norm = "linf",
        steps: int = 10,
        count: int | None = None,
        random_start: bool = False,
        objective: Objective | None = None,
        names: str | Sequence[str] | None = None,
    ):
        super().__init__(objective=objective, names=names)
        if not 0 < budget < float("inf"):
            raise InvalidInput(f"A budget is a positive share of the layer's size, for example .05; not {budget}.")
        if norm not in get_args(Norm):
            raise InvalidInput(f"Unknown norm {norm!r}. Norms are {', '.join(get_args(Norm))}.")
        if steps < 1:
            raise InvalidInput(f"An attack takes 1 step or more, not {steps}.")
        if (norm == "l0") != (count is not None) or (count is not None and count < 1):
            raise InvalidInput(f'The norm "l0", and no other, needs a count of 1 or more weights, not {count}.')
        if random_start and norm == "l0":
            raise InvalidInput('The norm "l0" has no random start: its weights are chosen at the intact model.')
        self.budget = budget
        self.norm = norm
        self.steps = steps
        self.count = count
        self.random_start = random_start

    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        self.objective.require(victim.labels, victim.classes)
        intact = victim.weights
        rooms = self._rooms(victim)
        moved = trainable(intact)
        if self.random_start:
            moved = trainable(
                {name: self._at_random(weight, rooms[name], generator) for name, weight in intact.items()}
            )
        for step in range(self.steps):
            gradients = victim.gradients(self._value(victim, moved), moved)
            if step == 0 and self.count is not None:
                rooms = _largest_gains(gradients, rooms, self.count)
            with torch.no_grad():
                moved = trainable(
                    {
                        name: self._stepped(weight, gradients[name], intact[name], rooms[name])
                        for name, weight in moved.items()
                    }
                )
        attacked = {
            name: stored_within(
                moved[name].detach(),
                stored,
                each=rooms[name],
                together=self.budget * _norm(stored) if self.norm == "l2" else float("inf"),
            )
            for name, stored in victim.stored.items()
        }
        if all(len(faults.index) == 0 for faults in victim.faults(attacked).tensors.values()):
            raise InvalidInput("No stored number can change within the budget: it is below their steps. Raise it.")
        return attacked

    def _rooms(self, victim: Victim) -> Weights:
        """How far each weight of each tensor may move; under l2 it is the whole that is limited."""
        return {
            name: torch.full_like(
                weight,
                float("inf") if self.norm == "l2" else self.budget * _norm(weight) / weight.numel() ** 0.5,
                dtype=torch.float64,
            )
            for name, weight in victim.weights.items()
        }

    def _at_random(self, intact: Tensor, room: Tensor, generator: torch.Generator) -> Tensor:
        noise = 2 * torch.rand(intact.shape, generator=generator, dtype=torch.float64).to(intact.device) - 1
        way = noise * (self.budget * _norm(intact) / max(_norm(noise), 1e-300) if self.norm == "l2" else room)
        return self._projected(intact + way.to(intact.dtype), intact, room)

    def _stepped(self, weight: Tensor, gradient: Tensor, intact: Tensor, room: Tensor) -> Tensor:
        share = min(2.5 / self.steps, 1.0)
        if self.norm == "l2":
            # In float64: squares of small gradients vanish in float32.
            way = share * self.budget * _norm(intact) * gradient.double() / max(_norm(gradient), 1e-300)
        else:
            way = share * room * gradient.sign()
        return self._projected(weight + way.to(weight.dtype), intact, room)

    def _projected(self, weight: Tensor, intact: Tensor, room: Tensor) -> Tensor:
        way = (weight - intact).double().clamp(-room, room)
        if self.norm == "l2":
            way = way * min(1.0, self.budget * _norm(intact) / max(_norm(way), 1e-300))
        return intact + way.to(intact.dtype)


def _norm(weight: Tensor) -> float:
    return float(torch.linalg.vector_norm(weight.double()))


def _largest_gains(gradients: Weights, rooms: Weights, count: int) -> Weights:
    """The rooms of the `count` weights, over all tensors, that gain most to first order; the others have none."""
    gains = {name: (gradients[name].double().abs() * rooms[name]).flatten() for name in rooms}
    best = torch.cat(list(gains.values())).argsort(descending=True, stable=True)[:count]
    chosen = torch.zeros(sum(len(gain) for gain in gains.values()), dtype=torch.bool, device=best.device)
    chosen[best] = True
    parts = chosen.split([len(gain) for gain in gains.values()])
    return {
        name: torch.where(part.view(room.shape), room, 0.0)
        for (name, room), part in zip(rooms.items(), parts, strict=True)
    }
