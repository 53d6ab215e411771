"""A way to spend bytes on weights that are going to be lost, and how the best of its variants is found."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch

from planaria.bench.frontier.base import Judge, Moments, SideMemory, Spaces, Weights
from planaria.bench.frontier.output_error import Objective, held_out

SHARES = (1.0, 0.5, 0.0)
"""Of the layers' inputs in what variants aim at: errors of outputs alone, half and half, errors of weights alone."""
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
    def candidates(
        self, weights: Weights, *, nbytes: int, rate: float | None, moments: Moments, spaces: Spaces
    ) -> Iterable[SideMemory | None]:
        """Variants, each the best of its kind by the output error; None for one that cannot be in so few bytes.

        Arguments are as in `prepare`.
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
        restored from held-out masks; without a judge, the one with the least output error.

        Args:
            weights: intact float32 tensors, all of which are going to lose weights; the first axis is the outputs.
            rate: share of the weights that is planned for, in (0, 1]; None for no rate in particular.
            moments: by tensor, second moments of its layer's inputs; identity where there are none.
            spaces: by tensor, the spatial axes that its inputs end with, where there are any.
            judge: from tensors to how well the network does, higher is better.
        """
        moments = {} if moments is None else moments
        objective = Objective(weights, rate=rate, moments=moments)
        masks = (
            [] if judge is None else list(held_out(weights, JUDGED_RATES if rate is None else (rate,) * JUDGED_MASKS))
        )
        best, highest = None, -float("inf")
        for share in SHARES if moments else (1.0,):
            softened = {name: _softened(moment, share) for name, moment in moments.items()}
            told = {"nbytes": nbytes, "rate": rate, "moments": softened, "spaces": spaces or {}}
            for candidate in self.candidates(weights, **told):  # type: ignore[arg-type]
                if candidate is None:
                    continue
                if judge is None:
                    merit = -objective.of(candidate)
                else:
                    merit = sum(judge(candidate.restore(damaged, known)) for damaged, known in masks)
                if merit > highest:
                    best, highest = candidate, merit
        return best


def _softened(moment: torch.Tensor, share: float) -> torch.Tensor:
    """Moments whose correlations and differences are only in part believed."""
    return share * moment + (1 - share) * moment.diagonal().mean() * torch.eye(len(moment))
