"""Missing weights are regrown by a rule that was learned on other networks, so that nothing is stored of this one."""

from collections.abc import Callable
from math import isqrt, prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.automaton.normalisation import survivors_scale
from planaria.errors import InvalidInput
from planaria.layouts import Layout, Sheet
from planaria.pretrained import PretrainedRule, shipped
from planaria.repairers.base import Record, Repairer

SHEETS, KERNELS = "sheet-1", "kernel-1"  # pretrained rules: of images a neuron looks at, and of kernels
SMALLEST_KERNEL, SMALLEST_SHEET = 3, 8  # sides of grids that these are for


class RegrowPretrained(Repairer):
    """Runs a pretrained rule on the layout's grids, in units of their survivors.

    The record is empty: 0 bytes. Repaired weights stay as near to the survivors' mean as the farthest survivor is.

    Cost: see `Prior.surveyed`; a second for 64 grids of 28 x 28.

    Args:
        rule: from `planaria.pretrained.shipped`, or `planaria_lab.pretrained.load_rule`.
        layout: how the tensor becomes grids, of two axes and at most 1,024 cells.

    Raises:
        InvalidInput: if the layout's grids have not two axes, or later on larger grids.
    """

    def __init__(self, rule: PretrainedRule, layout: Layout):
        if layout.dimensions != rule.automaton.dimensions:
            raise InvalidInput(
                f"The rule {rule.name!r} is for grids of {rule.automaton.dimensions} axes; those of {layout} have "
                f"{layout.dimensions}."
            )
        self.rule = rule
        self.layout = layout

    def left_one_out(
        self, weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        """Each weight's mean under the rule's prior given all other known ones, all in the time of one `restore`.

        Float32 or float64, finite where known, as `_fill` gets them.
        """
        if weight.numel() == 0:
            return weight.clone()
        return self._on_grids(self.rule.prior.left_one_out, torch.where(known, weight, 0.0), known)

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        if weight.numel():
            self.rule.prior.require(tuple(self.layout.to_grid(weight).shape[1:]))
        return Record()

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        return self._on_grids(self.rule.repaired, visible, known)

    def _on_grids(
        self, function: Callable[[Tensor, Tensor], Tensor], visible: Tensor, known: Tensor
    ) -> Float[Tensor, "*weight"]:
        """A function of normalised grids, back in the weight's layout and unit."""
        mean, scale = survivors_scale(visible.double(), known)  # no difference of two floats overflows there
        normalised = torch.where(known, (visible.double() - mean) / scale, 0.0).float()
        limit = normalised.abs().max()
        grid = function(self.layout.to_grid(normalised), self.layout.to_grid(known))
        found = self.layout.from_grid(grid, tuple(visible.shape))
        return found.nan_to_num(0.0).clamp(-limit, limit).double() * scale + mean


def regrow(
    damaged: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], *, space: tuple[int, int] | None = None
) -> Float[Tensor, "*weight"]:
    """A layer's weights with the missing ones filled in from the survivors alone, by a rule that comes with planaria.

    For layers that look at images: neighbouring inputs have similar weights. Others gain little or nothing. Known
    weights stay bit for bit. Cost: see `RegrowPretrained`.

    Args:
        damaged: of two axes or more, the first of neurons; what missing weights hold is ignored.
        known: True where a weight is trusted.
        space: height and width of the grid that a neuron's inputs are, as (28, 28); by default that of a convolution's
            kernel, or a square.

    Raises:
        InvalidInput: if inputs make no such grid, it has sides under 3 or more than 1,024 cells, or a tensor is not of
            the kind above.
    """
    if damaged.dim() < 2:
        raise InvalidInput(f"A layer's weight has an axis of neurons and others of inputs, not {damaged.dim()} axes.")
    inputs = prod(damaged.shape[1:])
    if space is None:
        height, width = damaged.shape[2:] if damaged.dim() == 4 else (isqrt(inputs), isqrt(inputs))
        space = (height, width)
    cells = prod(space)
    if len(space) != 2 or min(space) < SMALLEST_KERNEL or inputs % cells:
        raise InvalidInput(
            f"{inputs:,} inputs of a neuron make no grids of {' x '.join(map(str, space))}. Name their height and "
            f"width in space, of {SMALLEST_KERNEL} or more each."
        )
    rule = shipped(SHEETS if min(space) >= SMALLEST_SHEET else KERNELS)
    repairer = RegrowPretrained(rule, Sheet(space))
    matrix = damaged.reshape(-1, cells)
    return repairer.restore(matrix, known.reshape(-1, cells), Record()).view(damaged.shape)
