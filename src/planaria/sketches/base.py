"""The contract of a sketch: a codec that spends few bytes on what a tensor looks like."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import frexp, isnan, ldexp, sqrt

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, Int64, UInt8
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.sketches import entropy

_FINEST = 2.0**-20  # steps, in units of the largest number quantised
_RIDGE = 0.01  # second moments of few samples say too little of directions they hardly saw
_EXPONENTS = 1000
_HEADER = 4

Array = Float64[np.ndarray, "rows columns"]
Moments = Float64[np.ndarray, "columns columns"]
Groups = list[entropy.Group]


@dataclass(frozen=True, eq=False)
class AnalysedMatrix:
    """A matrix analysed, ready to be coded at any level.

    Attributes:
        sketch: whose `analyse` made it.
        weight: the matrix; float32.
        exponent: 2^exponent is the unit of all that follows: in it all weights are below 1.
        moments: those of the inputs, 1 on average, or none.
        noise: root mean square of the weights, or of what they add to the outputs.
        peak: the largest number that is quantised.
        quantise: groups of integers, for a step; none at all if every number is below it.
    """

    sketch: "Sketch"
    weight: Float32[np.ndarray, "rows columns"]
    exponent: int
    moments: Moments | None
    noise: float
    peak: float
    quantise: Callable[[float], Groups]

    def nbytes(self, level: float) -> int:
        """About the length of `encode(level)`, without coding. Raises `InvalidInput` if the level is not above 0."""
        groups = self.quantise(self._step(level))
        return _HEADER + entropy.coded_size(groups) if groups else 0

    def encode(self, level: float) -> UInt8[np.ndarray, " bytes"]:
        """The content that `Sketch.decode` reads. Nothing kept is no bytes at all.

        Args:
            level: root mean square of the quantisation noise of a number that is kept, in units of the matrix's own
                root mean square; with moments, both are those of the outputs. Numbers below it are dropped (reverse
                water-filling), and matrices of a size that are coded at one level gain alike from one byte more.

        Raises:
            InvalidInput: if the level is not above 0.
        """
        step = self._step(level)
        groups = self.quantise(step)
        if not groups:
            return np.zeros(0, np.uint8)
        body = entropy.encode_groups(groups)
        gain = self._gain(self.sketch._decode(entropy.GroupReader(body), self.weight.shape), step)
        mantissa, exponent = _halves(step * gain)
        header = np.array([mantissa, exponent + self.exponent]).astype("<i2").view(np.uint8)
        return np.concatenate([header, body])

    def _step(self, level: float) -> float:
        if isnan(level) or level <= 0:
            raise InvalidInput(f"A level is above 0, not {level}.")
        # Twice the peak drops everything; nothing is lost by stopping there.
        step = min(max(sqrt(12) * min(level, 1e30) * self.noise, _FINEST * self.peak), 2 * self.peak)
        return max(step, 1e-30)

    def _gain(self, decoded: Array, step: float) -> float:
        """What to multiply the step by: a coarse one drops more than it adds, and rounds numbers up or down."""
        unit = ldexp(step, self.exponent)
        agreeing, own = _product(decoded, self.weight, self.moments), _product(decoded, decoded, self.moments) * unit
        return min(max(agreeing / own, 0.25), 4.0) if agreeing > 0 else 1.0


class Sketch(ABC):
    """A codec for matrices of float32 (tensors of more axes: the first by all others).

    Subclasses implement `_analyse` and `_decode`. `decode` has the same bits on every machine, for any number of
    threads: the residual of a tensor and its sketch may be coded, too.
    """

    def analyse(
        self,
        weight: Float[Tensor, "rows columns"],
        *,
        moments: Float[Tensor, "columns columns"] | None = None,
    ) -> AnalysedMatrix:
        """All that does not depend on the level, which is what costs time.

        Args:
            weight: finite float32.
            moments: second moments of the inputs, symmetric and positive; only their relations count. With them, errors
                count by what they do to the outputs: tr(E M E'), a hundredth of the mean square added to each input.

        Raises:
            InvalidInput: if weight is no float32 matrix, moments do not fit it or are no moments, or either is not
                finite.
        """
        if weight.dtype != torch.float32 or weight.dim() != 2:
            raise InvalidInput(
                f"A sketch is of a float32 matrix, not {weight.dtype} of shape {tuple(weight.shape)}. Convert it, "
                "and flatten it: the first axis by all others."
            )
        if not weight.isfinite().all():
            raise InvalidInput(f"{int((~weight.isfinite()).sum())} weights are not finite. Sketch an intact tensor.")
        self._require_shape(tuple(weight.shape))
        if moments is not None and moments.shape != (weight.shape[1],) * 2:
            raise InvalidInput(
                f"Moments of {weight.shape[1]} columns are a square matrix of that size, not {tuple(moments.shape)}."
            )
        if moments is not None and not (moments.isfinite().all() and (moments.diagonal() >= 0).all()):
            raise InvalidInput("Moments are finite, with mean squares of at least 0. Calibrate again.")
        largest = float(weight.abs().max()) if weight.numel() else 0.0
        exponent = frexp(largest)[1]
        scaled = np.ldexp(weight.detach().cpu().numpy().astype(np.float64), -exponent)
        regular = _regular(moments)
        noise = sqrt(max(_product(scaled, scaled, regular), 0.0) / max(scaled.size, 1))
        peak, quantise = self._analyse(scaled, regular) if largest else (0.0, lambda step: [])
        return AnalysedMatrix(self, weight.detach().cpu().numpy(), exponent, regular, noise, peak, quantise)

    def decode(self, content: UInt8[np.ndarray, " bytes"], shape: tuple[int, int]) -> Float[Tensor, "rows columns"]:
        """The float32 matrix that the content tells of, finite. Content is treated as hostile.

        Raises:
            InvalidInput: if the content is none that `AnalysedMatrix.encode` makes for this sketch and shape.
        """
        if content.dtype != np.uint8 or content.ndim != 1:
            raise InvalidInput(f"Content is a row of uint8, not {content.dtype} of shape {content.shape}.")
        self._require_shape(shape)
        if not len(content):
            return torch.zeros(shape)
        if len(content) < _HEADER:
            raise InvalidInput(f"Content has a header of {_HEADER} bytes, and this has {len(content)} in all.")
        content = np.ascontiguousarray(content)
        mantissa, exponent = int(content[:2].view("<u2")[0]), int(content[2:4].view("<i2")[0])
        if mantissa < 1 << 15 or abs(exponent) > _EXPONENTS:
            raise InvalidInput(f"A step is no {mantissa} 2^{exponent}. The content is damaged.")
        groups = entropy.GroupReader(content[_HEADER:])
        values = self._decode(groups, shape)
        groups.finish()
        limit = np.finfo(np.float32).max
        with np.errstate(over="ignore", under="ignore"):
            values = np.ldexp(values * mantissa, exponent).clip(-limit, limit)
            return torch.from_numpy(values.astype(np.float32))

    def _require_shape(self, shape: tuple[int, ...]) -> None:
        """Raises `InvalidInput` if there is no such sketch of matrices of this shape."""
        if len(shape) != 2 or min(shape) < 0:
            raise InvalidInput(f"A sketch is of a matrix of rows and columns, not {shape}.")

    @abstractmethod
    def _analyse(self, weight: Array, moments: Moments | None) -> tuple[float, Callable[[float], Groups]]:
        """`peak` and `quantise` of a `AnalysedMatrix`. Weights are below 1 and not all 0, moments 1 on average."""

    @abstractmethod
    def _decode(self, groups: entropy.GroupReader, shape: tuple[int, int]) -> Array:
        """The matrix in units of the step, from groups as `quantise` made them. Must not round sums: see `exact`."""


def quantised(values: Float[np.ndarray, "*shape"], step: float) -> Int32[np.ndarray, "*shape"]:
    """Multiples of the step, numbers below `DEAD_ZONE` steps being 0."""
    parts = values / np.asarray(step, values.dtype)
    parts += np.copysign(np.asarray(1 - entropy.DEAD_ZONE, values.dtype), parts)
    return parts.astype(np.int32)


def quarter_codes(values: Float64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """The nearest `exact.quarter_octaves` of positive numbers."""
    return np.rint(4 * np.log2(values)).astype(np.int64)


def _product(left: Array, right: Float[np.ndarray, "rows columns"], moments: Moments | None) -> float:
    """tr(one M other'), M the moments or 1."""
    return float(np.vdot(left, right) if moments is None else np.vdot(left.T @ right, moments))


def _halves(step: float) -> tuple[int, int]:
    """Mantissa of 16 bits and exponent."""
    part, exponent = frexp(step)
    return int(part * 65536), exponent - 16


def _regular(moments: Tensor | None) -> Moments | None:
    """1 on average and positive definite; none if they are all 0."""
    if moments is None or not len(moments):
        return None
    whole = moments.detach().cpu().numpy().astype(np.float64)
    mean = np.diagonal(whole).mean()
    if not mean > 0:
        return None
    regular = (whole / mean + _RIDGE * np.eye(len(whole))) / (1 + _RIDGE)
    try:
        np.linalg.cholesky(regular)
    except np.linalg.LinAlgError:
        raise InvalidInput(
            "In these moments some combination of inputs has a negative mean square. Calibrate again."
        ) from None
    return regular
