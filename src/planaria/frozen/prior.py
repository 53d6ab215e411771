"""What is known of grids before one of them is seen: covariances, of which the survivors say how much of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from planaria import streams
from planaria.errors import InvalidInput

LENGTHS = (1.0, 2.5, 6.0)  # cells, of the kinds that are only smooth
MOST_CELLS = 1024  # of a grid: a repair holds a few dozen matrices of their square
AT_ONCE = 2**24  # numbers of the matrices that are solved in one go
LEAST_NOISE = 1e-3  # of the variance: keeps float32 solves sound
ROUNDS = 25  # of the search for the shares
LEAST_SHARE = 1e-6  # of the variance, and its inverse at most
GRIDS, CELLS = 16, 128  # of the sample that the shares are estimated from
BELIEF = 250.0  # grids' worth of the prior in the adapted covariance


@dataclass(frozen=True)
class Surveyed:
    """What a prior says of grids.

    Attributes:
        mean: of every cell given the survivors of its grid; known cells keep their weight.
        told: what else the survivors tell of the tensor: the shares of its variance that taught kinds and noise
            explain, and the share of cells that are known, each in [0, 1].
    """

    mean: Float32[Tensor, "batch *space"]
    told: Float32[Tensor, " told"]


TOLD = 3


class Prior:
    """Grids are draws from a Gaussian of mean 0 whose covariance is a sum of kinds, each with a share of its own.

    Kinds are those that a population taught, three that are only smooth (separable exponential covariances of fixed
    lengths, for grids such as the population never saw), and noise. The shares are those under which the survivors are
    most likely (Rasmussen and Williams 2006, section 5.4.1), found on a sample of them. The covariance is then moved
    once towards that of the grids themselves: a step of expectation-maximisation under an inverse Wishart prior worth
    `BELIEF` grids, for what they have in common and no kind has. Nothing of this is stored with a network.

    Args:
        fields: `[kinds, modes, height, width]`: a kind's covariance is the sum of its fields' outer products, and
        remainder: `[kinds, height, width]`, the variance that they leave. Grids of other sizes take them resampled.

    Raises `InvalidInput` on other shapes, numbers that are not finite, or a negative remainder.
    """

    def __init__(
        self, fields: Float[Tensor, "kinds modes height width"], remainder: Float[Tensor, "kinds height width"]
    ):
        if fields.dim() != 4 or remainder.shape != fields[:, 0].shape or not fields.isfinite().all():
            raise InvalidInput(
                f"Fields of shape {tuple(fields.shape)} and remainders of {tuple(remainder.shape)} make no prior."
            )
        if not (remainder.isfinite() & (remainder >= 0)).all():
            raise InvalidInput("The variance that fields leave is finite and not negative.")
        self.fields = fields.float()
        self.remainder = remainder.float()

    def surveyed(self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]) -> Surveyed:
        """The conditional means of missing cells.

        Args:
            weight: of mean 0 and deviation about 1; what is missing is never looked at.

        Cost: O(cells^3) for each grid, a third of it multiplications, 27 grids of 28 x 28 at a time; some 30 matrices
        of cells^2 numbers in memory.
        """
        covariance, shares = self._adapted(weight, known)
        flat, there = _flat(weight, known)
        mean = torch.cat([_conditional(covariance, *part).mean for part in _parts(flat, there)])
        taught, noise = shares[: len(self.fields)].sum() / shares.sum(), shares[-1] / shares.sum()
        told = torch.stack([taught, noise, there.float().mean()])
        return Surveyed(torch.where(there, flat, mean).view(weight.shape), told)

    def left_one_out(
        self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
    ) -> Float32[Tensor, "batch *space"]:
        """Each cell's mean given all other known cells of its grid, in the time of one survey (Dubrule 1983)."""
        covariance, _ = self._adapted(weight, known)
        flat, there = _flat(weight, known)
        predicted = []
        for values, mask in _parts(flat, there):
            found = _conditional(covariance, values, mask)
            stiffness = torch.cholesky_inverse(found.factor).diagonal(dim1=1, dim2=2)
            moved = torch.zeros_like(values).scatter_(1, found.cells, found.pull / stiffness)
            predicted.append(torch.where(mask, values - moved, found.mean))
        return torch.cat(predicted).view(weight.shape)

    def without(self, kind: int) -> "Prior":
        """The same for grids of which this kind of the population is not known."""
        others = [at for at in range(len(self.fields)) if at != kind]
        return Prior(self.fields[others], self.remainder[others])

    def _adapted(
        self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
    ) -> tuple[Float32[Tensor, "cells cells"], Float32[Tensor, " kinds"]]:
        """The covariance of these grids, from their survivors, and the shares of the kinds."""
        kinds = self.covariances(tuple(weight.shape[1:])).to(weight.device)
        flat, there = _flat(weight, known)
        some = torch.linspace(0, len(flat) - 1, min(GRIDS, len(flat))).round().long()
        flat, there, count = flat[some], there[some], len(flat)
        shares = _shares(kinds, flat, there)
        prior = (shares[:, None, None] * kinds).sum(0)
        squares, inverses = torch.zeros_like(prior), torch.zeros_like(prior)
        for values, mask in _parts(flat, there):
            found = _conditional(prior, values, mask)
            squares += found.mean.T @ found.mean
            for inverse, cells, those in zip(
                torch.cholesky_inverse(found.factor), found.cells, found.there, strict=True
            ):
                own = cells[those]
                inverses[own.unsqueeze(1), own] += inverse[: len(own), : len(own)]
        squares += len(flat) * prior - prior @ inverses @ prior  # what the survivors leave open
        return (BELIEF * prior + count / len(flat) * squares) / (BELIEF + count), shares

    def covariances(self, space: tuple[int, ...]) -> Float32[Tensor, "kinds cells cells"]:
        """Of grids of these two axes: the kinds', those of the smooth ones, and noise."""
        self.require(space)
        fields = _resampled(self.fields, space).flatten(2)
        remainder = _resampled(self.remainder.unsqueeze(0), space)[0].flatten(1)
        taught = [of.T @ of + torch.diag(left) for of, left in zip(fields, remainder, strict=True)]
        smooth = [_exponential(space, length) for length in LENGTHS]
        return torch.stack([*taught, *smooth, torch.eye(math.prod(space))])

    def require(self, space: tuple[int, ...]) -> None:
        """Raises `InvalidInput` on grids of other than two axes, or above 1,024 cells."""
        if len(space) != 2 or not 0 < math.prod(space) <= MOST_CELLS:
            raise InvalidInput(f"A prior is of grids of two axes and at most {MOST_CELLS:,} cells, not of {space}.")


def _exponential(space: Sequence[int], length: float) -> Float32[Tensor, "cells cells"]:
    lags = [(torch.arange(size)[:, None] - torch.arange(size)).abs() for size in space]
    return torch.kron(*((-lag / length).exp() for lag in lags))


def _resampled(maps: Float[Tensor, "batch maps *space"], space: tuple[int, ...]) -> Tensor:
    if tuple(maps.shape[2:]) == space or not maps.numel():
        return maps.new_zeros(*maps.shape[:2], *space) if not maps.numel() else maps
    return F.interpolate(maps, space, mode="bilinear", antialias=True)


def _flat(weight: Tensor, known: Tensor) -> tuple[Float32[Tensor, "batch cells"], Bool[Tensor, "batch cells"]]:
    known = known.flatten(1)
    return torch.where(known, weight.flatten(1).float(), 0.0), known


def _parts(flat: Tensor, there: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    """As many grids at a time as memory is meant for."""
    size = max(1, AT_ONCE // flat.shape[1] ** 2)
    return list(zip(flat.split(size), there.split(size), strict=True))


@dataclass(frozen=True)
class _Conditional:
    """What the survivors of some grids say of all their cells.

    Attributes:
        mean: of every cell.
        factor: of the survivors' covariance (Cholesky), in the order of `cells`.
        pull: the survivors' precision times their values.
        cells, there: each grid's survivors first, and which of them are survivors: grids have not equally many.
    """

    mean: Float32[Tensor, "batch cells"]
    factor: Float32[Tensor, "batch most most"]
    pull: Float32[Tensor, "batch most"]
    cells: Int64[Tensor, "batch most"]
    there: Bool[Tensor, "batch most"]


def _conditional(
    covariance: Float32[Tensor, "cells cells"],
    values: Float32[Tensor, "batch cells"],
    known: Bool[Tensor, "batch cells"],
) -> _Conditional:
    cells = known.int().argsort(dim=1, descending=True, stable=True)[:, : int(known.sum(1).max())]
    there = known.gather(1, cells)
    among = covariance[cells.unsqueeze(2), cells.unsqueeze(1)] * (there.unsqueeze(1) & there.unsqueeze(2))
    among.diagonal(dim1=1, dim2=2).add_((~there).float() + LEAST_NOISE * covariance.diagonal().mean())
    factor = torch.linalg.cholesky(among)
    pull = torch.cholesky_solve(values.gather(1, cells).unsqueeze(-1), factor).squeeze(-1)
    mean = torch.zeros_like(values).scatter_(1, cells, pull) @ covariance
    return _Conditional(mean, factor, pull, cells, there)


def _shares(
    kinds: Float32[Tensor, "kinds cells cells"],
    values: Float32[Tensor, "batch cells"],
    known: Bool[Tensor, "batch cells"],
) -> Float32[Tensor, " kinds"]:
    """Under which a sample of the survivors is most likely; equal ones if hardly anything survives.

    By the multiplicative steps of Zhou, Hu, Qiao and Cho (2019, section 3), without the root that makes each of them
    more likely for certain: so they come as far in half the steps.
    """
    count = min(CELLS, int(known.sum(1).min()))
    if count < 2:
        return torch.full((len(kinds),), 1 / len(kinds), device=kinds.device)
    drawn = torch.rand(known.shape, generator=streams.generator(0, "prior sample")).to(known.device)
    cells = (drawn + known).topk(count, dim=1).indices
    sample = values.gather(1, cells).unsqueeze(-1)
    flat = kinds[:, cells.unsqueeze(2), cells.unsqueeze(1)].flatten(1)
    shares = torch.full((len(kinds),), 1 / len(kinds), device=kinds.device)
    for _ in range(ROUNDS):
        whole = (shares @ flat).view(-1, count, count)
        whole.diagonal(dim1=1, dim2=2).add_(LEAST_NOISE)
        factor = torch.linalg.cholesky(whole)
        pull = torch.cholesky_solve(sample, factor)
        shown = flat @ (pull * pull.transpose(1, 2)).flatten()
        expected = flat @ torch.cholesky_inverse(factor).flatten()
        shares = (shares * shown / expected).clamp(LEAST_SHARE, 1 / LEAST_SHARE)
    return shares
