"""A way to spend bytes on weights that are going to be lost, and how the best of its variants is found."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import ClassVar

import torch

from planaria_lab.bench.frontier.base import Moments, SideMemory, Spaces, Weights
from planaria_lab.bench.frontier.output_error import OutputObjective, held_out
from planaria_lab.bench.frontier.tuning import TUNED, Judge, balanced_masks, softened, tuned, worth_tuning

SHARES = (1.0, 0.5, 0.0)
"""Of the layers' inputs in what variants aim at: errors of outputs alone, half and half, errors of weights alone."""
SEED = 0  # of the masks that tuning sees
JUDGED_MASKS = 3
JUDGED_RATES = (0.1, 0.5, 0.9)
"""Where no rate is planned for, a mask at each of these."""


class Method(ABC):
    """A baseline: it names its variants, and the best of them is kept."""

    name: ClassVar[str]
    plans: ClassVar[bool] = True
    """Whether what it keeps depends on the rate that it is told."""
    spends: ClassVar[bool] = True
    """Whether it keeps anything at all."""

    @abstractmethod
    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory | None]:
        """Variants, each the best of its kind by the output error; None for one that cannot be in so few bytes.

        They come in the same order whatever the objective. Arguments are as in `prepare`; weights, rate and moments are
        the objective's.
        """

    def prepare(
        self,
        weights: Weights,
        *,
        nbytes: int,
        rate: float | None = None,
        moments: Moments | None = None,
        spaces: Spaces | None = None,
        judge: Judge | None = None,
    ) -> SideMemory | None:
        """What to keep, in at most `nbytes`; None if so few bytes hold nothing of use.

        All variants are tried with every share in `SHARES`. The best is that which the judge likes most when it is
        restored from held-out masks; without a judge, the one with the least output error. Of several tensors, how much
        each counts is then tuned for the best few by the judge, just as `JudgedPlanner` does.

        Args:
            weights: intact float32 tensors, all of which are going to lose weights; the first axis is the outputs.
            rate: share of the weights that is planned for, in (0, 1]; None for no rate in particular.
            moments: by tensor, second moments of its layer's inputs; identity where there are none.
            spaces: by tensor, the spatial axes that its inputs end with, where there are any.
            judge: from tensors to how well the network does, higher is better.
        """
        moments = {} if moments is None else moments
        spaces = {} if spaces is None else spaces
        whole = OutputObjective(weights, rate=rate, moments=moments)
        masks = (
            [] if judge is None else list(held_out(weights, JUDGED_RATES if rate is None else (rate,) * JUDGED_MASKS))
        )
        tuning = judge is not None and self.plans and worth_tuning(weights)
        found: list[tuple[float, _Variant]] = []  # the best ones first
        # As the planner does, what is best for any rate is tried for one, too.
        rates = dict.fromkeys((rate, None)) if tuning else (rate,)
        for planned, share in product(rates, SHARES if moments else (1.0,)):
            believed = {name: softened(moment, share) for name, moment in moments.items()}
            objective = OutputObjective(weights, rate=planned, moments=believed)
            for number, memory in enumerate(self.candidates(objective, nbytes=nbytes, spaces=spaces)):
                if memory is None:
                    continue
                if judge is None:
                    merit = -whole.of(memory)
                else:
                    merit = sum(judge(memory.restore(damaged, known)) for damaged, known in masks)
                found.append((merit, _Variant(memory, number, objective)))
                found = sorted(found, key=lambda one: -one[0])[: TUNED if tuning else 1]
        favourites = [variant for _, variant in found]
        if judge is not None and tuning and favourites:
            return self._tuned(favourites, nbytes, rate, spaces, judge)
        return favourites[0].memory if favourites else None

    def _tuned(
        self, favourites: Sequence["_Variant"], nbytes: int, rate: float | None, spaces: Spaces, judge: Judge
    ) -> SideMemory:
        """The best of the variants that the judge likes most, and of the same with other stresses of the tensors."""

        def stressed(one: _Variant, stresses: Mapping[str, float]) -> _Variant | None:
            of = one.objective
            objective = OutputObjective(of.weights, rate=of.rate, moments=of.moments, stresses=stresses)
            memory = next(islice(self.candidates(objective, nbytes=nbytes, spaces=spaces), one.number, None), None)
            return None if memory is None else _Variant(memory, one.number, objective)

        both = [
            variant
            for one in favourites
            for variant in tuned(one, one.objective.weights, partial(stressed, one), lambda one: one.asked(rate, judge))
        ] + [*favourites]
        return max(both, key=lambda one: one.asked(rate, judge, again=True)).memory


@dataclass(frozen=True, eq=False)
class _Variant:
    """One of the candidates for an objective."""

    memory: SideMemory
    number: int
    objective: OutputObjective

    def asked(self, rate: float | None, judge: Judge, *, again: bool = False) -> float:
        """What the judge says of it when such a share is missing, in the mean over masks."""
        weights = self.objective.weights
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        merits = [
            judge(self.memory.restore({n: torch.where(known[n], w, 0.0) for n, w in weights.items()}, known))
            for _, known in balanced_masks(shapes, rate, seed=SEED, again=again)
        ]
        return sum(merits) / len(merits)
