"""The largest singular directions of each tensor, quantised."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from planaria_lab.bench.frontier.base import FrontierEstimate, SideMemory, Spaces
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective

BITS = (4, 6, 8, 16)
SCALES = 4  # bytes: a scale for either factor of a direction
RANK = 2  # bytes


class LowRankMethod(Method):
    """A truncated singular value decomposition in the norm that outputs feel, its factors in 4 to 16 bits.

    Directions of all tensors compete for the bytes by the output energy that a byte of each explains. The right factor
    is fitted anew to the quantised left one.
    """

    name = "low rank"

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        weights = objective.weights
        directions = {name: _directions(weight.flatten(1), objective.forms[name]) for name, weight in weights.items()}
        for bits in BITS:
            costs = torch.tensor([(len(weight) + weight[0].numel()) * bits / 8 + SCALES for weight in weights.values()])
            room = nbytes - RANK * len(weights)
            ranks = _ranks([gains for _, gains in directions.values()], costs, room)
            if not ranks.any():
                continue
            values = {
                name: _approximation(weight.flatten(1), directions[name][0][:, :rank], bits).view_as(weight)
                for (name, weight), rank in zip(weights.items(), ranks.tolist(), strict=True)
                if rank
            }
            yield FrontierEstimate(RANK * len(weights) + int((ranks * costs).sum().ceil()), values)


def _directions(
    rows: Float[Tensor, "rows inputs"], form: Float[Tensor, "inputs inputs"]
) -> tuple[Float[Tensor, "rows rows"], Float[Tensor, " rows"]]:
    """Orthonormal directions of the outputs, best first, and the output energy that each explains.

    They are the eigenvectors of W M_p W': projecting W on the first of them is its best approximation of that rank in
    the norm of M_p.
    """
    gains, vectors = torch.linalg.eigh((rows @ form @ rows.T).double())
    return vectors.flip(1).float(), gains.flip(0).float()


def _ranks(
    gains: list[Float[Tensor, " rows"]], costs: Float[Tensor, " tensors"], room: float
) -> Int64[Tensor, " tensors"]:
    """How many directions of each tensor to keep: those of the largest gain a byte, as long as there is room."""
    falling = [gain / cost for gain, cost in zip(gains, costs, strict=True)]
    owner = torch.cat([torch.full((len(gain),), number) for number, gain in enumerate(gains)])
    order = torch.cat(falling).argsort(descending=True, stable=True)
    taken = owner[order][costs[owner[order]].double().cumsum(0) <= room]
    return torch.bincount(taken, minlength=len(gains))


def _approximation(rows: Tensor, left: Tensor, bits: int) -> Tensor:
    left = _quantised(left, bits, axis=0)
    right = torch.linalg.lstsq(left.double(), rows.double()).solution.float()
    return left @ _quantised(right, bits, axis=1)


def _quantised(factor: Tensor, bits: int, *, axis: int) -> Tensor:
    """Uniform, a scale for each direction: the one of least squared error among a few."""
    if bits == 16:
        return factor.half().float()
    most = 2 ** (bits - 1) - 1
    whole = factor.abs().amax(axis, keepdim=True).clamp_min(1e-30) / most
    best, least = torch.zeros_like(factor), torch.full_like(whole, float("inf"))
    for share in (1.0, 0.85, 0.7, 0.55):
        scale = (share * whole).half().float().clamp_min(1e-7)
        stored = (factor / scale).round().clamp(-most, most) * scale
        error = (stored - factor).square().sum(axis, keepdim=True)
        best, least = torch.where(error < least, stored, best), torch.minimum(error, least)
    return best
