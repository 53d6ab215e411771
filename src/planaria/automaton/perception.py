"""What a cell sees: fixed 3^n filters over its neighbourhood, the same for every channel."""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from planaria.errors import InvalidInput

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def filter_bank(dimensions: int, *, laplacian: bool) -> Float[Tensor, "filters ..."]:
    """The filters, in order: identity, one Sobel filter per axis, and the Laplacian if asked for.

    Built for any number of dimensions as outer products of [1, 2, 1] and [-1, 0, 1] (Mordvintsev et al. 2020, "Growing
    Neural Cellular Automata", perception). Scaled so that Sobel gives the slope of a linear ramp exactly, and so that
    the Laplacian is the weighted mean of the neighbourhood minus the cell: a quarter of the analytic Laplacian.

    Shape `(filters, 3, ..., 3)` with `dimensions` threes, float32.
    """
    smooth, difference, centre = (torch.tensor(taps) for taps in ([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]))

    def outer(factors: list[Tensor]) -> Tensor:
        product = factors[0]
        for factor in factors[1:]:
            product = product.unsqueeze(-1) * factor
        return product

    identity = outer([centre] * dimensions)
    filters = [identity]
    for axis in range(dimensions):
        slopes = outer([difference if direction == axis else smooth for direction in range(dimensions)])
        filters.append(slopes / (2 * 4 ** (dimensions - 1)))
    if laplacian:
        filters.append(outer([smooth] * dimensions) / 4**dimensions - identity)
    return torch.stack(filters)


@cache
def unchanged_filters(dimensions: int, *, laplacian: bool) -> Float[Tensor, "filters ..."]:
    """The filter bank, made once, to compare with. Not to be written to."""
    return filter_bank(dimensions, laplacian=laplacian)


class Perception(nn.Module):
    """Applies the filter bank to every channel, with zeros beyond the border of the grid.

    Nothing here is learned. Costs `filters * 3^n` multiplications per channel and cell in this plain form.
    """

    filters: Tensor

    def __init__(self, dimensions: int, *, laplacian: bool = True):
        super().__init__()
        if dimensions not in CONVOLUTIONS:
            raise InvalidInput(f"A grid has 1, 2 or 3 spatial dimensions, not {dimensions}.")
        self.dimensions = dimensions
        self.laplacian = laplacian
        self.register_buffer("filters", filter_bank(dimensions, laplacian=laplacian), persistent=False)

    def forward(self, state: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch features *space"]:
        """Perceives every cell; feature `f * channels + c` is filter `f` on channel `c`."""
        channels = state.shape[1]
        kernels = self.filters.to(state).unsqueeze(1).repeat(channels, *[1] * (self.dimensions + 1))
        seen = CONVOLUTIONS[self.dimensions](state, kernels, padding=1, groups=channels)
        # Grouped convolution answers channel by channel; the rule and the kernels read filter by filter.
        return seen.unflatten(1, (channels, len(self.filters))).transpose(1, 2).flatten(1, 2)
