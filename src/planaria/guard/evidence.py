"""Whether an estimate is likely to be nearer to what a weight was than what the weight holds.

A doubtful weight may be right, or slightly wrong (noise, drift, a flipped bit of the mantissa), or overwritten with
something that has nothing to do with it. An estimate helps in the last case alone. Which it is shows in the weights of
a tile together: let t be the true weight, f what is found, and p a prediction made without f, whose error e = t - p
has the known mean square E and nothing to do with p. The least-squares slope a of f on p tells how much of the true
weight is still in f: 1 if f is t or t with noise, 0 if it was overwritten. From f = a t + something independent of t
follows the mean square of what leaving f would cost, <f^2> - 2 a <t^2> + <t^2>, with <t^2> = <p^2> + E; filling in p
costs E. A change of scale alone does little to what a network answers, so f / a has to cost more than E, too.

That is asked of weights which a hardware test named. Of others that look right E may be off in any one tile, and a
alone decides: they are replaced where nothing of them is left, `unrelated`.
"""

from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.guard.locate import spread

DECISIVE = 1000.0  # times likelier, from which a hardware test is not believed
USUAL = 20.0  # how much more often weights are erased than coarsely rounded
FEWEST = 64  # weights of a tile that can be judged without the others
SURE = 2.0  # standard errors by which leaving weights must cost more than filling them in
AGAINST_ALL = 8.0  # the same, of a tile where leaving them costs less in all others together
LEAST_SLOPE_ERROR = 0.25  # of the slope, from which it tells nothing
LEAST_TOLD = 0.25  # share of the variance that predictions must tell, to tell that weights have nothing to do with them
SMALL_SLOPE_ERROR = 1 / 9  # from which a slope of 1, of weights that are there, is told from 0, of overwritten ones
FAR = 4.0  # times a prediction's error, from which a weight that has no bounds may be odd
FAR_REPORTED = 2.0  # the same as `FAR` for them: most will be odd
MEDIAN_MISS = 0.44  # of Student's distribution with 3 degrees of freedom, in deviations
FEW_ODD = 0.05  # share of those that a test named, up to which they have to be as far as others
HEAVIER = 1 / 16  # of the odds, where some weights are far larger than most
ROUNDS = 20
SURVIVORS = 1000  # proven weights that show how far from its prediction an intact weight may be


def worth_replacing(
    found: Float[Tensor, "*weight"],
    predicted: Float[Tensor, "*weight"],
    square_error: Float[Tensor, "*weight"],
    candidates: Bool[Tensor, "*weight"],
    *,
    mean: float,
    deviation: float,
    per_tile: int,
) -> Bool[Tensor, "*weight"]:
    """Weights that a hardware test named and that are better replaced by their prediction: all of a tile's, or none.

    A tile that cannot tell goes by all candidates together; where these cannot tell, none is replaced. Where
    predictions tell nothing, weights much larger than those of this tensor are were overwritten.

    Args:
        found: weights as they are; finite where they are candidates.
        predicted: what would replace them, made without them.
        square_error: to expect of it.
        candidates: weights that are judged.
        mean, deviation: of the intact weights; what the mean does not tell counts.
        per_tile: weights of a tile.
    """
    sums = _sums(found - mean, predicted - mean, square_error, candidates, per_tile)
    gain, error = _gain(sums, deviation)
    overall, overall_error = (float(part) for part in _gain(sums.sum(1), deviation))
    tells = (sums[0] >= FEWEST) & (gain.abs() > SURE * error)
    if overall < 0:  # weights of a tile are often wrongly predicted together
        tells &= (gain < 0) | (gain > AGAINST_ALL * error)
    replaced = torch.where(tells, gain > 0, overall > SURE * overall_error)
    return spread(replaced, per_tile, candidates) & candidates


def unrelated(
    found: Float[Tensor, "*weight"],
    predicted: Float[Tensor, "*weight"],
    error: float,
    candidates: Bool[Tensor, "*weight"],
    *,
    mean: float,
    deviation: float,
    per_tile: int,
) -> Bool[Tensor, "*weight"]:
    """Weights that no test named, of tiles in which nothing is left of what was predicted: they were overwritten.

    A prediction that tells little of the tensor may well tell nothing of some tile; and one that still tells something
    of a tile shows that the weights are there, however much it errs. A tile that cannot tell goes by all together.

    Args:
        error: root mean square error of the predictions.
        candidates: weights that are judged.
        mean, deviation: of the intact weights.
        per_tile: weights of a tile.
    """
    if error**2 > (1 - LEAST_TOLD) * deviation**2:
        return torch.zeros_like(candidates)
    sums = _sums(found - mean, predicted - mean, torch.zeros_like(found), candidates, per_tile)

    def compared(sums: Float[Tensor, "8 *tiles"]) -> tuple[Bool[Tensor, "*tiles"], Bool[Tensor, "*tiles"]]:
        slope, slope_error = _slope(sums)
        return slope_error < SMALL_SLOPE_ERROR, slope < 3 * slope_error

    (tells, nothing), (all_tell, nothing_at_all) = compared(sums), compared(sums.sum(1))
    tells &= sums[0] >= FEWEST
    return spread(torch.where(tells, nothing, all_tell & nothing_at_all), per_tile, candidates) & candidates


def _sums(
    found: Float[Tensor, "*weight"],
    predicted: Float[Tensor, "*weight"],
    square_error: Float[Tensor, "*weight"],
    candidates: Bool[Tensor, "*weight"],
    per_tile: int,
) -> Float[Tensor, "8 tiles"]:
    """Over the candidates of each tile: their number, and products of what is found and predicted."""
    chosen = candidates.flatten()
    f, p, e = (torch.where(chosen, part.double().flatten(), 0.0) for part in (found, predicted, square_error))
    tile = torch.arange(len(chosen)) // per_tile
    count = int(tile[-1]) + 1 if len(tile) else 0
    products = (chosen.double(), f * f, f * p, p * p, e, (f * p).square(), f * p**3, p**4)
    return torch.stack([torch.bincount(tile, product, minlength=count) for product in products])


def _slope(sums: Float[Tensor, "8 *tiles"]) -> tuple[Float[Tensor, "*tiles"], Float[Tensor, "*tiles"]]:
    """The least-squares slope of what is found on what is predicted, and its standard error.

    The larger of that of normal weights and White's (1980), which a few large ones widen; infinite without predictions.
    """
    count, ff, fp, pp, _, ffpp, fppp, pppp = sums
    least = pp.clamp_min(1e-300)
    slope = fp / least
    scatter = (ffpp - 2 * slope * fppp + slope.square() * pppp).clamp_min(0.0)
    slope_error = torch.maximum((ff / count.clamp_min(1) / least).sqrt(), scatter.sqrt() / least)
    return slope, torch.where(pp > 0, slope_error, torch.inf)


def odd_ones(
    found: Float[Tensor, "*weight"],
    predicted: Float[Tensor, "*weight"],
    error: float,
    candidates: Bool[Tensor, "*weight"],
    proven: Bool[Tensor, "*weight"],
    *,
    width: float,
    heavy: bool = False,
    reported: bool = False,
) -> Bool[Tensor, "*weight"]:
    """Candidates that are so far from their prediction that they were more likely overwritten than not.

    Overwritten weights are taken to lie anywhere in the tensor's range, others around the prediction as Student's
    distribution has it, since predictions miss large weights by much; the share of the first is found by expectation
    maximisation. No weight is odd that is no farther from its prediction
    than some proven weight of the tensor.

    Args:
        error: root mean square error of the prediction.
        proven: weights that are known to be right.
        width: of the intact range.
        heavy: whether some weights are far larger than most: it takes more for them to be odd, since predictions miss
            them as far as they miss what was overwritten; and none is that a test named among many undamaged ones.
        reported: whether a hardware test named the candidates.
    """
    missed = (found - predicted).double().abs()
    if reported and candidates.any():  # some predictions err more than they did when they were measured
        error = max(error, float(missed[candidates].median()) / MEDIAN_MISS)
    least = (FAR_REPORTED if reported else FAR) * error
    far = candidates & (missed > least)
    if error <= 0 or not far.any():
        return torch.zeros_like(candidates)
    f, p = found[candidates].double(), predicted[candidates].double()
    slope = float((f * p).sum() / p.square().sum().clamp_min(1e-300))
    if 0 < slope < 1:  # all weights may have shrunk: drift
        missed = torch.minimum(missed, (found - slope * predicted).double().abs())
        far &= missed > least
    if int(proven.sum()) >= SURVIVORS:
        far &= missed > missed[proven].max()
    scale = error / 3**0.5  # of Student's distribution with 3 degrees of freedom, which has that deviation
    ratio = missed[candidates] / scale
    usual = 2 / (torch.pi * 3**0.5) / (1 + ratio.square() / 3).square() / scale
    odds = (HEAVIER if heavy and not reported else 1.0) / (max(width, FAR * error) * usual)
    share = torch.tensor(0.1 if reported else 0.01, dtype=torch.float64)
    for _ in range(ROUNDS):
        overwritten = share * odds / (1 - share + share * odds)
        share = overwritten.mean().clamp(1e-9, 1 - 1e-9)
    likely = torch.zeros_like(candidates)
    likely[candidates] = overwritten > 0.5
    odd = far & likely
    if reported and odd.sum() < FEW_ODD * candidates.sum():  # the test named what is hardly damaged
        odd &= (missed > FAR * error) & (not heavy)
    return odd & bool(2 * odd.sum() < candidates.sum())  # else the predictions are what is odd


def small_ones(
    zeros: Bool[Tensor, "*weight"], predicted: Float[Tensor, "*weight"], error: float, *, reported: bool
) -> bool:
    """Whether weights that became zero are better left so: small ones, as by coarse rounding or drift, and not any.

    Of erased weights the predictions are as large as of others. Of weights that were nearly zero they are as large as
    the predictor's error lets them be: their mean square is the share E / (<p^2> + E) of that of others. Filling in
    costs E for each of these and saves <p^2> for each erased one, so that poor predictions take strong evidence.

    Args:
        reported: whether a hardware test named them: then they were most likely erased.
    """
    count = int(zeros.sum())
    if not count or count == zeros.numel():
        return False
    square = predicted.double().square()
    others, found = float(square[~zeros].mean()), float(square[zeros].mean())
    small = others * error**2 / max(others + error**2, 1e-300)
    if not 0 < small < others:
        return False
    # The logarithm of how much likelier such a mean is of the one variance than of the other, all being normal.
    likelier = count / 2 * (log(others / small) - found * (1 / small - 1 / others))
    return likelier > log(others / error**2) + log(DECISIVE if reported else USUAL)


def _gain(sums: Float[Tensor, "8 *tiles"], deviation: float) -> tuple[Float[Tensor, "*tiles"], Float[Tensor, "*tiles"]]:
    """Squared error that filling in saves, and its standard error, from sums over the candidates of each tile."""
    count, ff, _, pp, error, *_ = sums
    true = pp + error
    slope, slope_error = _slope(sums)
    tells = slope_error < LEAST_SLOPE_ERROR
    slope = torch.where(tells, slope, 1.0)
    true = torch.where(tells, true, true.maximum(count * deviation**2))
    left = (ff - 2 * slope * true + true).clamp_min(0.0)
    square = slope.square()
    rescaled = torch.where(slope > LEAST_SLOPE_ERROR, (ff / square.clamp_min(1e-300) - true).clamp_min(0.0), torch.inf)
    left = torch.where(tells, torch.minimum(left, rescaled), left)
    return left - error, 2 * true * torch.where(tells, slope_error, (2 / count.clamp_min(1)).sqrt())
