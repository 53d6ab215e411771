"""Missing weights are their conditional mean given the known ones, for a covariance that the survivors show."""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from planaria import streams
from planaria.repairers.base import Record, known_mean
from planaria.repairers.kriging import Kriging

PAIRS = 300.0  # of known cells, from which on a lag's own covariance counts for more than that of its distance
REACH = 6.0  # cells, over which a lag may differ from others of its distance
FLOOR = 1e-3  # of the spectrum, relative to its maximum: what few survivors show of it is noisy


class SurvivorKriging(Kriging):
    """Kriging with a stationary covariance that nobody stored: it is estimated from the known weights alone.

    At each lag it is the mean product of known cells that far apart, pooled over the grids. Few pairs make that noisy:
    it is shrunk towards the mean over all lags of its distance, the more the fewer pairs there are and the longer the
    lag, and tapered by the triangle by which `Kriging` is biased. Then missing weights are drawn once from their
    conditional distribution, and the covariance of the grids so completed is the one used: a step of stochastic
    expectation maximisation (Celeux and Diebolt 1985). The draw has a seed of its own, always the same.

    Bytes: none. Time: about twice that of `Kriging`. Arguments are those of `Kriging`.
    """

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        return Record()

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        grid, there = self.layout.to_grid(visible).double(), self.layout.to_grid(known)
        mean = known_mean(grid, there)
        deviation = torch.where(there, grid - mean, 0.0)
        unit = deviation.abs().max()
        if unit <= 0:
            return torch.full_like(visible, mean.item())
        deviation = deviation / unit
        completed = self._drawn(deviation, there, _floored(_of_survivors(deviation, there)))
        spectrum = _floored(_products(completed) / completed.numel())
        filled = self._conditional_mean(deviation, there, spectrum)
        return self.layout.from_grid((filled * unit + mean).to(visible), tuple(visible.shape))

    def _drawn(
        self,
        deviation: Float64[Tensor, "batch *space"],
        known: Bool[Tensor, "batch *space"],
        spectrum: Float64[Tensor, "*spectrum"],
    ) -> Float64[Tensor, "batch *space"]:
        """The grids with missing cells drawn given the known ones: a field drawn without them, and what it lacks."""
        space, axes = deviation.shape[1:], tuple(range(1, deviation.dim()))
        size = [2 * cells for cells in space]
        generator = streams.generator(0, "kriging from survivors")
        noise = torch.randn(len(deviation), *size, generator=generator, dtype=torch.float64).to(deviation)
        field = torch.fft.irfftn(torch.fft.rfftn(noise, dim=axes) * spectrum.sqrt(), s=size, dim=axes)
        field = field[(slice(None), *(slice(cells) for cells in space))]
        return field + self._conditional_mean(deviation - field, known, spectrum)


def _of_survivors(
    deviation: Float64[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
) -> Float64[Tensor, "*doubled"]:
    """The covariance by lag, on a grid of twice the size; `deviation` is 0 where missing."""
    products, pairs = _products(deviation), _products(known.double()).round()
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


def _by_distance(values: Float64[Tensor, "*doubled"], distance: Float64[Tensor, "*doubled"]) -> Tensor:
    """At each lag, the sum over all lags whose distance rounds to the same."""
    ring = distance.round().long().flatten()
    sums = values.new_zeros(int(ring.max()) + 1).index_add(0, ring, values.flatten())
    return sums[ring].view_as(values)


def _products(values: Float64[Tensor, "batch *space"]) -> Float64[Tensor, "*doubled"]:
    """At each lag, the sum of products of cells that far apart."""
    axes, size = tuple(range(1, values.dim())), [2 * cells for cells in values.shape[1:]]
    return torch.fft.irfftn(torch.fft.rfftn(values, s=size, dim=axes).abs().square().sum(0), s=size)


def _floored(covariance: Float64[Tensor, "*doubled"]) -> Float64[Tensor, "*spectrum"]:
    """Eigenvalues of the covariance on the doubled grid."""
    spectrum = torch.fft.rfftn(covariance).real
    return spectrum.clamp_min(FLOOR * spectrum.max())
