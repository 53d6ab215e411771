"""Missing weights are their conditional mean given the known ones, for a stationary covariance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts import Layout
from planaria.repairers import Record, Repairer
from planaria.repairers.conditional_mean import conditional_mean


class Kriging(Repairer):
    """Simple kriging (Matheron 1963; Rasmussen and Williams 2006, equation 2.19 with the noise in the covariance).

    `prepare` stores the mean and the autocovariance of the intact grids at every lag: the biased estimate, whose
    Fourier transform is a periodogram and so never negative, pooled over the batch. `restore` computes the exact
    conditional mean by conjugate gradients; the covariance acts by fast Fourier transform on a grid of twice the size,
    so memory stays at a few copies of the tensor and time at O(cells log cells) an iteration.

    Bytes: 2 for each lag of a half-space, 8 for mean and deviation.

    Args:
        layout: how the tensor becomes grids, each repaired on its own.
        tolerance: relative residual at which conjugate gradients stop.
        iterations: at most so many.
    """

    def __init__(self, layout: Layout, *, tolerance: float = 1e-5, iterations: int = 500):
        self.layout = layout
        self.tolerance = tolerance
        self.iterations = iterations

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        grid = self.layout.to_grid(weight).double()
        if grid.numel() == 0:
            return Record()
        space = grid.shape[1:]
        mean = grid.mean()
        transformed = torch.fft.rfftn(grid - mean, s=_doubled(space), dim=_axes(space))
        lags = torch.fft.irfftn(transformed.abs().square().mean(0), s=_doubled(space)) / space.numel()
        variance = lags.flatten()[0]
        correlations = lags[: space[0]] / variance.clamp_min(1e-300)
        return Record(
            {"correlations": correlations.half(), "mean_and_deviation": torch.stack([mean, variance.sqrt()]).float()}
        )

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        grid = self.layout.to_grid(visible).double()
        there = self.layout.to_grid(known)
        mean, deviation = record["mean_and_deviation"].to(grid)
        if deviation <= 0:
            return torch.full_like(visible, mean.item())
        filled = self._conditional_mean(grid - mean, there, self._spectrum(record, grid))
        return self.layout.from_grid((filled + mean).to(visible), tuple(visible.shape))

    def _spectrum(self, record: Record, grid: Float[Tensor, "batch *space"]) -> Float[Tensor, "*spectrum"]:
        """Eigenvalues of the covariance on the doubled grid, in units of the variance."""
        space = grid.shape[1:]
        stored = record["correlations"].to(grid)
        if stored.shape != (space[0], *_doubled(space)[1:]):
            raise InvalidInput(
                f"The record holds lags {tuple(stored.shape)}, which are not those of grids of {tuple(space)}. "
                "Restore with the record and layout that prepared it."
            )
        lags = grid.new_zeros(_doubled(space))
        lags[: space[0]] = stored
        if space[0] > 1:  # the other half: the covariance at minus a lag is that at the lag
            others = tuple(range(1, len(space)))
            mirrored = stored[1:].flip(tuple(range(len(space))))
            lags[space[0] + 1 :] = mirrored.roll([1] * len(others), others) if others else mirrored
        spectrum = torch.fft.rfftn(lags).real
        # Rounding to 2 bytes pushes small eigenvalues below zero; a floor keeps the covariance positive definite.
        return spectrum.clamp_min(1e-6 * spectrum.max())

    def _conditional_mean(
        self,
        deviation: Float[Tensor, "batch *space"],
        known: Bool[Tensor, "batch *space"],
        spectrum: Float[Tensor, "*spectrum"],
    ) -> Float[Tensor, "batch *space"]:
        """The conditional mean of every grid; the covariance acts by fast Fourier transform."""
        space = deviation.shape[1:]
        axes = _axes(space)
        inside = (slice(None), *(slice(size) for size in space))

        def covariance(values: Tensor) -> Tensor:
            transformed = torch.fft.rfftn(values, s=_doubled(space), dim=axes) * spectrum
            return torch.fft.irfftn(transformed, s=_doubled(space), dim=axes)[inside]

        return conditional_mean(deviation, known, covariance, tolerance=self.tolerance, iterations=self.iterations)


def _doubled(space: torch.Size) -> list[int]:
    """Twice the grid: room for every lag without wrapping around."""
    return [2 * size for size in space]


def _axes(space: torch.Size) -> tuple[int, ...]:
    return tuple(range(1, len(space) + 1))
