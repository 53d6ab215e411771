"""What no code could restore: which weights of a tensor to distrust."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.detectors import Outlier, Residual
from planaria.guard.pieces import doubtful_weights, part_of, weights_of
from planaria.guard.statistics import FLOATS, PRUNED, Statistics, shares_that_show
from planaria.repairers import Repairer

RUN = 64  # neighbouring weights that are overwritten together or not
LONG_RUN = 1024
SURE = 0.999  # the largest share of a run that can be taken for overwritten
COARSE = 0.25  # share of zeros from which they are none of 8-bit rounding
UNLIKELY = 20  # small weights to expect where none is
SMALL_BESIDE = 0.02  # share of small weights that may be beside rounded ones
FEWEST = 4  # garbage weights of a run that say something of the others
# Times the largest score of an intact weight; squared where nothing else says that weights were overwritten. Damaged
# neighbours and small changes of all weights bring a few over the limit, and none far over.
SLACK = 1.25
MOST_BROKEN = 0.2  # share of broken weights, or of odd ones, from which neighbours tell nothing of a weight
MOST_DEVIATIONS = 8.0  # by which the sum of weights that look right may be off for each root of an odd one
MOST_ODD = 0.02  # share of odd weights beside their neighbours that is no sign of noise
ODD_TO_GROSS = 10  # odd weights to those that are impossible by far
MOST_EXTREMES = 2  # weights that hold the largest or the smallest value; more are stuck
MOST_EQUAL = 16  # impossible weights of one size that are so by chance
MOST_ALIKE = 0.2  # of garbage, that is too large or too small beyond the share of random bits that are
NATURAL = 1e-4  # share of proven weights that are tiny, from which that says nothing


@dataclass(frozen=True)
class Located:
    """What is to be distrusted of a tensor, or of a piece of one. Masks over its weights, in its shape.

    Attributes:
        doubtful: weights that no proof covers whole.
        bounded: those known up to rounding of their lower half.
        missing: those to be filled in, if that is likely to be nearer to what they were.
        certain: of these, those that cannot be right.
        kept: those that look right.
    """

    doubtful: Bool[Tensor, "*weight"]
    bounded: Bool[Tensor, "*weight"]
    missing: Bool[Tensor, "*weight"]
    certain: Bool[Tensor, "*weight"]
    kept: Bool[Tensor, "*weight"]

    def outside(self, tiles: NDArray[np.bool_], piece: Entry, tile: int) -> "Located":
        """Of a piece, without these of its tiles."""
        count = self.doubtful.numel()
        left = torch.from_numpy(~np.repeat(tiles, tile * count // piece.nbytes)[:count]).view(piece.shape)
        return self._each(lambda mask: mask & left)

    def part(self, piece: Entry, entry: Entry) -> "Located":
        """Of a piece of the tensor."""
        return self._each(lambda mask: part_of(mask, piece, entry))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Located":
        return Located(*(change(getattr(self, field.name)) for field in fields(self)))


def locate(
    content: NDArray[np.uint8],
    entry: Entry,
    doubtful: NDArray[np.bool_],
    *,
    tile: int,
    sound: bool,
    statistics: Statistics,
    rule: Repairer | None,
    known: Bool[Tensor, "*weight"] | None,
) -> Located:
    """Finds the broken weights among the doubtful ones.

    Certain are those that cannot be right. Where they are so many that most of their neighbours must have been
    overwritten too, though it does not show, these are missing as well. Each other weight is judged by itself: it is
    missing if the detector, which never names an intact weight, names it.

    Args:
        content: the tensor's bytes as found, a floating-point type.
        doubtful: symbols that no proof covers.
        sound: whether the whole model looks sound, though all of it changed: then no weight is missing that can be.
        rule: the tensor's stored rule, which predicts; without one, weights are compared with their row and column.
        known: weights that a hardware test found good; then the others are missing.
    """
    weight = weights_of(content, entry)
    any_doubt, high_doubt = (torch.from_numpy(part).view(weight.shape) for part in doubtful_weights(doubtful, entry))
    broken = statistics.broken(weight)
    tiny = statistics.tiny(weight)
    if bool((tiny & ~any_doubt).sum() > NATURAL * (~any_doubt).sum()):
        broken &= ~tiny
    zero = any_doubt & (weight == 0)
    coarse = FLOATS[entry.dtype].itemsize == 1 and zero.sum() < COARSE * any_doubt.sum()  # noise brings some to zero
    rounded = coarse or (statistics.zeros <= SMALL_BESIDE and _rounded(weight, any_doubt, statistics))
    if rounded and not statistics.zeros:
        broken &= ~zero
    per_tile = tile * weight.numel() // entry.nbytes
    bounded = any_doubt & ~high_doubt & ~broken & weight.isfinite()  # half of what is no number bounds nothing
    open_ = any_doubt & ~bounded
    contradicted = torch.zeros_like(open_)
    if known is not None:
        contradicted = open_ & known & broken  # whatever the test says of them: nothing is written, and nothing claimed
        open_ &= ~known
    if not statistics.all_finite:  # what is missing may have been no number
        nothing = torch.zeros_like(open_)
        return Located(any_doubt, bounded if known is None else bounded & ~known, nothing, nothing, open_)
    certain = open_ & broken
    if statistics.zeros and not rounded:
        certain |= open_ & _zeroed(weight, open_, any_doubt, per_tile, statistics.zeros)
    if known is not None:
        right = known_extremes(weight, open_, statistics)
        if 0 < int((weight == 0).sum()) <= round(statistics.zeros * weight.numel()):  # none is more than there were
            right |= open_ & (weight == 0)
        return Located(any_doubt, bounded & ~known, open_ & ~right, certain & ~right, right | contradicted)
    garbage = certain & (weight != 0)
    if statistics.zeros >= PRUNED:  # tiny weights are zeros with a flipped bit
        garbage &= ~tiny
    garbage &= ~statistics.nearly_possible(weight, twice=True)  # by a flipped bit of the mantissa
    certain = certain | (open_ & _overwritten(weight, garbage, open_, statistics, FLOATS[entry.dtype]))
    same = stuck(weight, certain, open_)
    judged = open_ & (same | ~known_extremes(weight, open_, statistics))
    certain = (certain | same) & judged
    missing = certain
    if not sound and certain.sum() < MOST_BROKEN * open_.sum():
        missing = certain | (judged & _detected(weight, certain, judged, statistics, rule))
    return Located(any_doubt, bounded, missing, certain, open_ & ~missing)


def _detected(
    weight: Float[Tensor, "*weight"],
    certain: Bool[Tensor, "*weight"],
    judged: Bool[Tensor, "*weight"],
    statistics: Statistics,
    rule: Repairer | None,
) -> Bool[Tensor, "*weight"]:
    """Weights among those judged that are odd beside their neighbours, or their row and column."""
    detector = Outlier() if rule is None else Residual(rule)
    zeros = statistics.tiny(weight) & (statistics.zeros > 0)
    overwritten = certain & statistics.gross(weight)
    record = statistics.record(detector, slack=SLACK if overwritten.any() else SLACK**2)
    # What is already given up must not mislead the detector; it always names a NaN.
    seen = torch.where(certain & ~zeros, torch.nan, torch.where(zeros, 0.0, weight))
    if isinstance(detector, Residual):
        over = judged & ~certain & (detector.scores(seen, record) > record["limits"][0])
        others = (weight - statistics.mean).double()[~certain & ~over & weight.isfinite()]
        wrong = float(others.sum().abs()) / max(statistics.deviation, 1e-300)
        # The mean is known: the sum of all others is off by the root of how many are odd, or not all others are right.
        surprising = wrong > MOST_DEVIATIONS * float(1 + over.sum() + certain.sum()) ** 0.5
        if not over.any() or over.sum() > MOST_BROKEN * judged.sum() or surprising:
            return torch.zeros_like(certain)
    found = judged & ~certain & ~detector.find(seen, record, suspect=judged)
    # Noise on all weights brings many over the limit, which is no reason to overwrite these.
    most = ODD_TO_GROSS * overwritten.sum()
    if rule is not None:
        most = max(most, MOST_ODD * judged.sum())
    return found & bool(found.sum() <= most)


def known_extremes(
    weight: Float[Tensor, "*weight"], open_: Bool[Tensor, "*weight"], statistics: Statistics
) -> Bool[Tensor, "*weight"]:
    """Weights that are the intact tensor's largest or smallest, as far as one can tell; not where cells are stuck.

    They look odd to their rows. If but one or two are of such a size, it is them, though their last bits may differ.
    """
    extremes = torch.zeros_like(open_)
    heavy = statistics.heavy
    for share in (0.25, 0.5, 1.0) if heavy else (0.5, 1.0):
        lowest, highest = statistics.extremes(weight, share=share)
        for found in (lowest, highest) if heavy else (lowest | highest,):  # one end's outlier says nothing of the other
            extremes |= found & bool((found & open_).sum() <= MOST_EXTREMES)
    return extremes & open_


def stuck(
    weight: Float[Tensor, "*weight"], certain: Bool[Tensor, "*weight"], open_: Bool[Tensor, "*weight"]
) -> Bool[Tensor, "*weight"]:
    """Weights of a size that many impossible ones have, of either sign: cells stuck where devices end.

    None where weights repeat anyway: they were rounded, or their type has few values.
    """
    sizes, counts = weight[certain & (weight != 0) & weight.isfinite()].abs().unique(return_counts=True)
    repeated, others = sizes[counts > MOST_EQUAL], weight[open_ & ~certain]
    if not len(repeated) or 2 * len(others.unique()) < len(others):
        return torch.zeros_like(certain)
    return open_ & torch.isin(weight.abs(), repeated)


def by_tile(mask: Bool[Tensor, "*weight"], per_tile: int) -> Tensor:
    """How many there are in each tile."""
    flat = mask.flatten().long()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % per_tile))
    return padded.view(-1, per_tile).sum(1)


def spread(tiles: Shaped[Tensor, " tiles"], per_tile: int, like: Tensor) -> Tensor:
    """Each weight's part of what is said of its tile."""
    return tiles.repeat_interleave(per_tile)[: like.numel()].view(like.shape)


def _overwritten(
    weight: Float[Tensor, "*weight"],
    garbage: Bool[Tensor, "*weight"],
    open_: Bool[Tensor, "*weight"],
    statistics: Statistics,
    dtype: torch.dtype,
) -> Bool[Tensor, "*weight"]:
    """Weights that look right and were most likely overwritten with random bits, as their neighbours were.

    From the garbage in a run follows how many were overwritten, since of random bits a known share shows. Those that do
    not show have any exponent alike, where intact weights have few: that tells one from the other.
    Zeros say nothing of their neighbours, nor do other values that repeat, or of which all are too small, or too large,
    as by bits that flip one way: each of them shows.
    """
    many, large = int(garbage.sum()), int((garbage & ~statistics.tiny(weight)).sum())
    shows, shows_large = shares_that_show(statistics, dtype)
    expected = many * shows_large / max(shows, 1e-9)
    alike = abs(large - expected) > MOST_ALIKE * many + 2 * many**0.5
    if alike or 2 * len(weight[garbage].unique()) < many:
        return torch.zeros_like(garbage)
    each = torch.zeros(weight.shape, dtype=torch.float64)
    for run, deviations in ((RUN, 1), (LONG_RUN, 2)):
        sizes, count = by_tile(open_, run).double().clamp_min(1), by_tile(garbage, run)
        share = (count / sizes / max(shows, 1e-9)).clamp_max(SURE) * (run == RUN)
        whole = count >= sizes * shows - deviations * (sizes * shows * (1 - shows)).sqrt()
        share = torch.where(whole, SURE, share) * (count >= FEWEST)
        each = torch.maximum(each, spread(share, run, weight))
    exponent = torch.frexp(weight.double()).exponent.double()  # the weight is in [2^(exponent - 1), 2^exponent)
    usual = _share_within(exponent.exp2(), statistics) - _share_within((exponent - 1).exp2(), statistics)
    any_alike = 2.0 ** -(8 * dtype.itemsize - 1 + round(math.log2(torch.finfo(dtype).eps)))
    return each * any_alike > (1 - each) * usual


def _share_within(size: Float[Tensor, "*weight"], statistics: Statistics) -> Float[Tensor, "*weight"]:
    """The share of intact weights up to a size: of a normal distribution, or of Student's with 3 degrees of freedom."""
    ratio = size / max(statistics.rms, 1e-300)
    if statistics.heavy:
        return 2 / math.pi * (ratio / (1 + ratio.square()) + ratio.atan())
    return torch.erf(ratio / 2**0.5)


def _rounded(weight: Float[Tensor, "*weight"], doubtful: Bool[Tensor, "*weight"], statistics: Statistics) -> bool:
    """Whether zeros were small weights: hardly any of those beside them is small.

    Erased weights leave as many small ones as others. Of normal weights the share within x of zero is about
    0.8 x / rms; of others with such a deviation mostly more. Where coarse rounding ends, some small ones are beside.
    """
    zeros = doubtful & (weight == 0)
    if not zeros.any():
        return False
    others = doubtful & (weight != 0) & weight.isfinite()
    beside = others & spread(by_tile(zeros, RUN) > 0, RUN, weight)
    for weights, share in ((others, 0.0), (beside, SMALL_BESIDE)):
        sizes = weight[weights].abs().double().sort().values
        few = int(share * len(sizes))
        if len(sizes) and 0.8 * len(sizes) * float(sizes[few]) / max(statistics.rms, 1e-300) > 2 * few + UNLIKELY:
            return True
    return False


def _zeroed(
    weight: Float[Tensor, "*weight"],
    open_: Bool[Tensor, "*weight"],
    doubtful: Bool[Tensor, "*weight"],
    per_tile: int,
    zeros: float,
) -> Bool[Tensor, "*weight"]:
    """Zeros of tiles that hold so many that most were none, which no proven tile of the tensor does."""
    zero = weight == 0
    expected = zeros * by_tile(open_, per_tile)
    count = by_tile(open_ & zero, per_tile)
    crowded = (count > expected + 5 * expected.sqrt() + 1) & (count > 2 * expected)
    proven = by_tile(doubtful, per_tile) == 0
    if zeros and proven.any() and crowded.any():
        share = by_tile(zero, per_tile) / by_tile(torch.ones_like(zero), per_tile)
        crowded &= count / by_tile(open_, per_tile).clamp_min(1) > share[proven].max()
    found = spread(crowded, per_tile, weight) & zero
    # Zeros may stand close together, as rows that were never trained. Are they those that are known to have been?
    left = zeros * zero.numel() - int((zero & ~doubtful).sum())
    others = int((zero & doubtful & ~found).sum())
    if others <= left:  # else some of the others were erased, and nothing tells which
        left -= others
    return found & bool(found.sum() > 2 * left)
