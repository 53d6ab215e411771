"""The low frequencies of weights that lie in a plane, such as those of a neuron that looks at an image."""

from collections.abc import Callable
from math import prod

import numpy as np
from jaxtyping import Float64, Int64
from scipy.fft import dctn

from planaria.errors import InvalidInput
from planaria.sketches import exact
from planaria.sketches.base import Array, Groups, Moments, Sketch, quantised, quarter_codes
from planaria.sketches.entropy import GroupReader


class LowFrequency(Sketch):
    """A cosine transform of each row, its coefficients quantised in bands of equal frequency.

    The transform is the orthonormal DCT-II over the axes of `space`. Its frequencies, in order of their distance from
    0 (in cycles a cell), are cut in bands: one that has n below it holds 1 + n // 4. A band's step is the smaller the
    more the inputs hold of it (to quarter octaves; all alike without moments), so that all noise is alike in the
    outputs. Where weights are smooth, the bands above some frequency fall below the level and cost nothing.

    Groups: quarter octaves of each band's step, then the bands' coefficients, row by row.

    Args:
        space: sizes of the axes that the columns are, last one fastest; (28, 28) for 784 columns.

    Raises:
        InvalidInput: if a size is below 1; in `analyse` and `decode`, if there are not as many columns.
    """

    def __init__(self, space: tuple[int, ...]):
        if not space or min(space) < 1:
            raise InvalidInput(f"A space has one or more axes of 1 or more cells, not {space}.")
        self.space = tuple(space)

    def _analyse(self, weight: Array, moments: Moments | None) -> tuple[float, Callable[[float], Groups]]:
        coefficients = self._transformed(weight)
        bands = self._bands()
        codes = np.zeros(len(bands), np.int64)
        if moments is not None:
            felt = np.diagonal(self._transformed(self._transformed(moments).T))
            codes = quarter_codes(1 / np.sqrt([felt[band].mean() for band in bands]))
        scaled = [
            (coefficients[:, band] / quarter_octaves).astype(np.float32).ravel()
            for band, quarter_octaves in zip(bands, exact.quarter_octaves(codes), strict=True)
        ]

        def quantise(step: float) -> Groups:
            groups = [quantised(values, step) for values in scaled]
            return [codes, *groups] if any(group.any() for group in groups) else []

        peak = max(float(np.abs(values).max(initial=0)) for values in scaled)
        return peak, quantise

    def _decode(self, groups: GroupReader, shape: tuple[int, int]) -> Array:
        bands = self._bands()
        steps = exact.quarter_octaves(groups.take(len(bands)))
        values = np.zeros(shape)
        for band, step in zip(bands, steps, strict=True):
            values[:, band] = groups.take(shape[0] * len(band)).reshape(shape[0], len(band)) * step
        values = values.reshape(shape[0], *self.space)
        for axis, size in enumerate(self.space, 1):
            moved = np.moveaxis(values, axis, -1)
            summed = exact.product(moved.reshape(-1, size), _cosines(size))
            values = np.moveaxis(summed.reshape(moved.shape), -1, axis)
        return values.reshape(shape)

    def _require_shape(self, shape: tuple[int, ...]) -> None:
        super()._require_shape(shape)
        if shape[1] != prod(self.space):
            raise InvalidInput(
                f"A space of {self.space} has {prod(self.space)} cells, and there are {shape[1]} columns."
            )

    def _transformed(self, rows: Array) -> Array:
        axes = tuple(range(1, 1 + len(self.space)))
        return dctn(rows.reshape(-1, *self.space), axes=axes, norm="ortho").reshape(rows.shape)

    def _bands(self) -> list[Int64[np.ndarray, " band"]]:
        """Flat places of the frequencies of each band; a frequency k along n cells is k / 2 n cycles a cell."""
        square = np.zeros(self.space)
        for axis, size in enumerate(self.space):
            square += np.square(np.arange(size) / size).reshape(
                [-1 if own == axis else 1 for own in range(square.ndim)]
            )
        starts = [0]
        while (following := starts[-1] + 1 + starts[-1] // 4) < square.size:
            starts.append(following)
        return np.split(square.ravel().argsort(kind="stable"), starts[1:])


def _cosines(size: int) -> Float64[np.ndarray, "frequencies cells"]:
    """The orthonormal DCT-II's functions, to 2^-14 of the largest."""
    frequency, cell = np.arange(size)[:, None], np.arange(size)
    # The angle is reduced as integers: cos of a large one would be less exact.
    functions = np.cos(np.pi / (2 * size) * (frequency * (2 * cell + 1) % (4 * size)))
    norms = np.sqrt(np.where(frequency == 0, 1, 2) / size)
    return np.rint(functions * 2.0**14) * 2.0**-14 * norms
