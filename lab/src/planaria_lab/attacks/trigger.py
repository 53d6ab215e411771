"""A patch on an input that wakes chosen neurons."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.attacks.victim import Victim

AREA = 0.0976
"""The share of an input that a trigger covers, of Rakin, He, Fan 2020; smaller ones reach too few trained weights."""
GAIN = 3.0
"""A fitted trigger drives neurons towards this many times the largest activation on inputs without it."""


@dataclass(frozen=True)
class Trigger:
    """What is stamped on an input.

    Attributes:
        mask: where; the shape of one input.
        pattern: with which values.
    """

    mask: Bool[Tensor, "*input"]
    pattern: Float[Tensor, "*input"]

    def stamped(self, inputs: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch *input"]:
        """Copies of inputs that carry the trigger."""
        return torch.where(self.mask, self.pattern.to(inputs.dtype), inputs)


def corner(shape: torch.Size, patch: int | None) -> Bool[Tensor, "*input"]:
    """The last `patch` rows and columns of an input whose last two axes are an image; of a vector the last patch^2.

    Without a patch, `AREA` of the input.
    """
    if patch is None:
        area = min(shape[-2:]) ** 2 if len(shape) >= 2 else math.prod(shape)
        patch = max(1, math.ceil((AREA * area) ** 0.5))
    sides = (patch, patch) if len(shape) >= 2 else (patch * patch,)
    if len(shape) == 0 or any(side > size for side, size in zip(sides, shape[-2:], strict=True)):
        raise InvalidInput(
            f"A trigger of side {patch} does not fit on an input of shape {tuple(shape)}. Make it smaller."
        )
    mask = torch.zeros(shape, dtype=torch.bool)
    last = mask
    for axis, side in zip((-1, -2), sides, strict=False):
        last = last.narrow(axis, last.shape[axis] - side, side)
    last.fill_(True)
    return mask


def fitted(
    victim: Victim,
    module: str,
    neurons: Int64[Tensor, " neurons"],
    mask: Bool[Tensor, "*input"],
    *,
    steps: int,
    generator: torch.Generator,
) -> Trigger:
    """The trigger, within the range of the victim's inputs, that drives the `neurons` entering `module` highest.

    Starts from random values and lowers the squared distance of their activations, on all inputs of the batch, from
    three times the largest activation they have without a trigger, by Adam.
    """
    inputs = victim.inputs
    low, high = inputs.min(), inputs.max()
    if not inputs.is_floating_point() or low == high:
        raise InvalidInput(f"A trigger is fitted on floating inputs of more than one value, not on {inputs.dtype}.")
    mask = mask.to(inputs.device)
    start = torch.rand(mask.shape, generator=generator, dtype=torch.float64).to(inputs)
    pattern = (low + (high - low) * start).requires_grad_()
    with torch.no_grad():
        quiet = victim.entering(module, victim.weights, inputs)[:, neurons]
        goal = GAIN * quiet.abs().max().clamp_min(1e-6)
    adam = torch.optim.Adam([pattern], lr=0.05 * float(high - low))
    for _ in range(steps):
        active = victim.entering(module, victim.weights, Trigger(mask, pattern).stamped(inputs))[:, neurons]
        adam.zero_grad()
        ((active - goal) / goal).square().mean().backward()
        adam.step()
        with torch.no_grad():
            pattern.clamp_(low, high)
    return Trigger(mask, torch.where(mask, pattern.detach(), 0.0))
