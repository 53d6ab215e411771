"""What to fill missing weights with, and whether that is nearer to what they were than what they hold."""

from dataclasses import dataclass, replace
from math import pi

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.guard.evidence import FEW_ODD, odd_ones, small_ones, worth_replacing
from planaria.guard.locate import MOST_EXTREMES, RUN, Located, by_tile, spread, stuck
from planaria.guard.manifest import RuleShape
from planaria.guard.pieces import part_of, weights_of
from planaria.guard.rules import within_reach
from planaria.guard.statistics import FLOATS, Statistics
from planaria.records import Record
from planaria.repairers import Repairer

# Of what zero errs: a rule that is no better at such damage is not used, and what is no better replaces no weight that
# looks right in a model that looks sound.
BETTER = 0.95
# A weight whose most significant 16 bits are known differs from any that shares them by at most this share of itself.
HIGH_HALF = {"F32": 2.0**-7, "F64": 2.0**-4}
ROUNDING = 1e-12  # of a bound
TINY_SHARE = 1e-6  # of a normal variable: what lies beyond it is at the nearest bound
NARROW = 1e-3  # deviations, over which it is uniform
ROUNDED = 1.01  # an error is stored to three digits, and that of a prior alone is the weights' own at worst
WILD = 2.0  # times a tensor's variance, which some parts of it exceed
MOST_WRONG = 0.25  # share of survivors that cannot be right, past which the others are no start for a rule
CROWDED = 0.9  # share of a tile's weights that are missing from which it counts as lost when it is filled


@dataclass(frozen=True)
class MemoryEstimate:
    """What the memory says of a tensor's doubtful weights, or of a piece's. In float64 and its shape.

    Attributes:
        value: the weight to expect.
        low, high: bounds that the refinement proves; infinite where it tells nothing.
        sketch: what the sketch alone says, whatever the weights hold; zeros without one.
        contradicted: weights that look right beside their row, but not beside the sketch; never where a test said what
            is missing.
        error: root mean square error to expect of `sketch`, and at most of `value` where there are no bounds; None if
            there is neither a sketch nor a prior.
    """

    value: Float[Tensor, "*weight"]
    low: Float[Tensor, "*weight"]
    high: Float[Tensor, "*weight"]
    sketch: Float[Tensor, "*weight"]
    contradicted: Bool[Tensor, "*weight"]
    error: float | None

    @property
    def sketched(self) -> bool:
        """Whether there is a sketch, and not a prior alone."""
        return bool(self.sketch.any())

    @property
    def told(self) -> Bool[Tensor, "*weight"]:
        """Weights of which the refinement tells something."""
        return self.low.isfinite() | self.high.isfinite()

    def inside(self, weight: Float[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights that may be right for all that the refinement tells."""
        return inside(weight, self.low, self.high)

    def within(self, statistics: Statistics) -> "MemoryEstimate":
        """With bounds on both sides of what the refinement bounds on one: no weight is beyond the intact range."""
        bounded = self.told
        low = torch.where(bounded, self.low.clamp_min(statistics.lowest), self.low)
        high = torch.where(bounded, self.high.clamp_max(statistics.highest), self.high)
        return replace(self, low=torch.minimum(low, high), high=high)

    def part(self, piece: Entry, entry: Entry) -> "MemoryEstimate":
        """Of a piece of the tensor."""
        return replace(
            self,
            value=part_of(self.value, piece, entry),
            low=part_of(self.low, piece, entry),
            high=part_of(self.high, piece, entry),
            sketch=part_of(self.sketch, piece, entry),
            contradicted=part_of(self.contradicted, piece, entry),
        )


def inside(
    weight: Float[Tensor, "*weight"], low: Float[Tensor, "*weight"], high: Float[Tensor, "*weight"]
) -> Bool[Tensor, "*weight"]:
    """Weights between their bounds, which are sums, and so rounded."""
    slack = ROUNDING * torch.maximum(low.abs().nan_to_num(posinf=0.0), high.abs().nan_to_num(posinf=0.0))
    return (weight >= low - slack) & (weight <= high + slack)


@dataclass(frozen=True)
class Estimate:
    """One piece of a tensor after estimation. Masks are over its weights.

    Attributes:
        content: its bytes.
        bounded: weights known up to a bound: by rounding of their lower half, or by the refinement.
        missing: weights that were filled in without one.
        kept: weights without proof that look right and stay.
        believed: weights without proof that a hardware test calls good.
        bound: of the bounded weights; 0 if there are none.
        expected_error: root mean squared error of the missing ones; 0 if there are none.
        methods: what filled weights in.
    """

    content: NDArray[np.uint8]
    bounded: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    believed: NDArray[np.bool_]
    bound: float
    expected_error: float
    methods: tuple[str, ...] = ()


def estimate(
    content: NDArray[np.uint8],
    entry: Entry,
    located: Located,
    *,
    tile: int,
    statistics: Statistics,
    rule: Repairer | None,
    shape: RuleShape | None,
    memory_estimate: MemoryEstimate | None = None,
    mapped: bool = False,
    sound: bool = False,
) -> Estimate:
    """Fills in what is missing. All other weights stay bit for bit.

    Where the refinement gives bounds, a weight outside of them is missing, too, and one inside stays as it is; so is
    one that is odd beside its sketch, or in a tile whose weights have nothing to do with their sketch. A weight is
    filled by the rule or by the memory, whichever erred less when the model was protected, within the bounds; without
    either, by zero, or by the mean where all weights are nearly equal. A weight that may be right is replaced only if
    that is likely to bring it nearer to what it was (see `evidence`).

    Args:
        content: the tensor's bytes as found, a floating-point type.
        located: what to distrust.
        rule: the tensor's stored rule.
        shape: of the rule: what it was worth on held-out masks.
        memory_estimate: what the memory tells.
        mapped: whether a hardware test said what is missing: then nothing else is.
        sound: whether the whole model looks sound, though all of it changed: then a weight that looks right stays where
            nothing better is known than zero or the mean.
    """
    weight = weights_of(content, entry)
    per_tile = tile * weight.numel() // entry.nbytes
    missing, kept, told = located.missing, located.kept, torch.zeros_like(located.missing)
    certain = located.certain
    if memory_estimate is not None and memory_estimate.error is not None and memory_estimate.sketched:
        zeros = certain & (weight == 0)
        if small_ones(zeros, memory_estimate.sketch - statistics.mean, memory_estimate.error, reported=mapped):
            missing, certain, kept = missing & ~zeros, certain & ~zeros, kept | zeros
    if memory_estimate is not None:
        # Between two bounds a weight as found is hardly worse than one filled in, and may be right.
        sure = memory_estimate.low.isfinite() & memory_estimate.high.isfinite() & ~certain
        memory_estimate = memory_estimate.within(statistics)
        inside = memory_estimate.inside(weight)
        told = memory_estimate.told & (missing if mapped else missing | kept)
        if mapped:  # the test calls some good that are not
            kept = kept | (located.doubtful & ~located.bounded & ~missing & memory_estimate.told & ~inside)
        certain = certain | (told & ~inside)
        if not mapped:
            missing = (missing & ~(sure & inside)) | (kept & ~inside)
            missing |= kept & memory_estimate.contradicted
            kept = (located.missing | located.kept) & ~missing
    lost = missing & spread(by_tile(missing, per_tile) > CROWDED * per_tile, per_tile, missing)
    deviation = statistics.deviation
    plain = deviation if statistics.nearly_constant else statistics.rms
    filled, expected, method = _filled(weight, missing, lost, statistics, rule, shape, memory_estimate)
    if sound and expected > BETTER * plain:
        looks_right = missing & ~told & ~certain
        missing, kept = missing & ~looks_right, kept | looks_right
    if memory_estimate is not None:
        own = memory_estimate.value
        if method == "rule":
            own = _mean_within(filled.double(), expected, memory_estimate.low, memory_estimate.high)
        bounded = torch.minimum(torch.maximum(own.double(), memory_estimate.low), memory_estimate.high)
        filled = torch.where(told, bounded.to(weight), filled)
    filled = filled.nan_to_num(0.0).clamp(statistics.lowest, statistics.highest)
    stored = torch.from_numpy(content).view(FLOATS[entry.dtype]).reshape(entry.shape)
    informed = expected <= BETTER * plain
    nearly, outliers = statistics.nearly_possible(weight, twice=not informed), torch.zeros_like(missing)
    if statistics.heavy:  # predictions miss the large weights most, and a few are no stuck cells
        within_twice = statistics.nearly_possible(weight, twice=True)
        nearly = within_twice if within_twice.sum() <= MOST_EXTREMES else nearly
        outliers = weight.abs() >= 0.5 * max(abs(statistics.lowest), abs(statistics.highest))
        outliers &= bool(outliers.sum() <= MOST_EXTREMES)
    if mapped and informed:  # a prediction is nearer than the bound, but where the test named what is hardly damaged
        nearly &= bool(certain.sum() < FEW_ODD * missing.sum())
    if nearly.any():
        nearly &= ~stuck(weight, located.certain, located.doubtful)
    flipped = statistics.flipped_zeros(stored)
    overwritten = located.certain & ~nearly & (weight != 0) & ~statistics.tiny(weight) & ~flipped
    nearly &= (spread(by_tile(overwritten, RUN) == 0, RUN, weight) | outliers) & ~told
    filled = torch.where(nearly, weight.clamp(statistics.lowest, statistics.highest), filled)
    filled = torch.where(flipped & ~told, 0.0, filled)
    if mapped and missing.any():
        square = torch.full_like(weight, expected**2, dtype=torch.float64)
        if memory_estimate is not None:
            square = torch.where(told, (memory_estimate.high - memory_estimate.low).square() / 12, square)
        judged = missing & ~certain
        width = statistics.highest - statistics.lowest
        predicted = filled
        if method == "sketch" and memory_estimate is not None and memory_estimate.sketched:
            predicted = torch.where(told, filled, memory_estimate.sketch.to(filled))  # whatever the test calls good
        if informed:
            judged &= ~odd_ones(
                weight,
                predicted,
                expected,
                judged,
                ~located.doubtful,
                width=width,
                reported=True,
                heavy=statistics.heavy,
            )
        else:  # zeros and means are no prediction of one weight from another
            predicted = torch.where(told, filled, statistics.mean)
        left = judged & ~worth_replacing(
            weight,
            predicted,
            square,
            judged,
            mean=statistics.mean,
            deviation=deviation,
            per_tile=per_tile,
        )
        missing, kept = missing & ~left, kept | left
    replaced = torch.where(missing, filled.to(stored.dtype), stored) if missing.any() else stored
    bound = 0.0
    if located.bounded.any() and entry.dtype in HIGH_HALF:
        bound = float(weight[located.bounded].abs().max()) * HIGH_HALF[entry.dtype]
    methods = []
    believed = located.doubtful & ~located.bounded & ~missing & ~kept & ~told
    if told.any() and memory_estimate is not None:
        # Weights that a test calls good are where they are said to be as well, as far as the refinement tells.
        also = told | (believed & memory_estimate.told)
        believed = torch.zeros_like(believed)  # its spare checks would have shown that the test was wrong
        final = replaced[also].double()
        reach = torch.maximum(final - memory_estimate.low[also], memory_estimate.high[also] - final)
        bound = max(bound, float(reach.max()))
        methods += ["refinement"] if (told & missing).any() else []
    open_ = missing & ~told
    methods += [method] if open_.any() else []
    return Estimate(
        replaced.contiguous().view(-1).view(torch.uint8).numpy() if entry.nbytes else content,
        (located.bounded | told).numpy(),
        open_.numpy(),
        (kept & ~told).numpy(),
        believed.numpy(),
        bound,
        expected if open_.any() else 0.0,
        tuple(methods),
    )


def _filled(
    weight: Float[Tensor, "*weight"],
    missing: Bool[Tensor, "*weight"],
    lost: Bool[Tensor, "*weight"],
    statistics: Statistics,
    rule: Repairer | None,
    shape: RuleShape | None,
    memory_estimate: MemoryEstimate | None,
) -> tuple[Float[Tensor, "*weight"], float, str]:
    """What to fill in, its root mean square error, and by what: whatever errs least."""
    deviation, mean = statistics.deviation, statistics.mean
    plain = torch.full_like(weight, mean if statistics.nearly_constant else 0.0)
    expected, method = (deviation, "mean") if statistics.nearly_constant else (statistics.rms, "zero")
    if not missing.any():
        return plain, expected, method
    sketch = torch.inf if memory_estimate is None or memory_estimate.error is None else memory_estimate.error
    if rule is not None and shape is not None:
        broken = statistics.broken(weight)
        trusted = ~missing & weight.float().isfinite() & ~broken  # repairers compute in float32
        # With nothing left to start from, no rule tells anything.
        rates, errors = (*shape.rates, 1.0), (*shape.errors, max(1.0, shape.errors[-1]))
        apart = float(np.interp(float(missing.double().mean()), rates, errors))
        regrown = torch.zeros_like(missing)  # what the rule tells something of
        sound = bool((broken & ~missing).sum() <= MOST_WRONG * (~missing).sum())
        if sound and apart <= BETTER:  # what tells hardly more than zeros changes answers more than they do
            regrown = missing & within_reach(trusted, shape)
        if shape.tile_error >= 1:  # worse than nothing where whole tiles are gone
            regrown &= ~lost
        shares = [float(mask.sum() / missing.sum()) for mask in (regrown & ~lost, regrown & lost, missing & ~regrown)]
        by_rule = float(np.dot(shares, np.square([deviation * apart, deviation * shape.tile_error, expected]))) ** 0.5
        if regrown.any() and sketch > ROUNDED * by_rule:
            grown = rule.restore(torch.where(trusted, weight, 0.0), trusted, Record())
            # Many predictions vary less than what they predict, or they come from weights that are wrong.
            square = float((grown[regrown] - mean).double().square().mean())
            if square <= WILD * deviation**2 or int(regrown.sum()) < RUN:
                return torch.where(regrown, grown, plain), by_rule, "rule"
    if memory_estimate is not None and sketch <= ROUNDED * expected:
        return memory_estimate.value.to(weight), sketch, "sketch"
    return plain, expected, method


def _mean_within(
    value: Float[Tensor, "*weight"], error: float, low: Float[Tensor, "*weight"], high: Float[Tensor, "*weight"]
) -> Float[Tensor, "*weight"]:
    """Means of normal variables of these means and that deviation, given that they lie between the bounds."""
    from_low, to_high = ((bound - value) / max(error, 1e-300) for bound in (low, high))
    inside = torch.special.ndtr(to_high) - torch.special.ndtr(from_low)
    slope = ((-from_low.square() / 2).exp() - (-to_high.square() / 2).exp()) / (2 * pi) ** 0.5
    mean = torch.where(inside > TINY_SHARE, value + error * slope / inside.clamp_min(TINY_SHARE), value)
    return torch.where(to_high - from_low < NARROW, (low + high) / 2, mean)
