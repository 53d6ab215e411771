"""Tensors of which the guard has no statistics: the least that keeps a network alive."""

from math import inf

import numpy as np
import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

PROPORTION = 12  # doublings, or halvings where all have one sign, from a typical magnitude to an absurd one
FAR_OUT = 3.0  # interquartile ranges of magnitudes past the quartiles up to which none is absurd: Tukey's outer fences
RARE = 0.01  # share of weights up to which large ones are absurd beside the others
ENORMOUS = 40.0  # doublings of 1, past which any weight is absurd
MAJORITY = 0.9  # share of weights that have to be in proportion for others to be absurd
MAJORITY_OF_VECTOR = 0.75
ODD = 0.01  # share of a vector's weights up to which a sign counts as absurd, as one weight does: a negative variance
NEXT = 4.0  # doublings below absurd ones, in which there are fewer weights, or they are the tail of these
USUAL = 0.02  # share of a tensor's weights from which what is no number was none before
REPEATED = 2  # small weights of one magnitude, from which it is a floor that was set
SHORT = 50  # weights of a vector, among which one of another sign says nothing
SMALLEST = -64  # doublings: what is smaller says nothing of a typical magnitude
NEAR_ZERO = 4.0  # doublings from the smallest of a vector's weights to the median, from which they reach to zero
RUN = 4  # neighbours that are no number in the same way, as of padding, from which they were none before
LEAST_SHOWING = 64  # weights that a test named, to each that is absurd, past which none was overwritten
CENTRED = 0.5  # deviations from zero, up to which weights lie about it and zero is what stands for any
IN_A_ROW = 3  # of a row that are no number, and as many as of all others, from which they were none before


def absurd_weights(weight: Shaped[Tensor, "*weight"]) -> tuple[Bool[Tensor, "*weight"], float, float]:
    """Weights that are no numbers or out of all proportion to the rest; what stands for them, and what it errs.

    That is the median of the rest, or zero where they lie about it.

    A variance of 1e30, or of 1e-30, ends a network as surely as one that is no number. A few weights may be a thousand
    times as large as others, and many of either sign far smaller. Small ones of one magnitude are at a floor that
    somebody set. Nothing is known of zeros; and none is absurd where some of a matrix or a row of neighbours is no
    number: a mask, or padding, and what was made of them.
    """
    values = weight.double()
    finite, magnitude, vector = values.isfinite(), values.abs().log2(), weight.dim() < 2
    usable = finite & (values != 0)
    as_found = not vector and (_held_no_numbers(values) or _destroyed(weight))
    usual = None if as_found else _usual_sizes(values[usable], vector=vector)
    nothing = torch.zeros(weight.shape, dtype=torch.bool)
    if usual is None:
        return nothing, 0.0, 0.0
    least, most = usual
    signs = [(values > 0)[usable].double().mean(), (values < 0)[usable].double().mean()]
    one_sign = vector and bool(usable.any()) and min(signs) < max(ODD, 1.5 / max(int(usable.sum()), SHORT))
    small = usable & one_sign & (magnitude < least)  # else as good as zero
    if small.any():
        _, place, count = magnitude[small].round().unique(return_inverse=True, return_counts=True)
        small[small.clone()] = count[place] < REPEATED
    large = usable & (magnitude > most)
    next_to = usable & ~large & (magnitude > most - NEXT)
    # These may be the usual ones, or the tail of some.
    if large.double().mean() > (1 - MAJORITY if vector else RARE) or next_to.sum() > large.sum():
        large = usable & (magnitude > ENORMOUS)
    if not vector and large.any():
        large &= ~_padding(large, values)
    if vector and (small | large | ~finite).sum() < 2:  # one may be a floor that was set
        small &= False
    absurd = ~finite | small | large
    if one_sign and signs[1] < 0.5:  # scales and variances are positive; what is negative throughout is neither
        least = _least_that_lost_its_sign(magnitude[usable & (values > 0) & ~absurd])
        absurd |= usable & (values < 0) & (magnitude > least)
    rest = values[~absurd]
    if len(rest) < (MAJORITY_OF_VECTOR if vector else MAJORITY) * values.numel():  # nothing is known of what is typical
        absurd = (~finite | (usable & (magnitude > ENORMOUS))) if vector else nothing
        rest = values[~absurd]
    if not len(rest):
        return absurd, 0.0, 0.0
    value = float(rest.median())
    if not one_sign and abs(value) < CENTRED * float(rest.std(correction=0)):
        value = 0.0
    return absurd, value, float((rest - value).square().mean().sqrt())


def mildly_damaged(
    weight: Shaped[Tensor, "*weight"], named: Bool[Tensor, "*weight"], absurd: Bool[Tensor, "*weight"]
) -> Bool[Tensor, "*weight"]:
    """Absurd weights that hold about what they were, of those that a hardware test named: some tensors have such.

    So it is if hardly any of the weights named is absurd. Bits that flip, and random ones, would show in more of them.
    """
    values = weight.double()
    usable = named & values.isfinite() & (values != 0)
    few = (absurd & named).sum() * LEAST_SHOWING < usable.sum()
    return absurd & usable & (values.abs().log2() <= ENORMOUS) & few


def _least_that_lost_its_sign(magnitude: Float64[Tensor, " values"]) -> float:
    """The size from which a weight of the other sign is not beyond zero by chance, as biases are, in doublings."""
    if len(magnitude) < 2:
        return inf
    smallest, small, typical = np.quantile(magnitude.numpy(), (0.01, 0.05, 0.5)).tolist()
    return inf if smallest < typical - NEAR_ZERO else small


def _destroyed(weight: Shaped[Tensor, "*weight"]) -> bool:
    """Whether a type of 8 bits, of which any value is usual, is no number nearly as often as random bits are."""
    if weight.element_size() > 1:
        return False
    patterns = torch.arange(256).to(torch.uint8).view(weight.dtype).double()
    no_numbers = [1 - float(numbers.isfinite().double().mean()) for numbers in (weight.double(), patterns)]
    return bool(no_numbers[0] > no_numbers[1] / 4 > 0)


def _held_no_numbers(values: Float64[Tensor, "*weight"]) -> bool:
    """Whether some of a matrix was no number before, as of masks or padding: many, neighbours, or most in one row."""
    kinds = [values.isnan(), values == torch.inf, values == -torch.inf]
    repeated = max(int(kind.sum()) for kind in kinds[1:]) > 1
    if repeated or any(float(kind.double().mean()) >= USUAL or bool(_in_runs(kind).any()) for kind in kinds):
        return True
    each = (~values.isfinite()).flatten(1).sum(1)
    return len(each) > 1 and int(each.max()) >= max(IN_A_ROW, int(each.sum()) / 2)


def _usual_sizes(values: Float64[Tensor, " values"], *, vector: bool) -> tuple[float, float] | None:
    """The least and the largest size in proportion to these, in doublings of 1; None where no size is typical."""
    # Each value once: where cells are stuck at one, it is not typical.
    held = values.unique().abs().log2()
    sizeable = held[held > SMALLEST]
    destroyed = 2 * len(sizeable) < len(held)  # no tensor is like that
    sizeable = sizeable if len(sizeable) > 2 else held if len(held) else torch.zeros(1, dtype=torch.float64)
    first, typical, third = np.quantile(sizeable.numpy(), (0.25, 0.5, 0.75)).tolist()
    if not vector and (third - first > PROPORTION or typical > ENORMOUS):  # scattered, or of a mask
        return None
    if destroyed:
        return -inf, ENORMOUS
    reach = FAR_OUT * (third - first)
    return min(typical - PROPORTION, first - reach), max(typical + PROPORTION, third + reach)


def _padding(large: Bool[Tensor, "*weight"], values: Float64[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
    """Large weights of a row of padding, as a narrow type holds it: neighbours of one value, or most of one row."""
    found = _in_runs(large, values)
    by_row, held = large.flatten(1), values.flatten(1)
    fullest = int(by_row.sum(1).argmax())
    same = by_row[fullest] & (held[fullest] == held[fullest][by_row[fullest]].median())
    if same.sum() >= max(IN_A_ROW, int(large.sum()) / 2):
        found.flatten(1)[fullest] |= same
    return found


def _in_runs(
    mask: Bool[Tensor, "*weight"], values: Float64[Tensor, "*weight"] | None = None
) -> Bool[Tensor, "*weight"]:
    """Those that stand in a row of neighbours, of equal ones if values are given."""
    line = torch.nn.functional.pad(mask.flatten(), (RUN - 1, RUN - 1))
    starts = line.unfold(0, RUN, 1).all(1)
    if values is not None:
        neighbours = torch.nn.functional.pad(values.flatten(), (RUN - 1, RUN - 1)).unfold(0, RUN, 1)
        starts &= (neighbours == neighbours[:, :1]).all(1)
    within = starts.unfold(0, RUN, 1).any(1)
    return (within & mask.flatten()).view(mask.shape)
