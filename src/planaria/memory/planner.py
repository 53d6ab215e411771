"""How a number of bytes is spent on tensors: which hint each gets, and how strong the ladder is."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.memory.analysis import CLOSE, EVEN_BITS, MOST_FIRST_BITS, ROUNDS, Analysis, Subject
from planaria.memory.ladder import Ladder, Rungs
from planaria.memory.memory import CODECS, PRIOR_BYTES, Memory, Remembered, matrix_shape
from planaria.memory.tuning import LEVEL, TUNED, Judge, balanced_masks, tuned, worth_tuning

RATES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Shares of weights lost that a plan for any rate is made for, all alike."""
SHARES = (0.0, 0.5, 0.75, 1.0)  # of the bytes, for hints
STRENGTHS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9)
TOLERABLE = 0.1  # relative output error at which about half of a network's ability is gone
ROUNDS_OF_LEVELS, COARSER = 20, 1.02  # until hints fit: most sizes are foretold to a percent or two
HALVINGS_OF_LEVELS = 6  # until they leave no bytes unused
SMALLER = 0.99  # until another ladder is planned than one that did not fit
FINEST_LEVEL, COARSEST_LEVEL = 1e-4, 1e3  # of hints
# Ways to count errors that a judge compares: how far the moments are believed, how much more the errors of large
# tensors count (see `Subject`), and the codec wherever it can be, else that of the least error. Without a judge, the
# first. Output errors flatter where all layers err at once: each then sees other inputs than those of the calibration.
WAYS: tuple[tuple[float, float, str | None], ...] = (
    (1.0, 0.5, None),
    (1.0, 1.0, None),
    (0.5, 0.0, None),
    (0.5, 0.0, EVEN_BITS),
    (0.2, 0.0, EVEN_BITS),
    (0.0, 0.5, None),
    (0.0, 0.0, None),
    (0.0, 0.5, "first bits"),
    (0.0, 0.0, "first bits"),
)
ALIKE = 2  # plans of so many bytes for hints and the same ladder that are tuned
STORED = {EVEN_BITS: "first bits"}


@dataclass(frozen=True)
class Candidate:
    """A way to spend the bytes.

    Attributes:
        hint_bytes: for hints; None for not even a prior.
        asked: strengths of the ladder's stages; none without a ladder.
        strengths: the same, or more where bytes were left.
        rungs: by stage and tensor, of each column.
        errors: relative output error to expect at each rate, in the mean over tensors.
    """

    hint_bytes: int | None
    asked: tuple[float, ...]
    strengths: tuple[float, ...]
    rungs: Sequence[Rungs]
    errors: Mapping[float, float]

    @property
    def merit(self) -> float:
        """About what remains of a network's ability, in the mean over rates."""
        return sum(1 / (1 + error / TOLERABLE) for error in self.errors.values()) / len(self.errors)


class Planner:
    """Plans what to remember of tensors that may all lose weights at once.

    Analysis is done once, so that several budgets and rates can be planned for.

    Args:
        weights: float tensors by name, finite and not empty; the first axis is the outputs.
        moments: by name, second moments of the layer's inputs, `[columns, columns]`; see `planaria.calibration`. With
            them errors count by what they do to the layer's output, without as they are.
        spaces: by name, the spatial axes that a layer's inputs end with, where there are any.
        judge: from restored tensors, float32, to how well the network does, at most 1 for as well as the intact one. It
            has the last word if given: on whether the moments are of use, and of up to 12 tensors on how much each
            counts. It is asked some hundred times.
        seed: of the held-out masks and samples.
        threads: to compute with; the result does not depend on them.

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
        for name, weight in self.weights.items():
            _check(name, weight, (moments or {}).get(name), tuple((spaces or {}).get(name, ())))
        self._moments, self._spaces = dict(moments or {}), dict(spaces or {})
        bits = any(weight.numel() <= MOST_FIRST_BITS for weight in self.weights.values())
        self._ways = [way for way in WAYS if bits or way[2] is None] if judge is not None else WAYS[:1]
        self._searches: dict[tuple[float, float, str | None, float | None], _Search] = {}

    def remember(self, nbytes: int, *, expect: float | None = None, shares: Sequence[float] | None = None) -> Memory:
        """The best memory of at most `nbytes` that was found.

        Args:
            nbytes: all of it.
            expect: share of the weights that is expected to be lost, in (0, 1]; None for any.
            shares: of the bytes, for hints, that are compared: (1.0,) for hints alone, (0.0,) for a ladder alone.

        Raises:
            InvalidInput: on other numbers.
        """
        if nbytes < 0 or (expect is not None and not 0 < expect <= 1):
            raise InvalidInput(f"A memory has 0 bytes or more and expects a share in (0, 1], not {nbytes}, {expect}.")
        tuning = self.judge is not None and worth_tuning(self.weights)
        found: list[_Found] = []
        for way in self._ways:
            # What is planned for any rate may serve one, too; only a judge that has the last word can say.
            for planned in dict.fromkeys((expect, None)) if tuning else (expect,):
                search = self._search(*way, planned)
                ranked = sorted(search.candidates(nbytes, shares or SHARES), key=lambda one: -one.merit)
                if self.judge is None:
                    found.append(_Found(search, ranked[0], ranked))
                    continue
                # The best of every share for hints: the next best are much like it.
                kinds = {one.hint_bytes: one for one in reversed(ranked)}.values()
                found += [_Found(search, one, ranked, search.judged(one, expect, self.judge)) for one in kinds]
        if self.judge is not None and tuning:
            found = self._tuned(found, nbytes, expect, self.judge)
        # Judges see few inputs: what is about as good to them is told apart by the error.
        most = max(one.judged for one in found)
        best = max((one for one in found if one.judged >= most - LEVEL), key=lambda one: one.candidate.merit)
        return best.search.made(best.candidate, nbytes, best.reasons())

    def _tuned(self, found: Sequence["_Found"], nbytes: int, expect: float | None, judge: Judge) -> list["_Found"]:
        """The best of the plans that the judge likes most, and of the same with other stresses of the tensors."""
        kinds: Counter[tuple[int | None, tuple[float, ...]]] = Counter()
        favourites: list[_Found] = []
        for one in sorted({one.judged: one for one in found}.values(), key=lambda one: -one.judged):
            kind = one.candidate.hint_bytes, one.candidate.asked
            kinds[kind] += 1
            if kinds[kind] <= ALIKE and len(favourites) < TUNED:
                favourites.append(one)
        both = [
            plan
            for one in favourites
            for plan in tuned(one, self.weights, partial(one.stressed, nbytes), lambda plan: plan.asked(expect, judge))
        ] + favourites
        again = [replace(one, judged=one.asked(expect, judge, again=True)) for one in both]
        return [max(again, key=lambda one: one.judged)]

    def _search(self, believed: float, emphasis: float, favourite: str | None, expect: float | None) -> "_Search":
        key = (believed, emphasis, favourite, expect)
        if key not in self._searches:
            moments = {name: softened(of, believed) for name, of in self._moments.items()} if believed else {}
            rates = RATES if expect is None else (expect,)
            subjects = [
                Subject.of(name, weight, moments.get(name), tuple(self._spaces.get(name, ())), rates, emphasis=emphasis)
                for name, weight in self.weights.items()
            ]
            favourites = (favourite,) if favourite else (*CODECS, EVEN_BITS)
            choices = _codec_choices(subjects, favourites)
            self._searches[key] = _Search(subjects, expect, choices, seed=self.seed, threads=self.threads)
        return self._searches[key]


@dataclass(frozen=True)
class _Found:
    """A plan, all that it was `ranked` among, and what the judge says of it."""

    search: "_Search"
    candidate: Candidate
    ranked: Sequence[Candidate]
    judged: float = 0.0

    def stressed(self, nbytes: int, stresses: Mapping[str, float]) -> "_Found | None":
        """The same plan with other stresses of the tensors, if it fits."""
        search = self.search.stressed(self.candidate, stresses)
        candidate = search.candidate(self.candidate.hint_bytes, self.candidate.asked, nbytes)
        return None if candidate is None else replace(self, search=search, candidate=candidate)

    def asked(self, expect: float | None, judge: Judge, *, again: bool = False) -> float:
        """What the judge says of it now."""
        return self.search.judged(self.candidate, expect, judge, again=again)

    def reasons(self) -> list[str]:
        """A line for each plan that was compared, the best ones first."""
        shown = [_described(one, one is self.candidate) for one in self.ranked[:8]]
        if all(one is not self.candidate for one in self.ranked[:8]):
            shown.insert(0, _described(self.candidate, True))
        return shown


class _Search:
    """All plans for one rate, or any, and one way to count errors.

    Args:
        choices: by tensor, codecs of hints; of the choices, the one with the least error is taken.
    """

    def __init__(
        self,
        subjects: list[Subject],
        expect: float | None,
        choices: Sequence[Mapping[str, str]],
        *,
        seed: int,
        threads: int,
    ):
        self.subjects, self.expect, self.choices, self.seed, self.threads = subjects, expect, choices, seed, threads
        self.rates = RATES if expect is None else (expect,)
        self._analyses: dict[int | None, Analysis] = {}
        self._chosen: dict[int, Mapping[str, str]] = {}  # of the choices, by the bytes of hints

    def stressed(self, candidate: Candidate, stresses: Mapping[str, float]) -> "_Search":
        """The same for one candidate's hints, with other stresses of the tensors."""
        subjects = [replace(of, stress=stresses[of.name]) for of in self.subjects]
        choices = [self._chosen[candidate.hint_bytes or 0]]
        return _Search(subjects, self.expect, choices, seed=self.seed, threads=self.threads)

    def candidates(self, nbytes: int, shares: Sequence[float]) -> Iterator[Candidate]:
        """Every plan for so many bytes."""
        expect = self.expect
        sets: list[tuple[float, ...]]
        if expect is not None:
            sets = [(expect,)]
        else:
            sets = [(strength,) for strength in (*STRENGTHS, 1.0)]
            sets += [(one, other) for one in (*STRENGTHS, 1.0) for other in STRENGTHS if other < one]
        rooms: list[int | None] = [int(share * nbytes) for share in shares]
        for room in [room for room in rooms if self._analysis(room).nbytes <= nbytes] or [None]:
            for strengths in [()] if room == nbytes or set(shares) == {1.0} else [(), *sets]:
                candidate = self.candidate(room, strengths, nbytes)
                if candidate is not None:
                    yield candidate

    def candidate(self, hint_bytes: int | None, strengths: tuple[float, ...], nbytes: int) -> Candidate | None:
        """The plan with so many bytes for hints, and a ladder of these strengths in the rest; None if none fits."""
        analysis = self._analysis(hint_bytes)
        if not strengths:
            return Candidate(hint_bytes, (), (), [], analysis.errors((), [], self.rates))
        planned = analysis.plan(strengths, float(nbytes - analysis.nbytes_besides(strengths)))
        if planned is None:
            return None
        grown, rungs = planned
        return Candidate(hint_bytes, strengths, grown, rungs, analysis.errors(grown, rungs, self.rates))

    def _analysis(self, hint_bytes: int | None) -> Analysis:
        if hint_bytes not in self._analyses:
            tried = {of.name for of in self.subjects if of.sheets and hint_bytes is not None and self.expect != 1}
            hints = self._with_priors(self._hints(hint_bytes or 0, tried), tried)
            worth = {hint.name for hint in hints if hint.prior.size}
            if worth < tried:  # the bytes of the others are for hints
                hints = self._with_priors(self._hints(hint_bytes or 0, worth), worth)
            self._analyses[hint_bytes] = Analysis(self.subjects, hints, seed=self.seed)
        return self._analyses[hint_bytes]

    def _with_priors(self, hints: Sequence[Remembered], tried: Collection[str]) -> list[Remembered]:
        return [
            of.with_prior(hint, self.rates, seed=self.seed) if of.name in tried else hint
            for of, hint in zip(self.subjects, hints, strict=True)
        ]

    def _hints(self, nbytes: int, priors: Collection[str]) -> list[Remembered]:
        """Hints of at most so many bytes in all, at one level: reverse water-filling over the tensors.

        Args:
            priors: tensors that are to have one, for which there must be room.
        """
        empty = np.zeros(0, np.uint8)
        nothing = [Remembered(name=of.name, shape=of.shape, content=empty) for of in self.subjects]
        best, least = nothing, float("inf")
        self._chosen[nbytes] = self.choices[0]
        for names in self.choices:
            hints = self._encoded(names, nbytes, nothing, priors)
            error = sum(self._error(of, hint) for of, hint in zip(self.subjects, hints, strict=True))
            if error < least:
                best, least = hints, error
                self._chosen[nbytes] = names
        return best

    def _encoded(
        self, names: Mapping[str, str], nbytes: int, nothing: Sequence[Remembered], priors: Collection[str]
    ) -> list[Remembered]:
        """Hints of these codecs at one level, the finest that fits with priors and what describes them all."""
        described = [
            replace(
                blank,
                codec=STORED.get(names.get(blank.name, ""), names.get(blank.name)),
                space=of.space,
                prior=np.zeros(PRIOR_BYTES if of.name in priors else 0, np.uint8),
            )
            for of, blank in zip(self.subjects, nothing, strict=True)
        ]
        room = nbytes - Memory(described).nbytes
        if room <= 0:
            return list(nothing)
        usable = [(of, of.sketch(names[of.name]), of.share(self._weights)) for of in self.subjects if of.name in names]
        level = _least_level(lambda level: sum(sketch.nbytes(level * share) for _, sketch, share in usable), room)
        finer = level / COARSER
        for _ in range(ROUNDS_OF_LEVELS):
            contents = {of.name: sketch.encode(level * share) for of, sketch, share in usable}
            size = sum(content.nbytes for content in contents.values())
            if size <= room:
                break
            finer, level = level, level * max(COARSER, (size / room) ** 0.5)
        else:
            return list(nothing)
        for _ in range(HALVINGS_OF_LEVELS):
            if size >= CLOSE * room:
                break
            between = (finer * level) ** 0.5
            tried = {of.name: sketch.encode(between * share) for of, sketch, share in usable}
            tried_size = sum(content.nbytes for content in tried.values())
            if tried_size > room:
                finer = between
            else:
                contents, size, level = tried, tried_size, between
        return [
            blank
            if blank.name not in names or not contents[blank.name].nbytes
            else replace(
                blank,
                codec=STORED.get(names[blank.name], names[blank.name]),
                space=of.space if names[blank.name] == "low frequency" else (),
                content=contents[blank.name],
            )
            for of, blank in zip(self.subjects, nothing, strict=True)
        ]

    def _error(self, of: Subject, remembered: Remembered) -> float:
        """Relative output error with this hint alone, in the mean over rates, times what it counts for."""
        together, alone = of.output_errors(of.matrix.double() - remembered.decode())
        error = sum(rate**2 * together + rate * (1 - rate) * alone for rate in self.rates) / len(self.rates)
        return of.counts_for * error

    @property
    def _weights(self) -> int:
        return sum(of.matrix.numel() for of in self.subjects)

    def made(self, chosen: Candidate, nbytes: int, reasons: Sequence[str]) -> Memory:
        """The memory that a plan makes, of at most `nbytes`."""
        analysis = self._analysis(chosen.hint_bytes)
        best = Memory(analysis.remembered, reasons=tuple(reasons))
        if not chosen.strengths:
            return best
        strengths, rungs = chosen.strengths, chosen.rungs
        room = float(nbytes - analysis.nbytes_besides(strengths))
        for _ in range(ROUNDS):
            made = self._coded(analysis, strengths, rungs, reasons)
            if best.nbytes < made.nbytes <= nbytes:
                best = made
            if CLOSE * nbytes <= made.nbytes <= nbytes:
                break
            room += (1 + CLOSE) / 2 * nbytes - made.nbytes
            planned = analysis.plan(chosen.asked, room)
            while made.nbytes > nbytes and planned is not None and _same(planned, (strengths, rungs)):
                room *= SMALLER
                planned = analysis.plan(chosen.asked, room)
            if planned is None or _same(planned, (strengths, rungs)):
                break
            strengths, rungs = planned
        return best

    def _coded(
        self, analysis: Analysis, strengths: tuple[float, ...], rungs: Sequence[Rungs], reasons: Sequence[str]
    ) -> Memory:
        covered = [any(stage[index].any() for stage in rungs) for index in range(len(self.subjects))]
        tensors = [replace(of, laddered=own) for of, own in zip(analysis.remembered, covered, strict=True)]
        picked = [index for index, own in enumerate(covered) if own]
        ladder = Ladder.of(
            (analysis.residual(index) for index in picked),
            [[stage[index] for index in picked] for stage in rungs],
            strengths,
            threads=self.threads,
        )
        return Memory(tensors, ladder, strengths, tuple(reasons))

    def judged(self, one: Candidate, expect: float | None, judge: Judge, *, again: bool = False) -> float:
        """How well the network does after such repairs, without coding anything.

        Args:
            expect: share that is missing; None for any. Not always the one that was planned for.
            again: with other masks, three times as many.
        """
        analysis = self._analysis(one.hint_bytes)
        merits = []
        shapes = {of.name: of.matrix.shape for of in self.subjects}
        for rate, known in balanced_masks(shapes, expect, seed=self.seed, again=again):
            restored = {}
            for index, of in enumerate(self.subjects):
                filled = analysis.filled(index, one.strengths, one.rungs, rate, known[of.name])
                restored[of.name] = torch.where(known[of.name], of.matrix, filled).view(of.shape)
            merits.append(judge(restored))
        return sum(merits) / len(merits)


def _codec_choices(subjects: Sequence[Subject], favourites: Sequence[str]) -> list[dict[str, str]]:
    """By tensor the codec to use: a favourite where it can be, else the first that can.

    The codecs of one choice are compared by what they make of the whole model: equal levels are not equal errors with
    different codecs, so that choosing for each tensor would give some too few bytes.
    """
    choices: list[dict[str, str]] = []
    possible = {of.name: of.codecs() for of in subjects if of.codecs()}
    for favourite in favourites:
        names = {name: favourite if favourite in codecs else codecs[0] for name, codecs in possible.items()}
        if names not in choices:
            choices.append(names)
    return choices


def softened(moments: Tensor, believed: float) -> Tensor:
    """Moments whose correlations and differences are only in part believed: inputs change as layers before them do."""
    return believed * moments + (1 - believed) * moments.diagonal().mean() * torch.eye(len(moments))


def _check(name: str, weight: Tensor, moments: Tensor | None, space: tuple[int, ...]) -> None:
    """Raises `InvalidInput` if one of them does not fit."""
    if not weight.is_floating_point() or weight.numel() == 0 or not weight.float().isfinite().all():
        raise InvalidInput(
            f"A memory is of tensors of at least one weight, all floating-point and finite in float32; {name!r}, "
            f"{weight.dtype} of shape {tuple(weight.shape)}, is none. Leave it out."
        )
    _, columns = matrix_shape(weight.shape)
    if moments is not None and (tuple(moments.shape) != (columns, columns) or not moments.isfinite().all()):
        raise InvalidInput(
            f"Second moments of {name!r} have shape ({columns}, {columns}) and are finite; not {tuple(moments.shape)}."
        )
    if space and (min(space) < 1 or columns % int(np.prod(space))):
        raise InvalidInput(f"{name!r} has {columns} columns, which are not laid out over {space}.")


def _least_level(size: Callable[[float], int], room: int) -> float:
    """The finest level, to 1 %, that fits."""
    low, high = FINEST_LEVEL, COARSEST_LEVEL
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if size(middle) > room else (low, middle)
    return high


def _same(one: tuple[tuple[float, ...], Sequence[Rungs]], other: tuple[tuple[float, ...], Sequence[Rungs]]) -> bool:
    """Whether two plans are the same."""
    return one[0] == other[0] and all(
        np.array_equal(np.concatenate(a), np.concatenate(b)) for a, b in zip(one[1], other[1], strict=True)
    )


def _described(one: Candidate, chosen: bool) -> str:
    ladder = "no ladder" if not one.strengths else "ladder up to " + ", ".join(f"{s:.0%}" for s in one.strengths)
    errors = ", ".join(f"{rate:.0%}: {error:.3g}" for rate, error in one.errors.items())
    return f"{'*' if chosen else ' '} {one.hint_bytes or 0:,} bytes of hints, {ladder}: output error at {errors}"
