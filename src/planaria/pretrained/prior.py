"""What is known of grids before one of them is seen: covariances, of which the survivors say how much of each."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from planaria import streams
from planaria.errors import InvalidInput
from planaria.stationary import correlations_of_pairs, covariance_of_survivors, lags_of_pairs, spectrum_of

LENGTHS = (1.0, 2.5, 6.0)  # cells, of the kinds that are only smooth
MOST_CELLS = 1024  # of a grid: a repair holds a few dozen matrices of their square
AT_ONCE = 2**24  # numbers of the matrices that are solved in one go
LEAST_NOISE = 1e-3  # of the variance: keeps float32 solves sound
ROUNDS = 25  # of the search for the shares
LEAST_SHARE = 1e-6  # of the variance, and its inverse at most
SAMPLE = 48 * 784  # cells of the grids that the covariance is adapted to
CELLS, EVERY = 128, 3  # of each third of these grids, for the shares
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

    Kinds are those that a population taught; for grids such as it never saw, three that are only smooth (separable
    exponential covariances of fixed lengths) and the stationary one that the survivors show; and noise. The shares are
    those under which the survivors are most likely (Rasmussen and Williams 2006, section 5.4.1), found on a sample of
    them. The covariance is then moved once towards that of the grids themselves, for what they have in common and no
    kind has: a step of expectation-maximisation under an inverse Wishart prior worth `BELIEF` grids. Where taught kinds
    explain little, what was expected is first made stationary. Nothing of this is stored with a network.

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
        flat, present = _flat(weight, known)
        mean = torch.cat([found.mean.float() for found in _conditionals(covariance, flat, present)])
        taught, noise = shares[: len(self.fields)].sum() / shares.sum(), shares[-1] / shares.sum()
        features = torch.stack([taught, noise, present.float().mean()])
        return Surveyed(torch.where(present, flat, mean).view(weight.shape), features)

    def left_one_out(
        self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
    ) -> Float32[Tensor, "batch *space"]:
        """Each cell's mean given all other known cells of its grid, in the time of one survey (Dubrule 1983)."""
        covariance, _ = self._adapted(weight, known)
        flat, present = _flat(weight, known)
        predicted = []
        for found in _conditionals(covariance, flat, present):
            stiffness = found.stiffness().clamp_min(torch.finfo(torch.float32).tiny)  # where nothing is known it is 0
            predicted.append((found.mean - found.pull / stiffness).float())
        return torch.cat(predicted).view(weight.shape)

    def _adapted(
        self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
    ) -> tuple[Float32[Tensor, "cells cells"], Float32[Tensor, " kinds"]]:
        """The covariance of these grids, from their survivors, and the shares of the kinds."""
        kinds = self.covariances(tuple(weight.shape[1:])).to(weight.device)
        kinds = torch.cat([kinds[:-1], _shown(weight, known).unsqueeze(0), kinds[-1:]])
        most = min(max(1, SAMPLE // kinds.shape[1]), len(weight))
        rows = torch.linspace(0, len(weight) - 1, most).round().long()
        flat, present = _flat(weight[rows], known[rows])
        shares = _shares(kinds, flat[::EVERY], present[::EVERY], tuple(weight.shape[1:]))
        prior = (shares[:, None, None] * kinds).sum(0)
        squares = len(flat) * prior
        for found in _conditionals(prior, flat, present):
            left_open = prior @ found.summed_precision().float() @ prior
            squares = squares + found.mean.float().T @ found.mean.float() - left_open
        taught = shares[: len(self.fields)].sum()
        unlike = shares[-2] / (shares[-2] + taught)  # nearly 1 where no kind fits, and nearly 0 where one does
        stationary = _stationary(squares, tuple(weight.shape[1:]))
        without = (shares[: len(self.fields), None, None] * kinds[: len(self.fields)]).sum(0)
        prior = (1 - unlike) * prior + unlike * (without + (shares.sum() - taught) * stationary)
        return (BELIEF * prior + squares) / (BELIEF + len(flat)), shares

    def covariances(self, space: tuple[int, ...]) -> Float32[Tensor, "kinds cells cells"]:
        """Of grids of these two axes: the kinds', those of the smooth ones, and noise."""
        self.require(space)
        fields = _resampled(self.fields, space).flatten(2)
        remainder = _resampled(self.remainder.unsqueeze(0), space)[0].flatten(1)
        taught = [field.T @ field + torch.diag(left) for field, left in zip(fields, remainder, strict=True)]
        smooth = [_exponential(space, length) for length in LENGTHS]
        return torch.stack([*taught, *smooth, torch.eye(math.prod(space))])

    def require(self, space: tuple[int, ...]) -> None:
        """Raises `InvalidInput` on grids of other than two axes, or above 1,024 cells."""
        if not takes(space):
            raise InvalidInput(f"A prior is of grids of two axes and at most {MOST_CELLS:,} cells, not of {space}.")


def takes(space: Sequence[int]) -> bool:
    """Whether priors are of such grids: two axes, and not too many cells."""
    return len(space) == 2 and 0 < math.prod(space) <= MOST_CELLS


def _shown(weight: Tensor, known: Tensor) -> Float32[Tensor, "cells cells"]:
    """The stationary covariance that the survivors show, in units of its variance."""
    space = tuple(weight.shape[1:])
    deviation = torch.where(known, weight, 0.0).double()
    spectrum = spectrum_of(covariance_of_survivors(deviation, known))
    return correlations_of_pairs(torch.fft.irfftn(spectrum, s=[2 * size for size in space]), space)


def _stationary(covariance: Float32[Tensor, "cells cells"], space: tuple[int, ...]) -> Float32[Tensor, "cells cells"]:
    """What pairs of cells have in common that lie equally far apart, in units of the variance: never negative."""
    sums = torch.zeros(4 * math.prod(space), dtype=torch.float64, device=covariance.device)
    sums.index_add_(0, lags_of_pairs(space).flatten().to(sums.device), covariance.double().flatten())
    return correlations_of_pairs(sums.view(*(2 * size for size in space)), space)


def _nearness(drawn: Float32[Tensor, "batch cells"], space: tuple[int, ...]) -> Float32[Tensor, "batch cells"]:
    """In [0, 1): how near each cell is to the one that was drawn highest."""
    cells = torch.arange(math.prod(space), device=drawn.device)
    rows, columns = cells // space[1], cells % space[1]
    centre = drawn.argmax(1, keepdim=True)
    distance = ((rows - rows[centre]).square() + (columns - columns[centre]).square()).float().sqrt()
    return 0.99 - 0.98 * distance / math.hypot(*space)


def _exponential(space: Sequence[int], length: float) -> Float32[Tensor, "cells cells"]:
    lags = [(torch.arange(size)[:, None] - torch.arange(size)).abs() for size in space]
    return torch.kron(*((-lag / length).exp() for lag in lags))


def _resampled(maps: Float[Tensor, "batch maps *space"], space: tuple[int, ...]) -> Tensor:
    if not maps.numel():
        return maps.new_zeros(*maps.shape[:2], *space)
    return maps if tuple(maps.shape[2:]) == space else F.interpolate(maps, space, mode="bilinear", antialias=True)


def _flat(weight: Tensor, known: Tensor) -> tuple[Float32[Tensor, "batch cells"], Bool[Tensor, "batch cells"]]:
    known = known.flatten(1)
    return torch.where(known, weight.flatten(1).float(), 0.0), known


@dataclass(frozen=True)
class _Conditional:
    """What the survivors of some grids say of all their cells.

    Solved on the smaller side: on survivors with the covariance, or on missing cells with its inverse, which all grids
    share (Rasmussen and Williams 2006, A.2 and A.3).

    Attributes:
        mean: of every cell.
        pull: the survivors' precision times their values; 0 at missing cells.
        cells, there: the solved side's cells, of each grid first, and which of them are: grids have not equally many.
        factor: of that side's part of the matrix (Cholesky), in the order of `cells`.
        precision: the inverse of the covariance if missing cells were solved for; else None.
    """

    mean: Float[Tensor, "batch cells"]
    pull: Float[Tensor, "batch cells"]
    cells: Int64[Tensor, "batch most"]
    present: Bool[Tensor, "batch most"]
    factor: Float[Tensor, "batch most most"]
    precision: Float64[Tensor, "cells cells"] | None

    def stiffness(self) -> Float[Tensor, "batch cells"]:
        """The diagonal of the survivors' precision; 0 at missing cells."""
        if self.precision is None:
            return torch.zeros_like(self.mean).scatter_(1, self.cells, self._inverse().diagonal(dim1=1, dim2=2))
        return self.precision.diagonal() - self._explained(self.precision).square().sum(1)

    def summed_precision(self) -> Float[Tensor, "cells cells"]:
        """Of all grids, with zeros at what each of them misses."""
        if self.precision is None:
            summed = self.mean.new_zeros(self.mean.shape[1], self.mean.shape[1])
            for inverse, cells in zip(self._inverse(), self.cells, strict=True):
                summed[cells.unsqueeze(1), cells] += inverse
            return summed
        explained = self._explained(self.precision).flatten(0, 1)
        return len(self.mean) * self.precision - explained.T @ explained

    def _inverse(self) -> Float[Tensor, "batch most most"]:
        return torch.cholesky_inverse(self.factor) * (self.present.unsqueeze(1) & self.present.unsqueeze(2))

    def _explained(self, precision: Float64[Tensor, "cells cells"]) -> Float64[Tensor, "batch most cells"]:
        """Of which the squares are what a precision loses with the missing cells."""
        rows = precision[self.cells] * self.present.unsqueeze(2)
        return torch.linalg.solve_triangular(self.factor, rows, upper=False)


def _conditionals(
    covariance: Float32[Tensor, "cells cells"],
    values: Float32[Tensor, "batch cells"],
    known: Bool[Tensor, "batch cells"],
) -> Iterator[_Conditional]:
    """Of as many grids at a time as memory is meant for."""
    noise = LEAST_NOISE * covariance.diagonal().mean().clamp_min(1e-3)  # grids without differences have next to none
    noisy = covariance + noise * torch.eye(len(covariance)).to(covariance)
    precision = None
    if known.double().mean() > 0.6:  # where much survives float32 loses too much of what tells the inverse apart
        precision = torch.cholesky_inverse(torch.linalg.cholesky(noisy.double()))
    size = max(1, AT_ONCE // known.shape[1] ** 2)
    for part, present in zip(values.split(size), known.split(size), strict=True):
        if precision is None:
            cells, chosen, factor = _factored(noisy, present)
            pull = torch.zeros_like(part).scatter_(1, cells, _solved(factor, part.gather(1, cells)))
            yield _Conditional(pull @ noisy, pull, cells, chosen, factor, None)
        else:
            cells, chosen, factor = _factored(precision, ~present)
            drawn = part.double() @ precision
            filled = torch.zeros_like(drawn).scatter_(1, cells, -_solved(factor, drawn.gather(1, cells) * chosen))
            pull = (drawn + filled @ precision) * present
            yield _Conditional(torch.where(present, part, filled), pull, cells, chosen, factor, precision)


def _factored(
    matrix: Float[Tensor, "cells cells"], wanted: Bool[Tensor, "batch cells"]
) -> tuple[Int64[Tensor, "batch most"], Bool[Tensor, "batch most"], Float[Tensor, "batch most most"]]:
    """The wanted cells of each grid, padded to equally many, and the factor of their part of a matrix."""
    cells = wanted.int().argsort(dim=1, descending=True, stable=True)[:, : int(wanted.sum(1).max())]
    chosen = wanted.gather(1, cells)
    among = matrix[cells.unsqueeze(2), cells.unsqueeze(1)] * (chosen.unsqueeze(1) & chosen.unsqueeze(2))
    among.diagonal(dim1=1, dim2=2).add_(~chosen)
    return cells, chosen, torch.linalg.cholesky(among)


def _solved(factor: Float[Tensor, "batch most most"], right: Float[Tensor, "batch most"]) -> Tensor:
    return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


def _shares(
    kinds: Float32[Tensor, "kinds cells cells"],
    values: Float32[Tensor, "batch cells"],
    known: Bool[Tensor, "batch cells"],
    space: tuple[int, ...],
) -> Float32[Tensor, " kinds"]:
    """Under which a sample of the survivors is most likely; equal ones if hardly anything survives.

    Of half of the grids it is what lies together, which tells noise from structure, of the others what is far apart.

    By the multiplicative steps of Zhou, Hu, Qiao and Cho (2019, section 3), without the root that makes each of them
    more likely for certain: so they come as far in half the steps.
    """
    count = min(CELLS, int(known.sum(1).max()))
    if count < 2:
        return torch.full((len(kinds),), 1 / len(kinds), device=kinds.device)
    drawn = torch.rand(known.shape, generator=streams.generator(0, "prior sample")).to(known.device)
    drawn[::2] = _nearness(drawn[::2], space)
    cells = (drawn + known).topk(count, dim=1).indices
    chosen = known.gather(1, cells)
    sample = values.gather(1, cells).unsqueeze(-1)
    flat = (kinds[:, cells.unsqueeze(2), cells.unsqueeze(1)] * (chosen.unsqueeze(1) & chosen.unsqueeze(2))).flatten(1)
    shares = torch.full((len(kinds),), 1 / len(kinds), device=kinds.device)
    for _ in range(ROUNDS):
        whole = (shares @ flat).view(-1, count, count)
        whole.diagonal(dim1=1, dim2=2).add_(LEAST_NOISE + (~chosen).float())
        factor = torch.linalg.cholesky(whole)
        pull = torch.cholesky_solve(sample, factor)
        shown = flat @ (pull * pull.transpose(1, 2)).flatten()
        expected = flat @ torch.cholesky_inverse(factor).flatten()
        # Of grids without differences the stationary kind is nothing.
        shares = (shares * shown / expected.clamp_min(1e-30)).clamp(LEAST_SHARE, 1 / LEAST_SHARE)
    return shares
