"""All ways to spend a number of bytes on tensors, and the memory that one of them makes."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planaria.memory.analysis import CLOSE, EVEN_BITS, ROUNDS, Analysis, PlannedTensor
from planaria.memory.memory import PRIOR_BYTES, EncodedTensor, Memory
from planaria.memory.refinement import Depths, Refinement

RATES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Shares of weights lost that a plan for any rate is made for, all alike."""
STRENGTHS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9)
TOLERABLE = 0.1  # relative output error at which about half of a network's ability is gone
ROUNDS_OF_LEVELS, COARSER = 20, 1.02  # until sketches fit: most sizes are foretold to a percent or two
HALVINGS_OF_LEVELS = 6  # until they leave no bytes unused
SMALLER = 0.99  # until another refinement is planned than one that did not fit
FINEST_LEVEL, COARSEST_LEVEL = 1e-4, 1e3  # of sketches
STORED = {EVEN_BITS: "first bits"}


@dataclass(frozen=True)
class Candidate:
    """A way to spend the bytes.

    Attributes:
        sketch_bytes: for sketches; None for not even a prior.
        asked: strengths of the refinement's stages; none without a refinement.
        strengths: the same, or more where bytes were left.
        depths: by stage and tensor, of each column.
        errors: relative output error to expect at each rate, in the mean over tensors.
    """

    sketch_bytes: int | None
    asked: tuple[float, ...]
    strengths: tuple[float, ...]
    depths: Sequence[Depths]
    errors: Mapping[float, float]

    @property
    def merit(self) -> float:
        """About what remains of a network's ability, in the mean over rates."""
        return sum(1 / (1 + error / TOLERABLE) for error in self.errors.values()) / len(self.errors)


class Search:
    """All plans for one rate, or any, and one way to count errors.

    Args:
        subjects: the tensors.
        expect: share of the weights that is expected to be lost; None for any.
        choices: by tensor, codecs of sketches; of the choices, the one with the least error is taken.
        seed: of the held-out masks and samples.
        threads: to compute with; the result does not depend on them.
    """

    def __init__(
        self,
        subjects: list[PlannedTensor],
        expect: float | None,
        choices: Sequence[Mapping[str, str]],
        *,
        seed: int,
        threads: int,
    ):
        self.subjects, self.expect, self.choices, self.seed, self.threads = subjects, expect, choices, seed, threads
        self.rates = RATES if expect is None else (expect,)
        self._analyses: dict[int | None, Analysis] = {}
        self.chosen: dict[int, Mapping[str, str]] = {}  # of the choices, by the bytes of sketches

    def candidates(self, nbytes: int, shares: Sequence[float]) -> Iterator[Candidate]:
        """Every plan for so many bytes."""
        expect = self.expect
        sets: list[tuple[float, ...]]
        if expect is not None:
            sets = [(expect,)]
        else:
            sets = [(strength,) for strength in (*STRENGTHS, 1.0)]
            sets += [(strong, weak) for strong in (*STRENGTHS, 1.0) for weak in STRENGTHS if weak < strong]
        rooms: list[int | None] = [int(share * nbytes) for share in shares]
        for room in [room for room in rooms if self.analysis(room).nbytes <= nbytes] or [None]:
            for strengths in [()] if room == nbytes or set(shares) == {1.0} else [(), *sets]:
                candidate = self.candidate(room, strengths, nbytes)
                if candidate is not None:
                    yield candidate

    def candidate(self, sketch_bytes: int | None, strengths: tuple[float, ...], nbytes: int) -> Candidate | None:
        """The plan with so many bytes for sketches and a refinement of these strengths in the rest, or None."""
        analysis = self.analysis(sketch_bytes)
        if not strengths:
            return Candidate(sketch_bytes, (), (), [], analysis.errors((), [], self.rates))
        planned = analysis.plan(strengths, float(nbytes - analysis.nbytes_besides(strengths)))
        if planned is None:
            return None
        grown, depths = planned
        return Candidate(sketch_bytes, strengths, grown, depths, analysis.errors(grown, depths, self.rates))

    def analysis(self, sketch_bytes: int | None) -> Analysis:
        """The tensors with sketches of so many bytes; None for not even a prior."""
        if sketch_bytes not in self._analyses:
            tried = {
                subject.name
                for subject in self.subjects
                if subject.sheets and sketch_bytes is not None and self.expect != 1
            }
            sketches = self._with_priors(self._sketches(sketch_bytes or 0, tried), tried)
            worth = {sketch.name for sketch in sketches if sketch.prior.size}
            if worth < tried:  # the bytes of the others are for sketches
                sketches = self._with_priors(self._sketches(sketch_bytes or 0, worth), worth)
            self._analyses[sketch_bytes] = Analysis(self.subjects, sketches, seed=self.seed)
        return self._analyses[sketch_bytes]

    def _with_priors(self, sketches: Sequence[EncodedTensor], tried: Collection[str]) -> list[EncodedTensor]:
        return [
            subject.with_prior(sketch, self.rates, seed=self.seed) if subject.name in tried else sketch
            for subject, sketch in zip(self.subjects, sketches, strict=True)
        ]

    def _sketches(self, nbytes: int, priors: Collection[str]) -> list[EncodedTensor]:
        """Sketches of at most so many bytes in all, at one level: reverse water-filling over the tensors.

        Args:
            priors: tensors that are to have one, for which there must be room.
        """
        empty = np.zeros(0, np.uint8)
        nothing = [EncodedTensor(name=subject.name, shape=subject.shape, content=empty) for subject in self.subjects]
        best, least = nothing, float("inf")
        self.chosen[nbytes] = self.choices[0]
        for names in self.choices:
            sketches = self._encoded(names, nbytes, nothing, priors)
            error = sum(self._error(subject, sketch) for subject, sketch in zip(self.subjects, sketches, strict=True))
            if error < least:
                best, least = sketches, error
                self.chosen[nbytes] = names
        return best

    def _encoded(
        self, names: Mapping[str, str], nbytes: int, nothing: Sequence[EncodedTensor], priors: Collection[str]
    ) -> list[EncodedTensor]:
        """Sketches of these codecs at one level, the finest that fits with priors and what describes them all."""
        described = [
            replace(
                blank,
                codec=STORED.get(names.get(blank.name, ""), names.get(blank.name)),
                space=subject.space,
                prior=np.zeros(PRIOR_BYTES if subject.name in priors else 0, np.uint8),
            )
            for subject, blank in zip(self.subjects, nothing, strict=True)
        ]
        room = nbytes - Memory(described).nbytes
        if room <= 0:
            return list(nothing)
        usable = [
            (subject, subject.analysed_by(names[subject.name]), subject.share(self._weights))
            for subject in self.subjects
            if subject.name in names
        ]
        level = _least_level(lambda level: sum(analysed.nbytes(level * share) for _, analysed, share in usable), room)
        finer = level / COARSER
        for _ in range(ROUNDS_OF_LEVELS):
            contents = {subject.name: analysed.encode(level * share) for subject, analysed, share in usable}
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
            tried = {subject.name: analysed.encode(between * share) for subject, analysed, share in usable}
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
                space=subject.space if names[blank.name] == "low frequency" else (),
                content=contents[blank.name],
            )
            for subject, blank in zip(self.subjects, nothing, strict=True)
        ]

    def _error(self, subject: PlannedTensor, encoded: EncodedTensor) -> float:
        """Relative output error with this sketch alone, in the mean over rates, times what it counts for."""
        together, alone = subject.output_errors(subject.matrix.double() - encoded.decode())
        error = sum(rate**2 * together + rate * (1 - rate) * alone for rate in self.rates) / len(self.rates)
        return subject.counts_for * error

    @property
    def _weights(self) -> int:
        return sum(subject.matrix.numel() for subject in self.subjects)

    def made(self, chosen: Candidate, nbytes: int, reasons: Sequence[str]) -> Memory:
        """The memory that a plan makes, of at most `nbytes`."""
        analysis = self.analysis(chosen.sketch_bytes)
        best = Memory(analysis.encoded, reasons=tuple(reasons))
        if not chosen.strengths:
            return best
        strengths, depths = chosen.strengths, chosen.depths
        room = float(nbytes - analysis.nbytes_besides(strengths))
        for _ in range(ROUNDS):
            made = self._coded(analysis, strengths, depths, reasons)
            if best.nbytes < made.nbytes <= nbytes:
                best = made
            if CLOSE * nbytes <= made.nbytes <= nbytes:
                break
            room += (1 + CLOSE) / 2 * nbytes - made.nbytes
            planned = analysis.plan(chosen.asked, room)
            while made.nbytes > nbytes and planned is not None and _same(planned, (strengths, depths)):
                room *= SMALLER
                planned = analysis.plan(chosen.asked, room)
            if planned is None or _same(planned, (strengths, depths)):
                break
            strengths, depths = planned
        return best

    def _coded(
        self, analysis: Analysis, strengths: tuple[float, ...], depths: Sequence[Depths], reasons: Sequence[str]
    ) -> Memory:
        covered = [any(stage[index].any() for stage in depths) for index in range(len(self.subjects))]
        tensors = [replace(kept, refined=own) for kept, own in zip(analysis.encoded, covered, strict=True)]
        picked = [index for index, own in enumerate(covered) if own]
        refinement = Refinement.of(
            (analysis.residual(index) for index in picked),
            [[stage[index] for index in picked] for stage in depths],
            strengths,
            threads=self.threads,
        )
        return Memory(tensors, refinement, strengths, tuple(reasons))


def _least_level(size: Callable[[float], int], room: int) -> float:
    """The finest level, to 1 %, that fits."""
    low, high = FINEST_LEVEL, COARSEST_LEVEL
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if size(middle) > room else (low, middle)
    return high


def _same(left: tuple[tuple[float, ...], Sequence[Depths]], right: tuple[tuple[float, ...], Sequence[Depths]]) -> bool:
    """Whether two plans are the same."""
    return left[0] == right[0] and all(
        np.array_equal(np.concatenate(a), np.concatenate(b)) for a, b in zip(left[1], right[1], strict=True)
    )
