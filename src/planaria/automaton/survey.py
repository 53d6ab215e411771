"""What the survivors say before the first step: fixed channels that reach further than a cell's neighbours.

A cell that sees 3^n neighbours learns of a survivor ten cells away after ten steps, and of what all grids have in
common never. Two averages of the survivors, taken once, tell it both.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

CHANNELS = 2
NEARBY = (1.0, 2.0, 3.0, 2.0, 1.0)  # taps along each axis for the average over all grids
SHRINKAGE = 3.0  # survivors' worth of the prior (deviation 1) in that average
LONGEST_BAND = 1024  # up to here a product with a banded matrix is several times faster than a convolution


class Survey(nn.Module):
    """Two averages for every cell, of normalised weights (mean 0, deviation 1):

    1. the deviation, less 1, of the survivors of all grids near this place: layers whose grids share axes have places
       that matter and places that never do;
    2. the posterior mean of the grid under `modes`: smooth fields that all grids are mixed from, each by coefficients
       of its own, which are estimated from the grid's survivors (probabilistic principal components, Tipping and
       Bishop 1999, with missing data).

    The fields are learned parameters and count as such: `fields` holds their lowest cosine coefficients, scaled so
    that mixing coefficients have variance 1; `noise` is the variance that they leave, times an allowance for its being
    correlated. A new survey has fields of 0, whose posterior mean is 0.

    Args:
        dimensions: spatial dimensions of the grids.
        modes: number of fields.
        frequencies: cosine frequencies a field has along each axis, the mean included.
    """

    fields: Tensor
    noise: Tensor

    def __init__(self, dimensions: int, *, modes: int, frequencies: int):
        super().__init__()
        self.register_buffer("fields", torch.zeros(modes, *[frequencies] * dimensions))
        self.register_buffer("noise", torch.ones(()))

    def forward(
        self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
    ) -> Float[Tensor, "batch 2 *space"]:
        """The two channels; `weight` must be 0 where not known. Costs about `modes^2` multiplications a cell."""
        present = known.to(weight)
        count, squares = _averaged(torch.stack([present.sum(0), weight.square().sum(0)]))
        deviation = ((squares + SHRINKAGE) / (count + SHRINKAGE)).sqrt() - 1
        return torch.stack([deviation.expand_as(weight), self._mixed(weight, present)], dim=1)

    def _mixed(
        self, weight: Float[Tensor, "batch *space"], present: Float[Tensor, "batch *space"]
    ) -> Float[Tensor, "batch *space"]:
        """Ridge regression of each grid's survivors on the fields, evaluated everywhere."""
        modes = synthesised(self.fields, weight.shape[1:]).flatten(1)
        weights, present = weight.flatten(1), present.flatten(1)
        precision = torch.stack([(present * mode) @ modes.T for mode in modes], dim=1) / self.noise
        precision = precision + torch.eye(len(modes), device=weight.device)
        mixture = torch.linalg.solve(precision, (weights @ modes.T / self.noise).unsqueeze(-1)).squeeze(-1)
        return (mixture @ modes).view(weight.shape)


def cosines(size: int, frequencies: int) -> Float[Tensor, "frequencies size"]:
    """The lowest orthonormal cosine waves (DCT-II) on `size` cells; frequencies that do not fit there are 0."""
    waves = torch.arange(frequencies).unsqueeze(1)
    angles = torch.pi / size * (torch.arange(size) + 0.5) * waves
    scale = torch.where(waves == 0, 1.0, math.sqrt(2)) / math.sqrt(size)
    return torch.where(waves < size, scale * angles.cos(), 0.0)


def synthesised(fields: Float[Tensor, "modes *frequencies"], space: tuple[int, ...]) -> Float[Tensor, "modes *space"]:
    """Fields on a grid, from their cosine coefficients."""
    for axis, size in enumerate(space, start=1):
        waves = cosines(size, fields.shape[axis]).to(fields)
        fields = (fields.movedim(axis, -1) @ waves).movedim(-1, axis)
    return fields


def analysed(grids: Float[Tensor, "batch *space"], frequencies: int) -> Float[Tensor, "batch *frequencies"]:
    """The lowest cosine coefficients of grids; `synthesised` of them is the grid's smooth part."""
    for axis in range(1, grids.dim()):
        waves = cosines(grids.shape[axis], frequencies).to(grids)
        grids = (grids.movedim(axis, -1) @ waves.T).movedim(-1, axis)
    return grids


def _averaged(values: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch *space"]:
    """Weighted sums over a small window, axis by axis, with nothing beyond the border."""
    taps = values.new_tensor(NEARBY)
    reach = len(NEARBY) // 2
    for axis in range(1, values.dim()):
        lines = values.movedim(axis, -1)
        length = lines.shape[-1]
        if length <= LONGEST_BAND:
            cells = torch.arange(length, device=values.device)
            offsets = (cells - cells.unsqueeze(1)).clamp(-reach - 1, reach + 1) + reach + 1
            summed = lines @ F.pad(taps, (1, 1))[offsets]
        else:
            summed = F.conv1d(lines.reshape(-1, 1, length), taps.view(1, 1, -1), padding=reach).view(lines.shape)
        values = summed.movedim(-1, axis)
    return values
