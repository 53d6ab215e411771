"""Missing weights are their conditional mean given the known ones, for a covariance that a few bands describe."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from scipy.fft import dctn, idctn
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts import Sheet
from planaria.repairers.base import Record, Repairer
from planaria.repairers.conditional_mean import conditional_mean

QUARTER_OCTAVES = 4.0  # steps of a stored variance in an octave
WEAKEST = 1e-4  # of the strongest band's variance; what is weaker counts as this, so that the system is well posed


class SpectralKriging(Repairer):
    """Simple kriging (Rasmussen and Williams 2006, equation 2.19) with a covariance that is diagonal in cosines.

    The discrete cosine transform of a sheet has coefficients of independent sizes, equal within a band of frequencies:
    a stationary field with reflecting edges. `Kriging` stores a covariance for each lag, which takes kilobytes; this is
    for what a hint leaves over, where bytes are few. The conditional mean is computed by conjugate gradients, in
    O(cells log cells) an iteration and a few copies of the tensor.

    Bytes: 1 for each band, its variance in quarter octaves, and 4 for the unit: the largest coefficient, float32.

    Args:
        space: axes of a sheet, each at least 1; each row of the weight is one or more of them.
        bands: of frequencies, rings of about equal numbers of them.
        tolerance: relative residual at which conjugate gradients stop.
        iterations: at most so many.

    Raises:
        InvalidInput: if an axis is below 1, or later if a weight's rows are not whole sheets.
    """

    def __init__(self, space: tuple[int, ...], *, bands: int = 24, tolerance: float = 1e-3, iterations: int = 200):
        self.space = Sheet(space).space  # refuses axes that are none
        self.bands = bands
        self.tolerance = tolerance
        self.iterations = iterations

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        if weight.numel() == 0:
            return Record()
        coefficients = self._transformed(self._sheets(weight).cpu().double().numpy())
        band = self._band()
        count = np.bincount(band.ravel(), minlength=self.bands)
        limits = np.finfo(np.float32)
        unit = float(np.clip(np.abs(coefficients).max(), limits.tiny, limits.max))
        power = np.square(coefficients / unit).mean(0)
        variance = np.bincount(band.ravel(), power.ravel(), minlength=self.bands) / np.maximum(count, 1)
        octaves = np.log2(np.maximum(variance, 1e-300))
        levels = np.clip(np.round(-octaves * QUARTER_OCTAVES), 0, 255).astype(np.uint8)
        return Record({"variances": torch.from_numpy(levels), "unit": torch.tensor([unit], dtype=torch.float32)})

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        levels = record["variances"].cpu().double().numpy()
        if levels.shape != (self.bands,):
            raise InvalidInput(
                f"The record has {levels.shape} variances, not {self.bands}. Restore as it was prepared."
            )
        spectrum = (2.0 ** (-levels / QUARTER_OCTAVES))[self._band()]
        spectrum = np.maximum(spectrum, WEAKEST * spectrum.max())
        axes = tuple(range(1, 1 + len(self.space)))

        def covariance(values: Tensor) -> Tensor:
            back: np.ndarray = idctn(self._transformed(values.numpy()) * spectrum, axes=axes, norm="ortho")
            return torch.from_numpy(back)

        unit = float(record["unit"])
        filled = conditional_mean(
            self._sheets(visible).cpu().double() / unit,
            self._sheets(known).cpu(),
            covariance,
            tolerance=self.tolerance,
            iterations=self.iterations,
        )
        return (filled * unit).view(visible.shape).to(visible)

    def _sheets(self, weight: Tensor) -> Tensor:
        cells = int(np.prod(self.space))
        columns = weight[0].numel() if weight.dim() > 1 and len(weight) else weight.numel()
        if columns % cells:
            raise InvalidInput(f"Rows of {columns} weights are not whole sheets of {self.space}.")
        return weight.reshape(-1, *self.space)

    def _transformed(self, sheets: np.ndarray) -> np.ndarray:
        coefficients: np.ndarray = dctn(sheets, axes=tuple(range(1, sheets.ndim)), norm="ortho")
        return coefficients

    def _band(self) -> Int64[np.ndarray, "*space"]:
        """The band of each frequency: by the share of frequencies that are lower."""
        frequencies = np.indices(self.space).reshape(len(self.space), -1) / np.array(self.space)[:, None]
        order = np.argsort(np.square(frequencies).sum(0), kind="stable")
        band = np.zeros(len(order), np.int64)
        band[order] = np.arange(len(order)) * self.bands // len(order)
        return band.reshape(self.space)
