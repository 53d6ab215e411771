"""Tensors of which the guard has no statistics: the least that keeps a network alive."""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from planaria.guard.statistics import TINY

PROPORTION = 6  # doublings or halvings from a tensor's typical magnitude, past which a weight is absurd
ODD = 0.1  # share of a tensor's weights up to which a sign counts as absurd: a negative variance
USUAL = 0.1  # share of a tensor's weights from which what is no number was none before


def absurd_weights(weight: Shaped[Tensor, "*weight"]) -> tuple[Bool[Tensor, "*weight"], float, float]:
    """Weights that are no numbers or out of all proportion to the rest, the median of the rest, and its deviation.

    A variance of 1e30, or of 1e-30, ends a network as surely as one that is no number. Small weights of either sign are
    as usual as zeros are: they have to be far smaller to be absurd. Nothing is known of zeros, nor of what is no number
    where a tenth of the tensor holds the same: a mask, or padding.
    """
    values = weight.double()
    finite, magnitude = values.isfinite(), values.abs().log2()
    told = finite & (values != 0)
    typical = magnitude[told].median() if told.any() else torch.tensor(0.0, dtype=torch.float64)
    absurd = told & (magnitude - typical > PROPORTION)
    signs = [(values > 0)[told].double().mean(), (values < 0)[told].double().mean()]
    one_sign = bool(told.any()) and min(signs) < ODD
    least = float(typical) - PROPORTION if one_sign else float(typical) + torch.tensor(TINY).log2().item()
    absurd |= told & (magnitude < least)
    for other, share in zip((values > 0, values < 0), signs, strict=True):
        if told.any() and share < ODD:
            absurd |= told & other
    for kind in (values.isnan(), values == torch.inf, values == -torch.inf):
        if float(kind.double().mean()) < USUAL:
            absurd |= kind
    rest = values[~absurd & finite]
    if not rest.numel():
        return absurd, 0.0, 0.0
    return absurd, float(rest.median()), float(rest.std(correction=0))
