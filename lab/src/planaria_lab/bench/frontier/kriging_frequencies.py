"""Low frequencies of each sheet of weights, and kriging of what they leave over."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.fft import dctn
from torch import Tensor

from planaria.layouts import Sheet
from planaria.records import Record
from planaria_lab.bench.frontier.base import Masks, SideMemory, Spaces, Weights
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective
from planaria_lab.repairers import Kriging

BITS = (4, 6, 8)
SCALE = 2  # bytes of the scale of a frequency
SMALLEST = 3  # a sheet's axis, for kriging to be worth trying
TOLERANCE = 1e-3


class KrigedFrequencies(Method):
    """Coefficients of a discrete cosine transform in 4 to 8 bits, and `Kriging` of the residual by its covariance.

    Frequencies of all tensors compete for the bytes by the output energy that they explain. The covariance is stored
    whole, or as a function of distance (a few dozen bytes), or not at all: no kriging then. Tensors without sheets are
    filled with zeros.
    """

    name = "kriging + frequencies"

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        sheets = {name: space for name, space in spaces.items() if min(space) >= SMALLEST}
        for bits in BITS:
            for covariance in ("whole", "by distance", "none"):
                fixed = sum(_covariance_bytes(covariance, space) + prod(space) / 8 for space in sheets.values())
                if not sheets or fixed > nbytes:
                    continue
                kept = _frequencies(objective, sheets, bits, nbytes - fixed)
                yield _Memory(
                    {n: _Sheets.of(objective.weights[n], sheets[n], kept[n], bits, covariance) for n in sheets}
                )


@dataclass(frozen=True)
class _Sheets:
    """What is kept of one tensor: a smooth approximation, and the covariance of the rest, if any."""

    nbytes: float
    smooth: Float[Tensor, "..."]
    space: tuple[int, ...]
    record: Record | None

    @classmethod
    def of(
        cls, weight: Tensor, space: tuple[int, ...], frequencies: Int64[Tensor, " kept"], bits: int, covariance: str
    ) -> "_Sheets":
        rows = weight.reshape(-1, prod(space))
        basis = _basis(space)[frequencies]
        stored = _quantised(rows @ basis.T, bits)
        smooth = (stored @ basis).view_as(weight)
        nbytes = _covariance_bytes(covariance, space) + prod(space) / 8  # a bit for each frequency: kept or not
        nbytes += len(frequencies) * (SCALE + len(rows) * bits / 8)
        record = None
        if covariance != "none":
            record = _kriging(space).prepare((weight - smooth).reshape(rows.shape))
            record = _by_distance(record, space) if covariance == "by distance" else record
        return cls(nbytes, smooth, space, record)

    def restore(self, damaged: Tensor, known: Tensor) -> Tensor:
        filled = self.smooth
        if self.record is not None:
            flat = (-1, prod(self.space))
            rest = torch.where(known, damaged - self.smooth, 0.0)
            filled = filled + _kriging(self.space).restore(
                rest.reshape(flat), known.reshape(flat), self.record
            ).view_as(damaged)
        return torch.where(known, damaged, filled)


@dataclass(frozen=True, eq=False)
class _Memory:
    sheets: dict[str, _Sheets]

    @cached_property
    def nbytes(self) -> int:
        return int(np.ceil(sum(sheet.nbytes for sheet in self.sheets.values())))

    def restore(self, damaged: Weights, known: Masks) -> dict[str, Tensor]:
        return {
            name: self.sheets[name].restore(tensor, known[name])
            if name in self.sheets
            else torch.where(known[name], tensor, 0.0)
            for name, tensor in damaged.items()
        }


def _kriging(space: tuple[int, ...]) -> Kriging:
    return Kriging(Sheet(space), tolerance=TOLERANCE)


def _covariance_bytes(covariance: str, space: tuple[int, ...]) -> int:
    """As `Kriging` counts its record: 2 for a lag, 8 for mean and deviation."""
    lags = {"whole": space[0] * prod(2 * size for size in space[1:]), "by distance": len(_distances(space)[1])}
    return 2 * lags[covariance] + 8 if covariance in lags else 0


def _distances(space: tuple[int, ...]) -> tuple[Int64[Tensor, "*lags"], list[int]]:
    """The distance of each lag of a record, rounded; and all that occur."""
    axes = [np.arange(space[0]), *(np.fft.fftfreq(2 * size, 1 / (2 * size)) for size in space[1:])]
    square = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    # Lags beyond the sheet in one direction alone are few and noisy: they count as the longest.
    rounded = np.sqrt(square).round().clip(max=max(space)).astype(np.int64)
    return torch.from_numpy(rounded), sorted(set(rounded.flatten().tolist()))


def _by_distance(record: Record, space: tuple[int, ...]) -> Record:
    """The record with each correlation replaced by the mean at its distance: as if only these had been stored."""
    distance, _ = _distances(space)
    correlations = record["correlations"].double()
    sums = torch.bincount(distance.flatten(), correlations.flatten())
    mean = sums / torch.bincount(distance.flatten()).clamp_min(1)
    return Record(record.tensors | {"correlations": mean[distance].half()})


def _basis(space: tuple[int, ...]) -> Float[Tensor, "frequencies cells"]:
    """Orthonormal cosines."""
    size = prod(space)
    axes = tuple(range(1, len(space) + 1))
    return (
        torch.from_numpy(dctn(np.eye(size).reshape(size, *space), axes=axes, norm="ortho")).view(size, size).T.float()
    )


def _frequencies(
    objective: OutputObjective, sheets: Spaces, bits: int, room: float
) -> dict[str, Int64[Tensor, " kept"]]:
    """Which frequencies of each tensor to keep: those with most relative output energy a byte."""
    gains, costs = [], []
    for name, space in sheets.items():
        basis = _basis(space)
        weight = objective.weights[name]
        energy = (weight.reshape(-1, len(basis)) @ basis.T).square().sum(0)
        moment = objective.moments.get(name, torch.eye(weight[0].numel()))
        blocks = moment.unflatten(0, (-1, len(basis))).unflatten(2, (-1, len(basis))).diagonal(dim1=0, dim2=2).mean(-1)
        felt = ((basis @ blocks) * basis).sum(1)
        rows = weight.numel() // len(basis)
        costs.append(SCALE + rows * bits / 8)
        gains.append(objective.stresses[name] * energy * felt / (energy * felt).sum() / costs[-1])
    owner = torch.cat([torch.full((len(gain),), number) for number, gain in enumerate(gains)])
    order = torch.cat(gains).argsort(descending=True, stable=True)
    taken = torch.zeros(len(owner), dtype=torch.bool)
    taken[order] = torch.tensor(costs, dtype=torch.float64)[owner[order]].cumsum(0) <= room
    return {name: taken[owner == number].nonzero().flatten() for number, name in enumerate(sheets)}


def _quantised(coefficients: Float[Tensor, "rows kept"], bits: int) -> Float[Tensor, "rows kept"]:
    most = 2 ** (bits - 1) - 1
    scale = (coefficients.abs().amax(0) / most).half().float().clamp_min(1e-7) if coefficients.numel() else 1.0
    return (coefficients / scale).round().clamp(-most, most) * scale
