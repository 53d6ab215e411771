"""What no code could restore: which cells to distrust, and what to fill them with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm, pi, prod

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.detectors import Detector, Outlier, Residual
from planaria.guard.manifest import RuleShape
from planaria.guard.stream import SYMBOL
from planaria.records import Record
from planaria.repairers import MeanFill, Repairer, ZeroFill

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
PIECE = 2**22  # bytes
# A weight whose most significant 16 bits are known differs from any that shares them by at most this share of itself.
HIGH_HALF = {"F32": 2.0**-7, "F64": 2.0**-4}
DENSE = 0.05  # share of wrong symbols above which a tile that shows nothing is not believed
GARBAGE = 0.25  # share of a tile's weights that may be impossible before all are distrusted; of random bytes, half are
ROUNDING = 1e-12  # of a bound
# Of what zero errs: a rule that is no better at such damage is not used, and what is no better replaces no weight that
# looks right in a model that looks sound.
BETTER = 0.95
TINY_SHARE = 1e-6  # of a normal variable: what lies beyond it is at the nearest bound
NARROW = 1e-3  # deviations, over which it is uniform
ROUNDED = 1.01  # an error is stored to three digits, and that of a prior alone is the weights' own at worst
FAR = 4.0  # times a hint's error, from which a weight without bounds is not believed
CROWDED = 0.9  # share of a tile's weights that are missing from which it counts as lost when it is filled


@dataclass(frozen=True)
class Statistics:
    """Plain statistics of an intact floating-point tensor: those the guard stores, as float32.

    Attributes:
        lowest, highest: of the finite weights.
        mean, rms: of the finite weights; rms is the root mean square.
        limits: of the detector's scores, see `Outlier`.
        floor: least deviation that the detector counts with.
        zeros: share of the weights that are exactly 0.
    """

    lowest: float = 0.0
    highest: float = 0.0
    mean: float = 0.0
    rms: float = 0.0
    limits: tuple[float, float] = (float("inf"), float("inf"))
    floor: float = 0.0
    zeros: float = 0.0

    @classmethod
    def of(cls, weight: Float[Tensor, "*weight"], detector: Detector | None = None) -> "Statistics":
        """Measured on the finite weights. The detector's part is left open unless all are finite."""
        finite = weight[weight.isfinite()].double()
        if finite.numel() == 0:
            return cls()
        plain = cls(
            _outwards(float(finite.min()), -1),
            _outwards(float(finite.max()), 1),
            float(finite.mean().float()),
            float(finite.square().mean().sqrt().float()),
            zeros=float(np.float32((finite == 0).double().mean())),
        )
        if detector is None or finite.numel() < weight.numel():
            return plain
        record = detector.prepare(weight)
        limits = [_outwards(float(limit), 1) for limit in record["limits"].flatten()]
        return replace(
            plain, limits=(limits[0], limits[-1]), floor=float(record.tensors.get("floor", torch.zeros(())).float())
        )

    @classmethod
    def merged(cls, parts: Sequence["Statistics"], sizes: Sequence[int]) -> "Statistics":
        """Of a tensor, from those of its pieces of so many weights. Limits and floor are the widest of all."""
        if len(parts) < 2:
            return parts[0] if parts else cls()
        shares = np.array(sizes) / sum(sizes)
        return cls(
            min(part.lowest for part in parts),
            max(part.highest for part in parts),
            float(np.dot([part.mean for part in parts], shares)),
            float(np.dot([part.rms**2 for part in parts], shares) ** 0.5),
            (max(part.limits[0] for part in parts), max(part.limits[1] for part in parts)),
            max(part.floor for part in parts),
            float(np.dot([part.zeros for part in parts], shares)),
        )

    def broken(self, weight: Float[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights that cannot be: not finite, outside the intact range, or 0 where the intact tensor has no zero."""
        possible = (weight >= self.lowest) & (weight <= self.highest)
        return ~possible if self.zeros else ~(possible & (weight != 0))

    def record(self, detector: Detector) -> Record:
        """What this detector noted on the intact tensor, but for its predictor, which brings its own record."""
        limits = torch.tensor(self.limits, dtype=torch.float64)
        return Record(
            {
                "range": torch.tensor([self.lowest, self.highest], dtype=torch.float64),
                "limits": limits[:1] if isinstance(detector, Residual) else limits,
                "floor": torch.tensor(self.floor, dtype=torch.float64),
            }
        )

    @property
    def nearly_constant(self) -> bool:
        """Whether the mean tells more of a weight than zero does, wherever it is: scales, not matrices."""
        return abs(self.mean) > 0.9 * self.rms


@dataclass(frozen=True)
class Located:
    """What is to be distrusted of a tensor, or of a piece of one. Masks over its weights, in its shape.

    Attributes:
        doubtful: weights that no proof covers whole.
        bounded: those known up to rounding of their lower half.
        missing: those to be filled in.
        kept: those that look right.
    """

    doubtful: Bool[Tensor, "*weight"]
    bounded: Bool[Tensor, "*weight"]
    missing: Bool[Tensor, "*weight"]
    kept: Bool[Tensor, "*weight"]

    def outside(self, tiles: NDArray[np.bool_], piece: Entry, tile: int) -> "Located":
        """Of a piece, without these of its tiles."""
        count = self.doubtful.numel()
        left = torch.from_numpy(~np.repeat(tiles, tile * count // piece.nbytes)[:count]).view(piece.shape)
        return Located(*(mask & left for mask in (self.doubtful, self.bounded, self.missing, self.kept)))

    def part(self, piece: Entry, entry: Entry) -> "Located":
        """Of a piece of the tensor."""
        return Located(
            *(part_of(mask, piece, entry) for mask in (self.doubtful, self.bounded, self.missing, self.kept))
        )


@dataclass(frozen=True)
class Recollection:
    """What the memory says of a tensor's doubtful weights, or of a piece's. In float64 and its shape.

    Attributes:
        value: the weight to expect.
        low, high: bounds that the ladder proves; infinite where it tells nothing.
        error: root mean square error to expect of `value` where there are no bounds; None if there is no hint either.
    """

    value: Float[Tensor, "*weight"]
    low: Float[Tensor, "*weight"]
    high: Float[Tensor, "*weight"]
    error: float | None

    @property
    def told(self) -> Bool[Tensor, "*weight"]:
        """Weights of which the ladder tells something."""
        return self.low.isfinite() | self.high.isfinite()

    def inside(self, weight: Float[Tensor, "*weight"]) -> Bool[Tensor, "*weight"]:
        """Weights that may be right for all that the ladder tells: bounds are sums, and so rounded."""
        slack = ROUNDING * torch.maximum(self.low.abs().nan_to_num(posinf=0.0), self.high.abs().nan_to_num(posinf=0.0))
        return (weight >= self.low - slack) & (weight <= self.high + slack)

    def within(self, statistics: Statistics) -> "Recollection":
        """With bounds on both sides of what the ladder bounds on one: no weight is beyond the intact range."""
        told = self.told
        low = torch.where(told, self.low.clamp_min(statistics.lowest), self.low)
        high = torch.where(told, self.high.clamp_max(statistics.highest), self.high)
        return replace(self, low=torch.minimum(low, high), high=high)

    def part(self, piece: Entry, entry: Entry) -> "Recollection":
        """Of a piece of the tensor."""
        value, low, high = (part_of(one, piece, entry) for one in (self.value, self.low, self.high))
        return Recollection(value, low, high, self.error)


@dataclass(frozen=True)
class Estimate:
    """One piece of a tensor after estimation. Masks are over its weights.

    Attributes:
        content: its bytes.
        bounded: weights known up to a bound: by rounding of their lower half, or by the ladder.
        missing: weights that were filled in without one.
        kept: weights without proof that look right and stay.
        bound: of the bounded weights; 0 if there are none.
        expected_error: root mean squared error of the missing ones; 0 if there are none.
        methods: what filled weights in.
    """

    content: NDArray[np.uint8]
    bounded: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    bound: float
    expected_error: float
    methods: tuple[str, ...] = ()


def part_of(whole: Tensor, piece: Entry, entry: Entry) -> Tensor:
    """The piece's part of something that has a number for each weight of the tensor."""
    size = entry.nbytes // whole.numel()
    return whole.flatten()[piece.start // size : (piece.start + piece.nbytes) // size].view(piece.shape)


def pieces(entry: Entry, tile: int) -> Iterator[Entry]:
    """A tensor in parts that bound what memory it takes to compute with them: whole tiles, and whole rows if they fit.

    A tensor of up to 4 MiB is one piece. The `start` of a piece is its first byte in the tensor.
    """
    if entry.nbytes <= PIECE:
        yield Entry(entry.name, entry.dtype, entry.shape, entry.nbytes)
        return
    row = entry.nbytes // entry.shape[0]
    size = entry.nbytes // prod(entry.shape)
    unit = lcm(tile, row)
    step = PIECE // unit * unit if unit <= PIECE else PIECE // tile * tile
    for start in range(0, entry.nbytes, step):
        nbytes = min(step, entry.nbytes - start)
        shape = (nbytes // row, row // size) if unit <= PIECE else (nbytes // size,)
        yield Entry(entry.name, entry.dtype, shape, nbytes, start)


def weights_of(content: NDArray[np.uint8], entry: Entry) -> Float[Tensor, "*weight"]:
    """The bytes as a tensor that can be computed with: float64 as it is, all other floats as float32."""
    weight = torch.from_numpy(content).view(FLOATS[entry.dtype]).reshape(entry.shape)
    return weight if weight.dtype == torch.float64 else weight.float()


def doubtful_weights(doubtful: NDArray[np.bool_], entry: Entry) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """From doubtful symbols of a tensor: weights with any doubt, and those with doubt in their first 16 bits."""
    size = entry.nbytes // max(int(np.prod(entry.shape)), 1)
    if size < SYMBOL:
        each = np.repeat(doubtful, SYMBOL)[: entry.nbytes]
        return each, each
    symbols = doubtful.reshape(-1, size // SYMBOL)
    return np.logical_or.reduce(symbols, axis=1), symbols[:, -1]


def locate(
    content: NDArray[np.uint8],
    entry: Entry,
    doubtful: NDArray[np.bool_],
    *,
    tile: int,
    density: float,
    scattered: bool,
    sound: bool,
    statistics: Statistics,
    rule: Repairer | None,
    known: Bool[Tensor, "*weight"] | None,
) -> Located:
    """Finds the broken weights among the doubtful ones.

    A tile in which many weights are broken on their face is lost whole; where few are, each weight is judged by itself.
    A tile that shows no broken weight at all is believed, unless the parity saw (`density`) that much is wrong that
    does not show, and damage is not scattered: then it may hold other weights.

    Args:
        content: the tensor's bytes as found, a floating-point type.
        doubtful: symbols that no proof covers.
        density: lower bound of the share of wrong symbols among them, 0 if unknown.
        scattered: whether damage all over the model was seen to be scattered.
        sound: whether the whole model looks sound, though all of it changed: then no doubtful weight is believed.
        rule: the tensor's stored rule, which predicts; without one, weights are compared with their row and column.
        known: weights that a hardware test found good; then exactly the others are missing.
    """
    weight = weights_of(content, entry)
    any_doubt, high_doubt = (torch.from_numpy(part).view(weight.shape) for part in doubtful_weights(doubtful, entry))
    broken = statistics.broken(weight)
    per_tile = tile * weight.numel() // entry.nbytes
    bounded = any_doubt & ~high_doubt & ~broken
    open_ = any_doubt & ~bounded
    if known is not None:
        open_ = open_ & ~known
        return Located(any_doubt, bounded & ~known, open_, torch.zeros_like(open_))
    missing = open_ & (broken | _zeroed(weight, open_, per_tile, statistics.zeros))
    hidden = sound or (density >= DENSE and not scattered)
    missing = missing | (open_ & _lost_whole(missing & (weight != 0), missing, open_, per_tile, hidden))
    if missing.sum() < open_.sum():
        detector = Outlier() if rule is None else Residual(rule)
        # What is already given up must not mislead the detector; it always names a NaN.
        missing = open_ & ~detector.find(
            torch.where(missing, torch.nan, weight), statistics.record(detector), suspect=open_
        )
    return Located(any_doubt, bounded, missing, open_ & ~missing)


def estimate(
    content: NDArray[np.uint8],
    entry: Entry,
    located: Located,
    *,
    tile: int,
    statistics: Statistics,
    rule: Repairer | None,
    shape: RuleShape | None,
    recollection: Recollection | None = None,
    mapped: bool = False,
    sound: bool = False,
) -> Estimate:
    """Fills in what is missing. All other weights stay bit for bit.

    Where the ladder gives bounds, a weight outside of them is missing, too, and one inside stays as it is; so is one
    far from its hint. A weight is filled by the rule or by the memory, whichever erred less when the model was
    protected, within the bounds; without either, by zero, or by the mean where all weights are nearly equal.

    Args:
        content: the tensor's bytes as found, a floating-point type.
        located: what to distrust.
        rule: the tensor's stored rule.
        shape: of the rule: what it was worth on held-out masks.
        recollection: what the memory tells.
        mapped: whether a hardware test said what is missing: then nothing else is.
        sound: whether the whole model looks sound, though all of it changed: then a weight that looks right stays where
            nothing better is known than zero or the mean.
    """
    weight = weights_of(content, entry)
    per_tile = tile * weight.numel() // entry.nbytes
    missing, kept, told = located.missing, located.kept, torch.zeros_like(located.missing)
    if recollection is not None:
        # Between two bounds a weight as found is hardly worse than one filled in, and may be right.
        sure = recollection.low.isfinite() & recollection.high.isfinite() & ~statistics.broken(weight)
        recollection = recollection.within(statistics)
        inside, told = recollection.inside(weight), recollection.told & (missing | kept)
        if not mapped:
            far = (weight - recollection.value).abs() > FAR * (recollection.error or torch.inf)
            missing = (missing & ~(sure & inside)) | (kept & (~inside | (~told & far)))
            kept = (located.missing | kept) & ~missing
    lost = missing & _spread(_by_tile(missing, per_tile) > CROWDED * per_tile, per_tile, missing)
    deviation = max(statistics.rms**2 - statistics.mean**2, 0.0) ** 0.5
    expected, method = (deviation, "mean") if statistics.nearly_constant else (statistics.rms, "zero")
    plain = expected
    apart = 1.0
    if shape is not None and missing.any():
        apart = float(np.interp(float(missing.double().mean()), shape.rates, shape.errors))
    if shape is not None and apart <= BETTER:  # what tells hardly more than zeros changes answers more than they do
        share = float(lost.sum() / missing.sum())
        error = (share * min(shape.tile_error, 1.0) ** 2 + (1 - share) * apart**2) ** 0.5
        expected, method = deviation * error, "rule"
    if recollection is not None and recollection.error is not None and recollection.error <= ROUNDED * expected:
        expected, method = recollection.error, "hint"
    if sound and expected > BETTER * plain:
        believed = missing & ~told & ~statistics.broken(weight)
        missing, kept = missing & ~believed, kept | believed
    filled = torch.zeros_like(weight)
    if missing.any() and method == "hint" and recollection is not None:
        filled = recollection.value.to(weight)
    elif missing.any():
        regrows = apart <= BETTER
        filled = _filled(weight, missing, lost, statistics, rule if regrows else None, shape if regrows else None)
    if recollection is not None:
        own = recollection.value
        if method == "rule":
            own = _mean_within(filled.double(), expected, recollection.low, recollection.high)
        bounded = torch.minimum(torch.maximum(own.double(), recollection.low), recollection.high)
        filled = torch.where(told, bounded.to(weight), filled)
    filled = filled.nan_to_num(0.0).clamp(statistics.lowest, statistics.highest)
    stored = torch.from_numpy(content).view(FLOATS[entry.dtype]).reshape(entry.shape)
    replaced = torch.where(missing, filled.to(stored.dtype), stored) if missing.any() else stored
    bound = 0.0
    if located.bounded.any() and entry.dtype in HIGH_HALF:
        bound = float(weight[located.bounded].abs().max()) * HIGH_HALF[entry.dtype]
    methods = []
    if told.any() and recollection is not None:
        final = replaced[told].double()
        reach = torch.maximum(final - recollection.low[told], recollection.high[told] - final)
        bound = max(bound, float(reach.max()))
        methods += ["ladder"] if (told & missing).any() else []
    open_ = missing & ~told
    methods += [method] if open_.any() else []
    return Estimate(
        replaced.contiguous().view(-1).view(torch.uint8).numpy() if entry.nbytes else content,
        (located.bounded | told).numpy(),
        open_.numpy(),
        (kept & ~told).numpy(),
        bound,
        expected if open_.any() else 0.0,
        tuple(methods),
    )


def _mean_within(
    value: Float[Tensor, "*weight"], error: float, low: Float[Tensor, "*weight"], high: Float[Tensor, "*weight"]
) -> Float[Tensor, "*weight"]:
    """Means of normal variables of these means and that deviation, given that they lie between the bounds."""
    from_low, to_high = ((bound - value) / max(error, 1e-300) for bound in (low, high))
    inside = torch.special.ndtr(to_high) - torch.special.ndtr(from_low)
    slope = ((-from_low.square() / 2).exp() - (-to_high.square() / 2).exp()) / (2 * pi) ** 0.5
    mean = torch.where(inside > TINY_SHARE, value + error * slope / inside.clamp_min(TINY_SHARE), value)
    return torch.where(to_high - from_low < NARROW, (low + high) / 2, mean)


def _filled(
    weight: Float[Tensor, "*weight"],
    missing: Bool[Tensor, "*weight"],
    lost: Bool[Tensor, "*weight"],
    statistics: Statistics,
    rule: Repairer | None,
    shape: RuleShape | None,
) -> Float[Tensor, "*weight"]:
    """By the rule, or as plainly as it goes."""
    trusted = ~missing & weight.float().isfinite()  # the repairers compute in float32
    visible = torch.where(trusted, weight, 0.0)
    plain: Repairer = MeanFill() if statistics.nearly_constant else ZeroFill()
    filled = (rule or plain).restore(visible, trusted, Record())
    if shape is not None and shape.tile_error >= 1:  # worse than nothing where whole tiles are gone
        filled = torch.where(lost, plain.restore(visible, trusted, Record()), filled)
    return filled


def _lost_whole(
    garbage: Bool[Tensor, "*weight"],
    broken: Bool[Tensor, "*weight"],
    doubtful: Bool[Tensor, "*weight"],
    per_tile: int,
    hidden: bool,
) -> Bool[Tensor, "*weight"]:
    """Weights of tiles that are lost whole: most of it garbage, or nothing shows and yet damage may be hidden.

    Zeros tell where they are one by one; garbage also leaves numbers that look possible.
    """
    sizes = _by_tile(doubtful, per_tile)
    lost = _by_tile(garbage, per_tile) > GARBAGE * sizes.clamp_min(1 / GARBAGE)
    if hidden:
        lost = lost | (_by_tile(broken, per_tile) == 0)
    return _spread(lost & (sizes > 0), per_tile, broken)


def _zeroed(
    weight: Float[Tensor, "*weight"], doubtful: Bool[Tensor, "*weight"], per_tile: int, zeros: float
) -> Bool[Tensor, "*weight"]:
    """Zeros of tiles that hold far more of them than the intact tensor's share."""
    expected = zeros * _by_tile(doubtful, per_tile)
    crowded = _by_tile(doubtful & (weight == 0), per_tile) > expected + 5 * expected.sqrt() + 1
    return _spread(crowded, per_tile, weight) & (weight == 0)


def _spread(tiles: Bool[Tensor, " tiles"], per_tile: int, like: Tensor) -> Tensor:
    return tiles.repeat_interleave(per_tile)[: like.numel()].view(like.shape)


def _by_tile(mask: Bool[Tensor, "*weight"], per_tile: int) -> Tensor:
    flat = mask.flatten().long()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % per_tile))
    return padded.view(-1, per_tile).sum(1)


def _outwards(value: float, direction: int) -> float:
    """As float32, rounded away from the inside of a range: rounding must not raise a false alarm."""
    with np.errstate(over="ignore"):  # a float64 past the range of float32 becomes infinite
        rounded = np.float32(value)
    if (float(rounded) - value) * direction < 0:
        rounded = np.nextafter(rounded, np.float32(direction * np.inf))
    return float(rounded)
