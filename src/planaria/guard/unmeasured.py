"""Tensors of which the guard has no statistics: the least that keeps a network alive."""

from math import log2

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from planaria.guard.statistics import TINY

PROPORTION = 6  # doublings or halvings from a tensor's typical magnitude, past which a weight of one sign is absurd
OUTLIERS = 12  # doublings, past which any weight is: of either sign, some are hundreds of times as large as others
ODD = 0.03  # share of a vector's weights up to which a sign counts as absurd: a negative variance
USUAL = 0.1  # share of a tensor's weights from which what is no number was none before
REPEATED = 3  # weights of one value
SMALLEST = -64  # doublings: what is smaller says nothing of a typical magnitude
RUN = 4  # neighbours that hold the same and are no number, as in a row of padding, from which they were before


def absurd_weights(weight: Shaped[Tensor, "*weight"]) -> tuple[Bool[Tensor, "*weight"], float, float]:
    """Weights that are no numbers or out of all proportion to the rest, the median of the rest, and its deviation.

    A variance of 1e30, or of 1e-30, ends a network as surely as one that is no number. Weights of either sign may be
    small, and a few of them large: they have to be far smaller or larger to be absurd. A small one that others equal to
    the bit is a floor that somebody set. Nothing is known of zeros; and none is absurd where much of the tensor or a
    row of neighbours is no number: a mask, or padding, and what was made of them.
    """
    values = weight.double()
    nothing = torch.zeros(weight.shape, dtype=torch.bool)
    finite, magnitude = values.isfinite(), values.abs().log2()
    kinds = [values.isnan(), values == torch.inf, values == -torch.inf]
    if any(float(kind.double().mean()) >= USUAL or _in_runs(kind).any() for kind in kinds):
        return nothing, 0.0, 0.0
    told = finite & (values != 0)
    sizeable = told & (magnitude > SMALLEST)
    typical = float(magnitude[sizeable if sizeable.sum() > 2 else told].median()) if told.any() else 0.0
    signs = [(values > 0)[told].double().mean(), (values < 0)[told].double().mean()]
    one_sign = weight.dim() < 2 and bool(told.any()) and min(signs) < ODD
    most, least = (PROPORTION, -PROPORTION) if one_sign else (OUTLIERS, log2(TINY))
    small = told & (magnitude - typical < least)
    if small.any():
        _, place, count = values[small].unique(return_inverse=True, return_counts=True)
        small[small.clone()] = count[place] < REPEATED
    absurd = ~finite | small | (told & (magnitude - typical > most))
    for other, share in zip((values > 0, values < 0), signs, strict=True):
        if one_sign and share < ODD:
            absurd |= told & other
    rest = values[~absurd]
    if not rest.numel():
        return absurd, 0.0, 0.0
    return absurd, float(rest.median()), float(rest.std(correction=0))


def _in_runs(mask: Bool[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
    """Those that stand in a row of neighbours."""
    line = torch.nn.functional.pad(mask.flatten(), (RUN - 1, RUN - 1))
    starts = line.unfold(0, RUN, 1).all(1)
    within = starts.unfold(0, RUN, 1).any(1)
    return (within & mask.flatten()).view(mask.shape)
