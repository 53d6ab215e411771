"""Missing weights are their conditional mean given the known ones, for a covariance that the survivors show."""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from planaria import streams
from planaria.repairers import Record
from planaria.stationary import covariance_of_survivors, products_by_lag, spectrum_of
from planaria_lab.repairers.kriging import Kriging
from planaria_lab.repairers.mean_fill import known_mean


class SurvivorKriging(Kriging):
    """Kriging with a stationary covariance that nobody stored: it is estimated from the known weights alone.

    At each lag it is the mean product of known cells that far apart, see `covariance_of_survivors`. Missing weights are
    drawn once from their conditional distribution, and the covariance of the grids so completed is the one used: a step
    of stochastic expectation maximisation (Celeux and Diebolt 1985). The draw has a seed of its own, always the same.

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
        completed = self._drawn(deviation, there, spectrum_of(covariance_of_survivors(deviation, there)))
        spectrum = spectrum_of(products_by_lag(completed) / completed.numel())
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
