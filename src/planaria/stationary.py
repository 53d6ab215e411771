"""Stationary covariances of grids of which some cells are missing."""

from math import prod

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

PAIRS = 300.0  # of known cells, from which on a lag's own covariance counts for more than that of its distance
REACH = 6.0  # cells, over which a lag may differ from others of its distance
FLOOR = 1e-3  # of the spectrum, relative to its maximum: what few survivors show of it is noisy


def covariance_of_survivors(
    deviation: Float64[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
) -> Float64[Tensor, "*doubled"]:
    """The covariance by lag, on a grid of twice the size; `deviation` is 0 where missing.

    At each lag it is the mean product of known cells that far apart, pooled over the grids. Few pairs make that noisy:
    it is shrunk towards the mean over all lags of its distance, the more the fewer pairs there are and the longer the
    lag, and tapered by the triangle by which the biased estimate is.
    """
    pairs = products_by_lag(known.double()).round()
    products = products_by_lag(deviation)
    lags = torch.meshgrid(
        *(torch.arange(2 * cells).sub(cells).abs().sub(cells).neg() for cells in deviation.shape[1:]), indexing="ij"
    )
    distance = torch.stack(lags).to(deviation).square().sum(0).sqrt()
    own = products / pairs.clamp_min(1)
    alike = _by_distance(products, distance) / _by_distance(pairs, distance).clamp_min(1)
    share = pairs / (pairs + PAIRS) * (-(distance / REACH).square() / 2).exp()
    covariance = alike + share * (own - alike)
    for lag, cells in zip(lags, deviation.shape[1:], strict=True):
        covariance = covariance * (1 - lag.to(deviation) / cells)
    return covariance


def products_by_lag(values: Float64[Tensor, "batch *space"]) -> Float64[Tensor, "*doubled"]:
    """At each lag, the sum of products of cells that far apart, on a grid of twice the size."""
    axes, size = tuple(range(1, values.dim())), [2 * cells for cells in values.shape[1:]]
    return torch.fft.irfftn(torch.fft.rfftn(values, s=size, dim=axes).abs().square().sum(0), s=size)


def lags_of_pairs(space: tuple[int, ...]) -> Int64[Tensor, "cells cells"]:
    """Of each pair of cells of a grid of two axes, its lag's place in a flattened grid of twice the size."""
    rows, columns = ((torch.arange(size)[:, None] - torch.arange(size)) % (2 * size) for size in space)
    lags = rows[:, None, :, None] * 2 * space[1] + columns[None, :, None, :]
    return lags.reshape(prod(space), prod(space))


def correlations_of_pairs(
    by_lag: Float64[Tensor, "*doubled"], space: tuple[int, ...]
) -> Float32[Tensor, "cells cells"]:
    """From a covariance by lag, on a grid of twice the size, that of all cells, in units of the variance."""
    return (by_lag.flatten() / by_lag[0, 0].clamp_min(1e-30))[lags_of_pairs(space).to(by_lag.device)].float()


def spectrum_of(covariance: Float64[Tensor, "*doubled"]) -> Float64[Tensor, "*spectrum"]:
    """Eigenvalues of the covariance on the doubled grid, none of them near 0 or below."""
    spectrum = torch.fft.rfftn(covariance).real
    return spectrum.clamp_min(FLOOR * spectrum.max())


def _by_distance(values: Float64[Tensor, "*doubled"], distance: Float64[Tensor, "*doubled"]) -> Tensor:
    """At each lag, the sum over all lags whose distance rounds to the same."""
    ring = distance.round().long().flatten()
    sums = values.new_zeros(int(ring.max()) + 1).index_add(0, ring, values.flatten())
    return sums[ring].view_as(values)
