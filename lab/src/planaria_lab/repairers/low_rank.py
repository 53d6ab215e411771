"""Missing weights follow from a low-rank matrix that agrees with the known ones."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria import streams
from planaria.repairers import Record, Repairer
from planaria_lab.repairers.mean_fill import known_mean


class LowRank(Repairer):
    """Matrix completion by soft-impute (Mazumder, Hastie, Tibshirani 2010, algorithm 1). No bytes.

    A tensor is a matrix of its first axis by all others. The nuclear-norm weight is chosen on a tenth of the known
    weights held out, along a warm-started path from the largest singular value downwards; the rank follows from it.
    Each iteration costs one eigendecomposition of the smaller Gram matrix.

    Args:
        path: nuclear-norm weights to try.
        iterations: soft-impute iterations for each.
        seed: of the held-out weights.
    """

    def __init__(self, *, path: int = 12, iterations: int = 15, seed: int = 0):
        self.path = path
        self.iterations = iterations
        self.seed = seed

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        rows = visible.shape[0] if visible.dim() > 1 else 1
        # In units of the largest weight, so that no square overflows.
        unit = visible.abs().max().clamp_min(torch.finfo(visible.dtype).tiny)
        scaled = visible / unit
        mean = known_mean(scaled, known)
        matrix = torch.where(known, scaled - mean, 0.0).reshape(rows, -1)
        there = known.reshape(rows, -1)
        flip = matrix.shape[0] > matrix.shape[1]
        if flip:
            matrix, there = matrix.T, there.T
        draw = torch.rand(there.shape, generator=streams.generator(self.seed, "low rank held out")).to(matrix.device)
        held_out = there & (draw < 0.1)
        taught = there & ~held_out
        largest = torch.linalg.matrix_norm(torch.where(taught, matrix, 0.0).double(), ord=2).item()
        penalties = [largest * 0.7 ** (1 + depth) for depth in range(self.path)]
        errors, filled = [], torch.zeros_like(matrix)
        for penalty in penalties:
            filled = self._soften(matrix, taught, filled, penalty)
            errors.append((filled - matrix)[held_out].square().sum().item())
        best = min(range(self.path), key=errors.__getitem__)
        filled = torch.zeros_like(matrix)
        for penalty in penalties[: best + 1]:
            filled = self._soften(matrix, there, filled, penalty)
        return ((filled.T if flip else filled).reshape(visible.shape) + mean) * unit

    def _soften(
        self,
        matrix: Float[Tensor, "rows columns"],
        known: Bool[Tensor, "rows columns"],
        filled: Float[Tensor, "rows columns"],
        penalty: float,
    ) -> Float[Tensor, "rows columns"]:
        for _ in range(self.iterations):
            whole = torch.where(known, matrix, filled)
            squares, vectors = torch.linalg.eigh((whole @ whole.T).double())
            kept = (1 - penalty / squares.clamp_min(1e-30).sqrt()).clamp_min(0)
            filled = ((vectors * kept) @ vectors.T).to(whole) @ whole
        return filled
