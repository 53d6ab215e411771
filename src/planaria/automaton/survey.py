"""What the survivors say before the first step: fixed channels that reach further than a cell's neighbours.

A cell that sees 3^n neighbours learns of a distant survivor only after as many steps. Three averages of the survivors,
taken once, tell it what the talk's automaton cannot know in time. They are functions of the damaged weights alone, so
they cost no stored byte.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

CHANNELS = 3
NEARBY = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])  # taps along each axis for the averages over all grids
WIDE = torch.exp(-(torch.arange(-6.0, 7.0) ** 2) / (2 * 3.0**2))  # a Gaussian of deviation 3 cells
SHRINKAGE = 3.0  # survivors' worth of the prior (mean 0, deviation 1) in the averages over all grids


def survey(
    weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
) -> Float[Tensor, "batch 3 *space"]:
    """Three averages for every cell, of normalised weights (mean 0, deviation 1).

    1. the mean and 2. the deviation less 1 of the survivors of all grids of the batch near this place: layers whose
       grids share axes have places that matter and places that never do;
    3. the mean of the grid's own survivors in a wide window.

    All three shrink towards the prior where survivors are few. `weight` must be 0 where not known. Costs about 60
    multiplications a cell.
    """
    there = known.to(weight)
    everywhere = torch.stack([there.sum(0), weight.sum(0), weight.square().sum(0)])
    count, total, squares = _averaged(everywhere, NEARBY)
    mean = total / (count + SHRINKAGE)
    deviation = ((squares + SHRINKAGE) / (count + SHRINKAGE)).sqrt() - 1
    own = _averaged(weight, WIDE) / (_averaged(there, WIDE) + 1)
    return torch.stack([mean.expand_as(own), deviation.expand_as(own), own], dim=1)


def _averaged(values: Float[Tensor, "batch *space"], taps: Float[Tensor, " taps"]) -> Float[Tensor, "batch *space"]:
    """Weighted sums over a window, axis by axis, with nothing beyond the border."""
    for axis in range(1, values.dim()):
        lines = values.movedim(axis, -1)
        summed = F.conv1d(lines.reshape(-1, 1, lines.shape[-1]), taps.to(values).view(1, 1, -1), padding=len(taps) // 2)
        values = summed.view(lines.shape).movedim(-1, axis)
    return values
