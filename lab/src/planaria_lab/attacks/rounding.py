"""From floating stand-ins back to stored numbers, without leaving the budget."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def nearest(values: Float[Tensor, "*weight"], dtype: torch.dtype) -> Shaped[Tensor, "*weight"]:
    """The nearest numbers that `dtype` holds; what is past its range becomes its largest finite number."""
    if dtype == torch.int8:
        return values.round().clamp(-128, 127).to(dtype)
    bounds = torch.finfo(dtype)
    return values.clamp(bounds.min, bounds.max).to(dtype)


def stored_within(
    moved: Float[Tensor, "*weight"],
    stored: Shaped[Tensor, "*weight"],
    *,
    each: float | Float[Tensor, "*weight"] = float("inf"),
    together: float = float("inf"),
) -> Shaped[Tensor, "*weight"]:
    """Stored numbers near the floating `moved` ones that differ from the intact `stored` ones by no more than allowed.

    Each by at most `each`; all of them, in the l2 norm, by at most `together`. Rounding to the nearest may step over
    either: then a weight takes the next number towards the intact one, and of many the smallest moves are given up.
    Limits of int8 weights are in steps. Computed in float64.
    """
    intact = stored.double()
    target = moved.double()
    way = target - intact
    new = nearest(target, stored.dtype)
    spacing = torch.ones_like(target) if stored.dtype == torch.int8 else target.abs() * torch.finfo(stored.dtype).eps
    nearer = nearest(target - way.sign() * torch.minimum(spacing, way.abs()), stored.dtype)
    for instead in (nearer, stored):
        new = _where((new.double() - intact).abs() <= each, new, instead)
    steps = (new.double() - intact).square().flatten()
    if steps.sum().sqrt() > together:
        order = way.abs().flatten().argsort(descending=True, stable=True)
        fits = torch.empty_like(order, dtype=torch.bool)
        # A hair below, since another order of summation may round up.
        fits[order] = steps[order].cumsum(0).sqrt() <= together * (1 - 1e-12)
        new = _where(fits.view(stored.shape), new, stored)
    return new


def _where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    # torch.where does not know every float8.
    return (
        torch.where(condition, one.view(torch.uint8), other.view(torch.uint8)).view(one.dtype)
        if (one.element_size() == 1)
        else torch.where(condition, one, other)
    )
