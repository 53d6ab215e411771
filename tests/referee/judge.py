"""The judgement: what a repair did, held against the intact model and against what the report claims."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.guard import Guard, Report
from planaria.guard.report import VERDICTS, TensorReport
from planaria.guard.statistics import FLOATS
from referee.masks import Mask

Contents = Mapping[str, NDArray[np.uint8]]
DEVIATIONS = 3.0  # of the tolerance: how far chance may take the error of estimates that are better on average
MOST_PEAKED = 12.0  # kurtosis that the tolerance takes for chance: one outlier's own loss is none
ROUNDING = 1e-6  # of a bound or an error: sums and stored numbers are rounded
PROVEN = ("intact", "exact")
ALONE = ("intact", "exact", "changed", "damaged")  # verdicts of regions in which nothing is estimated


@dataclass(frozen=True)
class Violation:
    """A rule that a repair broke.

    Attributes:
        rule: its name.
        where: a tensor or file, "" for the model.
        count: weights, bytes or files concerned.
        words: more, for people.
    """

    rule: str
    where: str
    count: int
    words: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.where or 'model'}, {self.count:,}{f' ({self.words})' if self.words else ''}"


@dataclass(frozen=True)
class Calibration:
    """Of one tensor's estimated weights: the root mean squared error that was stated, and the true one."""

    method: str
    count: int
    stated: float
    true: float


@dataclass
class Judgement:
    """All that was found of one repair."""

    violations: list[Violation] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)

    def add(self, rule: str, where: str, count: int | np.integer, words: str = "") -> None:
        """A violation, unless nothing is concerned."""
        if count:
            self.violations.append(Violation(rule, where, int(count), words))


def judge_weights(
    guard: Guard, intact: Contents, before: Contents, after: Contents, report: Report, mask: Mask, judgement: Judgement
) -> None:
    """Every tensor's weights and regions. `before` is as found: bytes that a file lacked are 0."""
    matched = dict(_matched(guard, intact, before))
    entries = {entry.name: entry for entry in guard.entries}
    for tensor in report.tensors:
        parts = (contents[tensor.name] for contents in (intact, before, after))
        weights = _Weights(entries[tensor.name], tensor, *parts, matched[tensor.name])
        _judge_tensor(weights, mask.good(tensor.name, weights.entry.shape), judgement)
    if report.verdict in PROVEN:
        wrong = sum(int((after[name] != intact[name]).sum()) for name in intact)
        judgement.add("verdict exact, model is not", "", wrong, f"{report.verdict}, wrong bytes")


def judge_forecast(forecast: Report, report: Report, judgement: Judgement) -> None:
    """A check tells what the repair then does."""
    for told, done in zip(forecast.tensors, report.tensors, strict=True):
        for name in ("regions", "kept", "estimated", "bound", "method"):
            one, other = getattr(told, name), getattr(done, name)
            judgement.add("check tells otherwise", told.name, one != other, f"{name}: {one} and {other}"[:150])
    for name in ("verdict", "header_damaged"):
        one, other = getattr(forecast, name), getattr(report, name)
        judgement.add("check tells otherwise", "", one != other, f"{name}: {one} and {other}")


class _Weights:
    """One tensor before and after, weight by weight. Masks are over its weights, in a line."""

    def __init__(
        self,
        entry: Entry,
        report: TensorReport,
        intact: NDArray[np.uint8],
        before: NDArray[np.uint8],
        after: NDArray[np.uint8],
        matched: NDArray[np.bool_],
    ):
        self.entry, self.report = entry, report
        count = int(np.prod(entry.shape, dtype=int))
        self.size = entry.nbytes // max(count, 1)
        self.right_before = self._by_weight(intact == before)
        self.right = self._by_weight(intact == after)
        self.changed = ~self._by_weight(before == after)
        self.matched = self._by_weight(matched)
        worst = np.zeros(entry.nbytes, np.uint8)
        for region in report.regions:
            worst[region.start : region.stop] = VERDICTS.index(region.verdict)
        self.verdicts = worst.reshape(-1, max(self.size, 1)).max(1) if entry.nbytes else worst
        self.values = [self._decoded(content) for content in (intact, before, after)] if entry.dtype in FLOATS else None

    def _by_weight(self, of_bytes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return of_bytes.reshape(-1, self.size).all(1) if self.size else of_bytes

    def _decoded(self, content: NDArray[np.uint8]) -> NDArray[np.float64]:
        if not len(content):
            return np.zeros(0)
        return torch.from_numpy(content.copy()).view(FLOATS[self.entry.dtype]).double().numpy()

    def of(self, *verdicts: str) -> NDArray[np.bool_]:
        """Weights in regions of these verdicts."""
        return np.isin(self.verdicts, [VERDICTS.index(verdict) for verdict in verdicts])  # type: ignore[arg-type]


def _judge_tensor(weights: _Weights, good: NDArray[np.bool_] | None, judgement: Judgement) -> None:
    name, report = weights.entry.name, weights.report
    made_wrong = weights.right_before & ~weights.right
    for verdict in PROVEN:
        judgement.add(f"region called {verdict} is not", name, (weights.of(verdict) & ~weights.right).sum())
    judgement.add("changed region was written", name, (weights.of("changed", "damaged") & weights.changed).sum())
    judgement.add("right weight of a proven tile made wrong", name, (weights.matched & made_wrong).sum())
    judgement.add("right weight made wrong where nothing is estimated", name, (weights.of(*ALONE) & made_wrong).sum())
    if good is not None:
        words = f"{int((good & made_wrong).sum())} of them were right"
        judgement.add("weight marked good changed", name, (good & weights.changed & ~weights.right).sum(), words)
    if weights.values is None:
        judgement.add("whole number made up", name, (weights.changed & ~weights.right).sum())
        return
    intact, before, after = weights.values
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(weights.right, 0.0, np.abs(after - intact))
        error_before = np.where(weights.right_before, 0.0, np.abs(before - intact))
    bound = (report.bound or 0.0) * (1 + ROUNDING)
    beyond = weights.of("bounded") & ~(error <= bound)
    judgement.add("bounded weight beyond its bound", name, beyond.sum(), f"bound {report.bound}")
    counted = made_wrong & ~((error <= bound) & (bound > 0))
    if counted.sum() > report.estimated:
        words = f"{report.estimated} estimated of {int(counted.sum())}"
        judgement.add("right weights made wrong that no count covers", name, counted.sum() - report.estimated, words)
    finite = np.isfinite(intact)
    no_number = ~finite & ~np.isfinite(before)  # what damage made a number of may become another one
    judgement.add("what was no number is one now", name, (no_number & weights.changed & ~weights.right).sum())
    spoilt = finite & np.isfinite(before) & ~np.isfinite(after)
    judgement.add("a number is none now", name, spoilt.sum())
    _judge_error(weights, error, error_before, finite, good, judgement)
    _calibrate(weights, error, finite, good, judgement)


def tolerance(
    estimated: int, stated: float, *, peaked: float = 3.0, told_bad: float, bounded: int, bound: float
) -> float:
    """By how much the squared error of a tensor may grow: what the report itself states, and no more.

    Estimates replace doubtful weights only where that lowers the error to be expected, so on average it falls. The sum
    of `estimated` squared errors of deviation `stated` has a standard deviation of `stated**2 * sqrt((peaked - 1) *
    estimated)`: three of them, and nine squares for a single weight, are chance. Weights within a bound may err by it.

    Args:
        estimated: how many weights were filled in without a bound.
        stated: root mean squared error, as reported.
        peaked: the kurtosis of the tensor's weights, of which that of the errors is taken to be one; 3 of normal ones.
        told_bad: squared error that weights may have which a mask calls bad: the user asked for their replacement,
            whatever they hold.
        bounded: how many weights were filled in within a bound.
    """
    chance = stated**2 * (DEVIATIONS * ((peaked - 1) * estimated) ** 0.5 + DEVIATIONS**2) if estimated else 0.0
    return chance + told_bad + bounded * bound**2


def _peaked(intact: NDArray[np.float64]) -> float:
    """The kurtosis of weights about zero or their mean, whichever is less, between that of normal ones and MOST."""
    if not len(intact):
        return 3.0
    found = []
    for centre in (0.0, float(intact.mean())):
        squares = np.square((intact - centre) / max(float(np.abs(intact - centre).max()), 1e-300))
        found.append(float(np.square(squares).mean() / max(float(squares.mean()) ** 2, 1e-300)))
    return float(np.clip(min(found), 3.0, MOST_PEAKED))


def _plain_error(intact: NDArray[np.float64], asked: NDArray[np.bool_], finite: NDArray[np.bool_]) -> float:
    """Squared error of the better of zeros and the tensor's mean in place of some weights."""
    if not asked.any():
        return 0.0
    return min(float(np.square(intact[asked] - fill).sum()) for fill in (0.0, float(intact[finite].mean())))


def _judge_error(
    weights: _Weights,
    error: NDArray[np.float64],
    error_before: NDArray[np.float64],
    finite: NDArray[np.bool_],
    good: NDArray[np.bool_] | None,
    judgement: Judgement,
) -> None:
    report = weights.report
    written = weights.changed & finite
    with np.errstate(over="ignore", invalid="ignore"):
        grown = float(np.square(error[written]).sum())
        found = float(np.square(np.nan_to_num(error_before[written], nan=np.inf, posinf=np.inf)).sum())
    within = written & (error <= (report.bound or 0.0))
    intact = weights.values[0] if weights.values else np.zeros(0)
    asked = np.zeros(len(intact), bool) if good is None else written & ~within & ~good
    with np.errstate(over="ignore"):
        plain = _plain_error(intact, asked, finite)
        peaked = _peaked(intact[finite])
    stated = report.expected_error or 0.0
    allowed = tolerance(
        min(report.estimated, int((written & ~within).sum())),
        stated,
        peaked=peaked,
        told_bad=max(plain, int(asked.sum()) * stated**2),
        bounded=int(within.sum()),
        bound=report.bound or 0.0,
    )
    if not grown <= found * (1 + ROUNDING) + allowed * (1 + ROUNDING):
        words = f"squared error {found:.3g} before, {grown:.3g} after, tolerance {allowed:.3g}; {report.method}"
        judgement.add("error grew", weights.entry.name, written.sum(), words)


def _calibrate(
    weights: _Weights,
    error: NDArray[np.float64],
    finite: NDArray[np.bool_],
    good: NDArray[np.bool_] | None,
    judgement: Judgement,
) -> None:
    """The true error of the estimated weights, where it can be told which they are: reports give their number only."""
    report = weights.report
    if not report.estimated or not report.expected_error:
        return
    open_ = weights.of("estimated", "lost")
    beyond = error > (report.bound or 0.0)
    candidates = [open_ & weights.changed, open_ & (weights.changed | ~weights.right_before), open_]
    candidates += [mask & beyond for mask in candidates]
    if good is not None:
        candidates.insert(0, open_ & ~good)
    for mask in candidates:
        if int(mask.sum()) == report.estimated and finite[mask].all():
            with np.errstate(over="ignore"):
                true = float(np.sqrt(np.square(error[mask]).mean()))
            method = report.method or "?"
            judgement.calibrations.append(Calibration(method, report.estimated, report.expected_error, true))
            return


def _matched(guard: Guard, intact: Contents, before: Contents) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """By tensor, whether each byte lies in a hash group that was as intact, so that its digest matched."""
    layout = guard.layout
    right = np.ones(layout.tiles, bool)
    spans = []
    for index, entry in enumerate(layout.entries):
        tiles = layout.tiles_of_tensor(index)
        spans.append((entry, tiles))
        if entry.nbytes:
            equal = intact[entry.name] == before[entry.name]
            right[tiles] = np.logical_and.reduceat(equal, np.arange(0, entry.nbytes, layout.tile))
    whole = ~np.isin(layout.hash_group_of, layout.hash_group_of[~right])
    for entry, tiles in spans:
        yield entry.name, np.repeat(whole[tiles], layout.tile)[: entry.nbytes]


def bytes_of(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
    """Each tensor's bytes, by torch alone."""
    return {name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().copy() for name, tensor in tensors.items()}
