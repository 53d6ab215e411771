"""Missing weights are their conditional mean given the known ones, for the covariance that the rows themselves show."""

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts import Layout
from planaria.repairers import Record
from planaria_lab.repairers.kriging import Kriging

ROUNDS = 2  # of the sample covariance and what it fills in
MOST_CELLS = 4096  # of a grid: the covariance is a matrix of 128 MiB then


class RowKriging(Kriging):
    """Kriging with a covariance that differs from place to place, learned from the other grids.

    `Kriging` supposes that all places of a grid are alike. Here the covariance is `1 - share` times that one plus
    `share` times the sample covariance of the other grids, shrunk towards a target (Ledoit and Wolf 2004); their own
    missing weights are filled by `Kriging` first, and once more by this. It pays from about a hundred grids on; one
    grid alone is repaired as by `Kriging`. The conditional mean is exact, from the inverse of the covariance.

    Bytes: as `Kriging`. Time: O(cells^3), and O(missing^3) for each grid. Space: a few matrices of cells^2.

    Args:
        layout: how the tensor becomes grids, of at most 4,096 cells each.
        share: of the sample covariance, at least 0 and below 1.

    Raises:
        InvalidInput: on another share, or later on larger grids.
    """

    def __init__(self, layout: Layout, *, share: float = 0.15):
        super().__init__(layout)
        if not 0 <= share < 1:
            raise InvalidInput(f"The share of the sample covariance is at least 0 and below 1, not {share}.")
        self.share = share

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        cells = self.layout.to_grid(weight)[:1].numel()
        if cells > MOST_CELLS:
            raise InvalidInput(f"Grids have at most {MOST_CELLS:,} cells here, not {cells:,}. Use Kriging.")
        return super()._prepare(weight)

    def left_one_out(
        self, weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        """Each weight's conditional mean given all other known ones, all in the time of one `restore` (Dubrule 1983).

        A grid's covariance is not learned from itself, so that no weight has a part in its own prediction. Float32 or
        float64, finite where known, as `_fill` gets them.
        """
        if weight.numel() == 0:
            return weight.clone()
        visible = torch.where(known, weight, 0.0)
        grid = self.layout.to_grid(visible).double()
        mean, deviation = record["mean_and_deviation"].to(grid)
        if deviation <= 0:
            return torch.full_like(weight, mean.item())
        there = self.layout.to_grid(known).flatten(1)
        rows, inverse, added = self._filled(grid, there, record)
        pull = rows @ inverse + added * (added * rows).sum(1, keepdim=True)
        stiffness = inverse.diagonal() + added.square()
        for number in (~there).any(1).nonzero().flatten():
            missing = (~there[number]).nonzero().flatten()
            among, across = _parts(inverse, added[number], missing)
            stiffness[number] -= (across * torch.linalg.solve(among, across)).sum(0)
        predicted = torch.where(there, rows - pull / stiffness, rows)
        return self.layout.from_grid((predicted * deviation + mean).view(grid.shape).to(visible), tuple(weight.shape))

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        grid = self.layout.to_grid(visible).double()
        mean, deviation = record["mean_and_deviation"].to(grid)
        if deviation <= 0:
            return torch.full_like(visible, mean.item())
        rows, _, _ = self._filled(grid, self.layout.to_grid(known).flatten(1), record)
        return self.layout.from_grid((rows * deviation + mean).view(grid.shape).to(visible), tuple(visible.shape))

    def _filled(
        self, grid: Float64[Tensor, "batch *space"], known: Bool[Tensor, "batch cells"], record: Record
    ) -> tuple[Float64[Tensor, "batch cells"], Float64[Tensor, "cells cells"], Float64[Tensor, "batch cells"]]:
        """The filled grids in units of the deviation, M, and a vector a each: M + a a^T is that grid's precision."""
        mean, deviation = record["mean_and_deviation"].to(grid)
        rows = torch.where(known, ((grid - mean) / deviation).flatten(1), 0.0)
        stationary = self._stationary(record, grid)
        inverse, added = torch.linalg.inv(stationary), torch.zeros_like(rows)
        _fill_in(rows, known, inverse, added)
        each = self.share / max(len(rows) - 1, 1)
        for _ in range(ROUNDS if each and len(rows) > 1 else 0):
            inverse = torch.linalg.inv((1 - self.share) * stationary + each * rows.T @ rows)
            # What a grid was filled with tells nothing of how grids vary: its own share of the covariance is taken off
            # again (Sherman and Morrison 1950).
            moved = rows @ inverse
            added = (each / (1 - each * (rows * moved).sum(1, keepdim=True))).sqrt() * moved
            _fill_in(rows, known, inverse, added)
        return rows, inverse, added

    def _stationary(self, record: Record, grid: Float64[Tensor, "batch *space"]) -> Float64[Tensor, "cells cells"]:
        """The covariance of all pairs of cells, in units of the variance."""
        space, spectrum = grid.shape[1:], self._spectrum(record, grid)
        axes, doubled = tuple(range(1, grid.dim())), [2 * size for size in space]
        one = torch.zeros(1, *doubled).to(grid)
        one.view(-1)[0] = 1
        lags = torch.fft.irfftn(torch.fft.rfftn(one, dim=axes) * spectrum, s=doubled, dim=axes)[0]
        at = torch.cartesian_prod(*(torch.arange(size) for size in space)).view(-1, len(space)).T
        apart = tuple((place[:, None] - place) % (2 * size) for place, size in zip(at, space, strict=True))
        return lags[apart]


def _fill_in(
    rows: Float64[Tensor, "batch cells"],
    known: Bool[Tensor, "batch cells"],
    inverse: Float64[Tensor, "cells cells"],
    added: Float64[Tensor, "batch cells"],
) -> None:
    """Writes the conditional mean of the missing cells."""
    for number in (~known).any(1).nonzero().flatten():
        missing = (~known[number]).nonzero().flatten()
        among, across = _parts(inverse, added[number], missing)
        rows[number, missing] = -torch.linalg.solve(among, across @ torch.where(known[number], rows[number], 0.0))


def _parts(
    inverse: Float64[Tensor, "cells cells"], added: Float64[Tensor, " cells"], missing: Int64[Tensor, " missing"]
) -> tuple[Float64[Tensor, "missing missing"], Float64[Tensor, "missing cells"]]:
    """A grid's precision among its missing cells, and between these and all."""
    across = inverse[missing] + added[missing, None] * added
    return across[:, missing], across
