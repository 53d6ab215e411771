"""What planaria keeps: sketches, covariances and the parity refinement, as its planner chooses."""

from collections.abc import Iterable

from planaria.memory import Planner
from planaria_lab.bench.frontier.base import Moments, SideMemory, Spaces, Weights
from planaria_lab.bench.frontier.judged_planner import JudgedPlanner
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective
from planaria_lab.bench.frontier.tuning import Judge


class Planaria(Method):
    """`planaria.memory.Planner`, or with a judge `JudgedPlanner`, told what the baselines are tuned with."""

    name = "planaria"

    def __init__(self) -> None:
        self._planned: tuple[Weights, Planner] | None = None

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory | None]:
        return [
            Planner(objective.weights, moments=objective.moments, spaces=spaces).encode(nbytes, expect=objective.rate)
        ]

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
        """As for every method; the planner itself tries the variants and asks the judge."""
        if self._planned is None or self._planned[0] is not weights:  # one analysis for all budgets and rates
            if judge is None:
                planner = Planner(weights, moments=moments, spaces=spaces)
            else:
                planner = JudgedPlanner(weights, judge, moments=moments, spaces=spaces)
            self._planned = weights, planner
        return self._planned[1].encode(nbytes, expect=rate)
