"""How a number of bytes is spent on tensors: which hint each gets, and how strong the ladder is."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from planaria import streams
from planaria.errors import InvalidInput
from planaria.memory.ladder import SEGMENT, Ladder, planned_planes
from planaria.memory.memory import PRIOR_BYTES, Memory, Remembered, codec, matrix_shape, prior_of, residual
from planaria.memory.quantiser import FINEST, FIRST_UNIFORM, NOTHING, RUNGS, SIGN, refines, thresholds, tree

RATES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Shares of weights lost that a plan for any rate is made for, all alike."""
SHARES = (0.0, 0.5, 0.75, 1.0)  # of the bytes, for hints
STRENGTHS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9)
TOLERABLE = 0.1  # relative output error at which about half of a network's ability is gone
SAMPLE = 8192  # weights of a tensor that rungs are tried on
DESCRIPTION = 48  # bytes that a tensor's hint and coverage take to be described
CLOSE = 0.985  # a plan that leaves fewer of its bytes unused is good enough
ROUNDS = 6
FEWEST_CELLS, WORTHWHILE = 16, 2048  # of a sheet, and of a tensor, for a prior to be tried
WORTH = 0.02  # share of the squared error that a prior must save
JUDGED = 3  # plans that a judge compares
Judge = Callable[[Mapping[str, Tensor]], float]
REFINES = np.array([[refines(fine, coarse) for fine in range(RUNGS)] for coarse in range(RUNGS)])
Rungs = list[np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """A way to spend the bytes.

    Attributes:
        hint_bytes: for hints.
        strengths: of the ladder's stages.
        rungs: by stage and tensor, of each column.
        errors: relative output error to expect at each rate, in the mean over tensors.
    """

    hint_bytes: int
    strengths: tuple[float, ...]
    rungs: Sequence[Rungs]
    errors: Mapping[float, float]

    @property
    def merit(self) -> float:
        """About what remains of a network's ability, in the mean over rates."""
        return sum(1 / (1 + error / TOLERABLE) for error in self.errors.values()) / len(self.errors)


@dataclass
class _Subject:
    """One tensor, and what is computed of it once."""

    name: str
    shape: tuple[int, ...]
    matrix: Float[Tensor, "rows columns"]
    moments: Float[Tensor, "columns columns"] | None
    space: tuple[int, ...]
    sketches: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        double = self.matrix.double()
        self.importance = (
            np.ones(self.matrix.shape[1]) if self.moments is None else self.moments.diagonal().double().numpy()
        )
        # Inputs that calibration never saw may still come.
        self.importance = np.maximum(self.importance, 1e-3 * self.importance.mean())
        self.energy = max(self._energy(double), 1e-300)

    def _energy(self, error: Float[Tensor, "rows columns"]) -> float:
        moved = error if self.moments is None else error @ self.moments.double()
        return float((moved * error).sum())

    def output_error(self, error: Float[Tensor, "rows columns"], rate: float) -> float:
        """To expect if a share `rate` of weights, drawn at random, errs like this, in units of the output's energy.

        Errors of two inputs meet only where both are missing, so the form is rate^2 M + rate (1 - rate) diag(M).
        """
        lone = float((error.square().sum(0).numpy() * self.importance).sum())
        return (rate**2 * self._energy(error) + rate * (1 - rate) * lone) / self.energy

    @property
    def sheets(self) -> bool:
        """Whether a prior is worth trying."""
        return bool(self.space) and int(np.prod(self.space)) >= FEWEST_CELLS and self.matrix.numel() >= WORTHWHILE

    def codecs(self) -> list[str]:
        single = int(np.prod(self.space)) == self.matrix.shape[1]  # of several channels: not one sheet
        return (["low frequency"] if self.space and single else []) + (["low rank"] if min(self.matrix.shape) >= 4 else [])

    def sketch(self, name: str):  # noqa: ANN201
        if name not in self.sketches:
            self.sketches[name] = codec(name, self.space).analyse(self.matrix, moments=self.moments)
        return self.sketches[name]


class Planner:
    """Plans what to remember of tensors that may all lose weights at once.

    Analysis is done once, so that several budgets and rates can be planned for.

    Args:
        weights: float tensors by name, finite and not empty; the first axis is the outputs.
        moments: by name, second moments of the layer's inputs, `[columns, columns]`; see `planaria.calibration`. With
            them errors count by what they do to the layer's output, without as they are.
        spaces: by name, the spatial axes that a layer's inputs end with, where there are any.
        judge: from restored tensors to how well the network does, higher is better; it has the last word if given.
        seed: of the held-out masks and samples.

    Raises:
        InvalidInput: on an empty or not finite tensor, or moments and spaces that do not fit.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        moments: Mapping[str, Tensor] | None = None,
        spaces: Mapping[str, tuple[int, ...]] | None = None,
        judge: Judge | None = None,
        seed: int = 0,
        threads: int = 1,
    ):
        self.weights = {name: weight.detach() for name, weight in weights.items()}
        self.judge, self.seed, self.threads = judge, seed, threads
        self.subjects = []
        for name, weight in self.weights.items():
            moment, space = (moments or {}).get(name), tuple((spaces or {}).get(name, ()))
            rows, columns = matrix_shape(weight.shape)
            if weight.numel() == 0 or not weight.isfinite().all():
                raise InvalidInput(f"A memory is of finite weights, and some; {name!r} has none, or others.")
            if moment is not None and (tuple(moment.shape) != (columns, columns) or not moment.isfinite().all()):
                raise InvalidInput(
                    f"Second moments of {name!r} have shape ({columns}, {columns}) and are finite; not "
                    f"{tuple(moment.shape)}."
                )
            if space and columns % int(np.prod(space)):
                raise InvalidInput(f"{name!r} has {columns} columns, which are not laid out over {space}.")
            matrix = weight.float().reshape(rows, columns)
            self.subjects.append(_Subject(name, tuple(weight.shape), matrix, moment, space))
        self._hinted: dict[int, tuple[list[Remembered], list[str]]] = {}
        self._analysed: dict[int, _Analysed] = {}

    def remember(self, nbytes: int, *, expect: float | None = None) -> Memory:
        """The best memory of at most `nbytes` that was found.

        Args:
            nbytes: all of it.
            expect: share of the weights that is expected to be lost, in (0, 1]; None for any.

        Raises:
            InvalidInput: on other numbers.
        """
        if nbytes < 0 or (expect is not None and not 0 < expect <= 1):
            raise InvalidInput(f"A memory takes 0 bytes or more, and a share in (0, 1] is expected: {nbytes}, {expect}.")
        rates = RATES if expect is None else (expect,)
        candidates = sorted(self._candidates(nbytes, rates, expect), key=lambda one: -one.merit)
        chosen = candidates[0]
        judged: list[float] = []
        if self.judge is not None and len(candidates) > 1:
            shortlist = candidates[:JUDGED]
            judged = [self._judged(one, rates) for one in shortlist]
            chosen = shortlist[int(np.argmax(judged))]
        reasons = [_described(one, one is chosen) for one in candidates[:8]]
        return self._made(chosen, nbytes, reasons)

    def _candidates(self, nbytes: int, rates: Sequence[float], expect: float | None) -> Iterator[Candidate]:
        sets: list[tuple[float, ...]]
        if expect is not None:
            sets = [(expect,)]
        else:
            sets = [(strength,) for strength in (*STRENGTHS, 1.0)]
            sets += [(one, other) for one in (*STRENGTHS, 1.0) for other in STRENGTHS if other < one]
        for share in SHARES:
            room = int(share * nbytes)
            analysed = self._analyse(room)
            spent = analysed.nbytes
            yield Candidate(room, (), [], analysed.errors((), [], rates))
            left = nbytes - spent - DESCRIPTION * len(self.subjects) * (0 if spent else 1)
            if share == 1.0 or left <= 0:
                continue
            for strengths in sets:
                planned = analysed.rungs(strengths, _splits(strengths), left)
                if planned is not None:
                    grown, rungs = planned
                    yield Candidate(room, grown, rungs, analysed.errors(grown, rungs, rates))

    def _analyse(self, hint_bytes: int) -> "_Analysed":
        if hint_bytes not in self._analysed:
            remembered = self._hints(hint_bytes)
            self._analysed[hint_bytes] = _Analysed(self.subjects, remembered, self.seed)
        return self._analysed[hint_bytes]

    def _hints(self, nbytes: int) -> list[Remembered]:
        """Hints of at most so many bytes in all, at one level: reverse water-filling over the tensors."""
        room = nbytes - DESCRIPTION * len(self.subjects) - PRIOR_BYTES * sum(of.sheets for of in self.subjects)
        empty = np.zeros(0, np.uint8)
        nothing = [Remembered(name=of.name, shape=of.shape, content=empty) for of in self.subjects]
        if room <= 0:
            return nothing
        names = [self._best_codec(of, room * of.matrix.numel() / self._weights) for of in self.subjects]
        usable = [(of, name) for of, name in zip(self.subjects, names, strict=True) if name is not None]

        def size(level: float) -> int:
            return sum(of.sketch(name).nbytes(level) for of, name in usable)

        level = _least_level(size, room)
        for _ in range(20):
            contents = {of.name: of.sketch(name).encode(level) for of, name in usable}
            if sum(content.nbytes for content in contents.values()) <= room:
                break
            level *= 1.02
        else:
            return nothing
        return [
            Remembered(name=of.name, shape=of.shape, codec=name, space=of.space if name == "low frequency" else (),
                       content=contents[of.name])
            if name is not None and contents[of.name].nbytes
            else Remembered(name=of.name, shape=of.shape, content=empty)
            for of, name in zip(self.subjects, names, strict=True)
        ]  # fmt: skip

    def _best_codec(self, of: _Subject, nbytes: float) -> str | None:
        """The codec with the least output error at so many bytes; None if none is better than nothing."""
        best, least = None, 1.0
        names = of.codecs()
        for name in names:
            if len(names) == 1:
                return name
            sketch = of.sketch(name)
            content = sketch.encode(_least_level(sketch.nbytes, nbytes))
            error = of.output_error(of.matrix.double() - codec(name, of.space).decode(content, matrix_shape(of.shape)), 1.0)
            if error < least:
                best, least = name, error
        return best

    @property
    def _weights(self) -> int:
        return sum(of.matrix.numel() for of in self.subjects)

    def _made(self, chosen: Candidate, nbytes: int, reasons: Sequence[str]) -> Memory:
        analysed = self._analyse(chosen.hint_bytes)
        memory = Memory(analysed.remembered, reasons=tuple(reasons))
        if not chosen.strengths:
            return memory
        strengths, rungs = chosen.strengths, chosen.rungs
        target = room = float(nbytes - memory.nbytes - DESCRIPTION)
        for _ in range(ROUNDS):
            covered = [any(stage[index].any() for stage in rungs) for index in range(len(self.subjects))]
            tensors = [
                replace(of, laddered=is_covered) for of, is_covered in zip(analysed.remembered, covered, strict=True)
            ]
            picked = [index for index, is_covered in enumerate(covered) if is_covered]
            ladder = Ladder.of(
                [analysed.residual(index) for index in picked],
                [[stage[index] for index in picked] for stage in rungs],
                strengths,
                threads=self.threads,
            )
            made = Memory(tensors, ladder, strengths, tuple(reasons))
            if made.nbytes <= nbytes:
                return made
            room -= 1.2 * (made.nbytes - nbytes) + 0.002 * target
            planned = analysed.rungs(chosen.strengths, _splits(chosen.strengths), room)
            if planned is not None:
                strengths, rungs = planned
        return memory

    def _judged(self, one: Candidate, rates: Sequence[float]) -> float:
        """How well the network does after such repairs, without coding anything."""
        analysed = self._analyse(one.hint_bytes)
        draws = streams.generator(self.seed, "masks of plans")
        merits = []
        for rate in rates if len(rates) == 1 else (0.1, 0.3, 0.5, 0.7, 0.9):
            restored = {}
            for index, of in enumerate(self.subjects):
                known = torch.rand(of.matrix.shape, generator=draws) >= rate
                filled = analysed.filled(index, one.strengths, one.rungs, rate, known)
                restored[of.name] = torch.where(known, of.matrix, filled).view(of.shape).to(self.weights[of.name])
            assert self.judge is not None
            merits.append(self.judge(restored))
        return sum(merits) / len(merits)


class _Analysed:
    """Tensors with hints of some size, and what each rung would do for what the hints leave."""

    def __init__(self, subjects: Sequence[_Subject], remembered: list[Remembered], seed: int):
        self.subjects, self.remembered = subjects, remembered
        self._priors(seed)
        self.nbytes = Memory(self.remembered).nbytes
        self.hint_errors: list[Callable[[float], float]] = []
        columns, draws = [], streams.generator(seed, "sample of rungs")
        count = len(subjects)
        self.bits, self.distortion = np.zeros((count, RUNGS)), np.zeros((count, RUNGS))
        self.lengths = np.zeros((count, RUNGS, 40))
        self.sizes = np.array([of.matrix.numel() for of in subjects])
        self.variance = np.zeros(count)
        for index, of in enumerate(subjects):
            error = torch.from_numpy(self.residual(index))
            lone, full = of.output_error(error, 0.5), of.output_error(error, 1.0)
            # error at q: q^2 full + q (1 - q) lone', and at 1/2: full / 4 + lone' / 4
            if self.remembered[index].prior.size:
                self.hint_errors.append(lambda q, index=index: self._prior_error(index, q))
            else:
                self.hint_errors.append(lambda q, full=full, rest=4 * lone - full: q * q * full + q * (1 - q) * rest)
            variance = float(error.square().mean())
            self.variance[index] = variance
            columns.append(of.importance / of.energy * of.matrix.shape[0])
            flat = error.flatten()
            some = flat[torch.randint(len(flat), (min(SAMPLE, len(flat)),), generator=draws)].numpy()
            units = some / max(variance**0.5, 1e-300)
            for rung in range(RUNGS):
                of_rung = tree(NOTHING, rung)
                cells = np.searchsorted(thresholds(rung), units, side="right")
                lengths = of_rung.lengths[cells]
                self.bits[index, rung] = lengths.mean()
                counts = np.bincount(lengths, minlength=40)[:40]
                self.lengths[index, rung] = counts / len(units)
                self.distortion[index, rung] = np.square(units - of_rung.mean[of_rung.leaves[cells]]).mean()
        self.columns = columns  # by tensor and column: relative output error for each unit of a weight's square error
        self.edges = np.cumsum([0, *(len(of) for of in columns)])
        self.tensor_of = np.repeat(np.arange(count), [len(of) for of in columns])
        self.rows = np.repeat([of.matrix.shape[0] for of in subjects], [len(of) for of in columns])

    def _priors(self, seed: int) -> None:
        """Adds to tensors that are sheets the covariance of what the hint leaves, where that tells of missing weights."""
        draws = streams.generator(seed, "masks of priors")
        for index, of in enumerate(self.subjects):
            if not of.sheets:
                continue
            left = torch.from_numpy(self.residual(index))
            known = torch.rand(left.shape, generator=draws) >= 0.5
            with_prior = replace(self.remembered[index], space=of.space, prior=prior_of(left, of.space))
            rest = (left - with_prior.regrown(left, known))[~known]
            if float(rest.square().sum()) < (1 - WORTH) * float(left[~known].square().sum()):
                self.remembered[index] = with_prior
        self._prior_errors: dict[tuple[int, float], float] = {}

    def _prior_error(self, index: int, rate: float) -> float:
        """Relative output error of hint and prior, measured on one held-out mask."""
        if (index, rate) not in self._prior_errors:
            of, left = self.subjects[index], torch.from_numpy(self.residual(index))
            known = torch.rand(left.shape, generator=streams.generator(0, f"mask of {index} at {rate}")) >= rate
            error = torch.where(known, 0.0, left - self.remembered[index].regrown(torch.where(known, left, 0.0), known))
            self._prior_errors[index, rate] = of.output_error(error, 1.0)
        return self._prior_errors[index, rate]

    def residual(self, index: int) -> np.ndarray:
        """What the hint leaves of a tensor."""
        of, hint = self.subjects[index], self.remembered[index].hint
        return residual(of.matrix, torch.zeros(of.matrix.shape) if hint is None else hint)

    def rungs(
        self, strengths: tuple[float, ...], splits: Sequence[float], nbytes: float
    ) -> tuple[tuple[float, ...], list[Rungs]] | None:
        """Strengths and, for every stage, the rungs that make the error least in about so many bytes; None if none fits.

        Where even the finest rungs leave bytes, a single stage is made stronger instead.
        """
        room = nbytes
        for _ in range(ROUNDS):
            stages = self._picked(strengths, splits, 8 * room)
            if stages is None:
                return None
            size = self.size(strengths, stages)
            if len(strengths) == 1 and (stages[0] == FINEST).all() and size < CLOSE * nbytes and strengths[0] < 1:
                strengths = (min(1.0, strengths[0] * nbytes / size),)
            elif CLOSE * nbytes <= size <= nbytes:
                break
            else:
                room *= (1 + CLOSE) / 2 * nbytes / size
        if size > nbytes:
            return None
        return strengths, [
            [stage[start:stop].astype(np.uint8) for start, stop in zip(self.edges[:-1], self.edges[1:], strict=True)]
            for stage in stages
        ]

    def _picked(
        self, strengths: Sequence[float], splits: Sequence[float], room: float
    ) -> list[np.ndarray] | None:
        """By stage, the rung of every column, for so many check bits."""
        gain = np.concatenate(self.columns)[:, None] * (self.variance[:, None] * self.distortion)[self.tensor_of]
        cost = self.rows[:, None] * self.bits[self.tensor_of]
        stages: list[np.ndarray] = []
        before = np.zeros(len(gain), np.int64)
        spent = 0.0
        for number, (strength, split) in enumerate(zip(strengths, splits, strict=True)):
            allowed = REFINES[before].copy()
            if number < len(strengths) - 1:
                allowed[:, SIGN + 1 : FIRST_UNIFORM] = False
            extra = strength * np.maximum(cost - np.take_along_axis(cost, before[:, None], 1), 0.0)
            picked = _filled(gain, extra, allowed, room * split - spent)
            if picked is None or not picked.any():
                return None
            spent += float(np.take_along_axis(extra, picked[:, None], 1).sum())
            stages.append(picked)
            before = picked
        return stages

    def size(self, strengths: Sequence[float], stages: Sequence[np.ndarray]) -> float:
        """Bytes of the ladder with these rungs, to a percent: the lengths of the codes are those of the samples."""
        segments = -(-int(self.sizes.sum()) // SEGMENT)
        bits = 0.0
        before = np.zeros_like(stages[0])
        for strength, stage in zip(strengths, stages, strict=True):
            counts = np.zeros(40)
            used, columns = np.unique(
                np.stack([self.tensor_of, before, stage]), axis=1, return_counts=True
            )
            for (tensor, coarse, fine), count in zip(used.T, columns, strict=True):
                lengths = self.lengths[tensor, fine]
                if coarse:  # about: the shorter code is told already
                    shift = round(self.bits[tensor, fine] - self.bits[tensor, coarse])
                    lengths = np.eye(40)[max(shift, 0)]
                counts += count * self.subjects[tensor].matrix.shape[0] * lengths
            total = int(self.sizes.sum() / segments)
            planes = planned_planes((counts / segments).astype(np.int64), strength, total)
            bits += segments * sum(check + 52 for check, _ in planes)
            bits += 8 * len(zlib.compress(stage.astype(np.uint8).tobytes(), 1)) + 40
            before = stage
        return bits / 8 + 4 * len(self.subjects) + 5

    def errors(self, strengths: Sequence[float], rungs: Sequence[Rungs], rates: Sequence[float]) -> dict[float, float]:
        """Relative output error to expect at each rate, in the mean over tensors."""
        errors = {}
        for rate in rates:
            reached = [number for number, strength in enumerate(strengths) if rate <= strength]
            total = 0.0
            for index in range(len(self.subjects)):
                if not reached:
                    total += self.hint_errors[index](rate)
                    continue
                rung = rungs[reached[-1]][index]
                lone = self.columns[index] * self.variance[index]
                # What the hint leaves of uncovered columns errs together, rounding does not.
                uncovered = float(lone[rung == NOTHING].sum() / max(lone.sum(), 1e-300))
                rounding = float((lone * self.distortion[index][rung])[rung != NOTHING].sum())
                total += uncovered * self.hint_errors[index](rate) + rate * rounding
            errors[rate] = total / len(self.subjects)
        return errors

    def filled(
        self, index: int, strengths: Sequence[float], rungs: Sequence[Rungs], rate: float, known: Tensor
    ) -> Float[Tensor, "rows columns"]:
        """What missing weights would be restored to at a rate."""
        left = self.residual(index)
        scale = max(float(self.variance[index]) ** 0.5, 1e-300)
        reached = [number for number, strength in enumerate(strengths) if rate <= strength]
        means = np.zeros_like(left)
        if reached:
            rung = rungs[reached[-1]][index]
            for one in np.unique(rung):
                of = tree(NOTHING, int(one))
                columns = rung == one
                cells = np.searchsorted(thresholds(int(one)), left[:, columns] / scale, side="right")
                means[:, columns] = of.mean[of.leaves[cells]] * scale
        elif self.remembered[index].prior.size:
            rest = torch.from_numpy(left)
            means = self.remembered[index].regrown(torch.where(known, rest, 0.0), known).numpy()
        return (self.subjects[index].matrix.double() - torch.from_numpy(left - means)).float()


def _splits(strengths: Sequence[float]) -> tuple[float, ...]:
    """The share of the bytes that stages up to each take."""
    return (1.0,) if len(strengths) == 1 else (0.5, 1.0)


def _filled(gain: np.ndarray, cost: np.ndarray, allowed: np.ndarray, room: float) -> np.ndarray | None:
    """For each column the rung that makes the summed error least at a cost of at most `room` in all.

    The best for some price of a bit; between two prices, as many columns as fit are at the lower one.
    """
    if room <= 0:
        return None
    gain = np.where(allowed, gain, np.inf)

    def at(price: float) -> np.ndarray:
        return np.argmin(gain + price * cost, axis=1)

    def of(picked: np.ndarray) -> np.ndarray:
        return np.take_along_axis(cost, picked[:, None], 1)[:, 0]

    low, high = 1e-40, 1e40
    if of(at(low)).sum() <= room:
        return at(low)
    for _ in range(60):
        price = (low * high) ** 0.5
        low, high = (price, high) if of(at(price)).sum() > room else (low, price)
    rich, poor = at(low), at(high)
    more = of(rich) - of(poor)
    order = np.argsort(-(np.take_along_axis(gain, poor[:, None], 1) - np.take_along_axis(gain, rich[:, None], 1))[:, 0]
                       / np.maximum(more, 1e-300), kind="stable")  # fmt: skip
    fits = np.cumsum(more[order]) <= room - of(poor).sum()
    poor[order[fits]] = rich[order[fits]]
    return poor


def _least_level(size: Callable[[float], int], room: float) -> float:
    """The finest level, to 1 %, that fits."""
    low, high = 1e-4, 1e3
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if size(middle) > room else (low, middle)
    assert isfinite(high)
    return high


def _described(one: Candidate, chosen: bool) -> str:
    ladder = "no ladder" if not one.strengths else "ladder up to " + ", ".join(f"{s:.0%}" for s in one.strengths)
    errors = ", ".join(f"{rate:.0%}: {error:.3g}" for rate, error in one.errors.items())
    return f"{'*' if chosen else ' '} {one.hint_bytes:,} bytes of hints, {ladder}: output error at {errors}"
