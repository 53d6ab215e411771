"""Every sketch there is, for a space of columns: what the contract suite runs over."""

from collections.abc import Callable

import numpy as np
import torch
from helpers import drawn
from torch import Tensor

from planaria.sketches import FirstBits, LowFrequency, LowRankSketch, Sketch

Maker = Callable[[tuple[int, ...]], Sketch]

MEMBERS: dict[str, Maker] = {
    "low frequency": LowFrequency,
    "low rank": lambda space: LowRankSketch(),
    "first bits": lambda space: FirstBits(),
}


def moments_of(columns: int, *, seed: int = 0, samples: int = 300) -> Tensor:
    """Second moments of inputs that are correlated and of unequal size."""
    inputs = drawn(samples, columns, seed=seed, name="test inputs") @ drawn(columns, columns, seed=seed, name="mix")
    return inputs.T @ inputs / samples


def relative_error(found: Tensor, weight: Tensor, moments: Tensor | None = None) -> float:
    """Energy of the error in the energy of the weights, or both in the outputs."""
    error, whole = found.double() - weight.double(), weight.double()
    metric = torch.eye(weight.shape[1], dtype=torch.float64) if moments is None else moments.double()
    return float(((error @ metric) * error).sum() / ((whole @ metric) * whole).sum())


def error_at(sketch: Sketch, nbytes: int, weight: Tensor, moments: Tensor | None, metric: Tensor) -> float:
    """Relative error in the outputs of the best content of at most so many bytes."""
    analysed = sketch.analyse(weight, moments=moments)
    level = next(level for level in np.geomspace(0.01, 10, 300) if analysed.nbytes(level) <= nbytes)
    return relative_error(sketch.decode(analysed.encode(level), tuple(weight.shape)), weight, metric)
