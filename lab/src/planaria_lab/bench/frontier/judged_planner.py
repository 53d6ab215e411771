"""planaria's planner where a judge, which runs the network, has the last word on what to remember."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.memory import Memory, Planner
from planaria.memory.analysis import EVEN_BITS, MOST_FIRST_BITS, Analysis
from planaria.memory.memory import CODECS
from planaria.memory.planner import SHARES
from planaria.memory.quantiser import NOTHING, thresholds, tree
from planaria.memory.search import Candidate, Search
from planaria_lab.bench.frontier.tuning import LEVEL, TUNED, Judge, balanced_masks, softened, tuned, worth_tuning

# Ways to count errors that a judge compares: how far the moments are believed, how much more the errors of large
# tensors count (see `planaria.memory.analysis.PlannedTensor`), and the codec wherever it can be, else that of the least
# error. Output errors flatter where all layers err at once: each then sees other inputs than those of the calibration.
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
ALIKE = 2  # plans of so many bytes for sketches and the same refinement that are tuned


class JudgedPlanner(Planner):
    """A planner that asks a judge: whether the moments are of use, and of up to 12 tensors how much each counts.

    Args:
        weights: as of `Planner`, as all that is not named here.
        judge: from restored tensors, float32, to how well the network does, at most 1 for as well as the intact one. It
            is asked some hundred times.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        judge: Judge,
        *,
        moments: Mapping[str, Tensor] | None = None,
        spaces: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        threads: int = 1,
    ):
        super().__init__(weights, moments=moments, spaces=spaces, seed=seed, threads=threads)
        self.judge = judge
        bits = any(weight.numel() <= MOST_FIRST_BITS for weight in self.weights.values())
        self._ways = [way for way in WAYS if bits or way[2] is None]
        self._counted: dict[tuple[float, float, str | None, float | None], Search] = {}

    def encode(self, nbytes: int, *, expect: float | None = None, shares: Sequence[float] | None = None) -> Memory:
        """The memory of at most `nbytes` that the judge likes most, of those that were found; see `Planner`."""
        tuning = worth_tuning(self.weights)
        found: list[_Found] = []
        for way in self._ways:
            # What is planned for any rate may serve one, too; only a judge that has the last word can say.
            for planned in dict.fromkeys((expect, None)) if tuning else (expect,):
                search = self._search(*way, planned)
                ranked = sorted(search.candidates(nbytes, shares or SHARES), key=lambda one: -one.merit)
                # The best of every share for sketches: the next best are much like it.
                kinds = {one.sketch_bytes: one for one in reversed(ranked)}.values()
                found += [_Found(search, one, judged(search, one, expect, self.judge)) for one in kinds]
        if tuning:
            found = self._tuned(found, nbytes, expect)
        # Judges see few inputs: what is about as good to them is told apart by the error.
        most = max(one.judged for one in found)
        best = max((one for one in found if one.judged >= most - LEVEL), key=lambda one: one.candidate.merit)
        return best.search.made(best.candidate, nbytes, ())

    def _tuned(self, found: Sequence["_Found"], nbytes: int, expect: float | None) -> list["_Found"]:
        """The best of the plans that the judge likes most, and of the same with other stresses of the tensors."""
        kinds: Counter[tuple[int | None, tuple[float, ...]]] = Counter()
        favourites: list[_Found] = []
        for one in sorted({one.judged: one for one in found}.values(), key=lambda one: -one.judged):
            kind = one.candidate.sketch_bytes, one.candidate.asked
            kinds[kind] += 1
            if kinds[kind] <= ALIKE and len(favourites) < TUNED:
                favourites.append(one)

        def asked(plan: _Found, *, again: bool = False) -> float:
            return judged(plan.search, plan.candidate, expect, self.judge, again=again)

        both = [
            plan for one in favourites for plan in tuned(one, self.weights, partial(one.stressed, nbytes), asked)
        ] + favourites
        again = [replace(one, judged=asked(one, again=True)) for one in both]
        return [max(again, key=lambda one: one.judged)]

    def _search(self, believed: float, emphasis: float, favourite: str | None, expect: float | None) -> Search:
        key = (believed, emphasis, favourite, expect)
        if key not in self._counted:
            moments = {name: softened(of, believed) for name, of in self.moments.items()} if believed else {}
            codecs = (favourite,) if favourite else (*CODECS, EVEN_BITS)
            self._counted[key] = self.search(expect, moments=moments, emphasis=emphasis, codecs=codecs)
        return self._counted[key]


@dataclass(frozen=True)
class _Found:
    """A plan, and what the judge says of it."""

    search: Search
    candidate: Candidate
    judged: float

    def stressed(self, nbytes: int, stresses: Mapping[str, float]) -> "_Found | None":
        """The same plan with other stresses of the tensors, if it fits."""
        of, sketch_bytes = self.search, self.candidate.sketch_bytes
        subjects = [replace(one, stress=stresses[one.name]) for one in of.subjects]
        search = Search(subjects, of.expect, [of.chosen[sketch_bytes or 0]], seed=of.seed, threads=of.threads)
        candidate = search.candidate(sketch_bytes, self.candidate.asked, nbytes)
        return None if candidate is None else replace(self, search=search, candidate=candidate)


def judged(search: Search, one: Candidate, expect: float | None, judge: Judge, *, again: bool = False) -> float:
    """How well the network does after such repairs, without coding anything.

    Args:
        expect: share that is missing; None for any. Not always the one that was planned for.
        again: with other masks, three times as many.
    """
    analysis = search.analysis(one.sketch_bytes)
    merits = []
    shapes = {of.name: of.matrix.shape for of in search.subjects}
    for rate, known in balanced_masks(shapes, expect, seed=search.seed, again=again):
        restored = {}
        for index, of in enumerate(search.subjects):
            values = filled(analysis, index, one, rate, known[of.name])
            restored[of.name] = torch.where(known[of.name], of.matrix, values).view(of.shape)
        merits.append(judge(restored))
    return sum(merits) / len(merits)


def filled(
    analysis: Analysis, index: int, one: Candidate, rate: float, known: Bool[Tensor, "rows columns"]
) -> Float[Tensor, "rows columns"]:
    """What missing weights of a tensor would be restored to at a rate."""
    left = analysis.residual(index)
    reached = [number for number, strength in enumerate(one.strengths) if rate <= strength]
    means = np.zeros_like(left)
    if reached:
        depths, scale = one.depths[reached[-1]][index], analysis.scale(index)
        for depth in np.unique(depths):
            of = tree(NOTHING, int(depth))
            columns = depths == depth
            cells = np.searchsorted(thresholds(int(depth)), left[:, columns] / scale, side="right")
            means[:, columns] = of.mean[of.leaves[cells]] * scale
    elif analysis.encoded[index].prior.size:
        rest = torch.from_numpy(left)
        means = analysis.encoded[index].regrown(torch.where(known, rest, 0.0), known).numpy()
    return (analysis.subjects[index].matrix.double() - torch.from_numpy(left - means)).float()
