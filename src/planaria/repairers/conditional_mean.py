"""The conditional mean of missing weights given the known ones, for a covariance that is only ever applied."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def conditional_mean(
    deviation: Float[Tensor, "batch *space"],
    known: Bool[Tensor, "batch *space"],
    covariance: Callable[[Tensor], Tensor],
    *,
    tolerance: float,
    iterations: int,
) -> Float[Tensor, "batch *space"]:
    """`C (C_kk)^-1 deviation_k` for every grid of the batch, the inner solve by conjugate gradients.

    Args:
        deviation: from the mean; only known cells are looked at.
        covariance: applies C to each grid; symmetric and positive definite.
        tolerance: relative residual at which to stop.
        iterations: at most so many.
    """
    axes = tuple(range(1, deviation.dim()))

    def dot(left: Tensor, right: Tensor) -> Tensor:
        return (left * right).sum(axes, keepdim=True)

    residual = torch.where(known, deviation, 0.0)
    solution, direction = torch.zeros_like(residual), residual
    square = dot(residual, residual)
    goal = square * tolerance**2
    for _ in range(iterations):
        if (square <= goal).all():
            break
        moved = torch.where(known, covariance(direction), 0.0)
        length = square / dot(direction, moved).clamp_min(1e-300)
        solution = solution + length * direction
        residual = residual - length * moved
        previous, square = square, dot(residual, residual)
        direction = residual + square / previous.clamp_min(1e-300) * direction
    return covariance(solution)
