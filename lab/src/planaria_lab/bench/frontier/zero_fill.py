"""Nothing is kept, and missing weights become 0."""

from collections.abc import Iterable

from planaria_lab.bench.frontier.base import FrontierEstimate, SideMemory, Spaces
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective


class ZeroFillMethod(Method):
    """What everything else must beat. No bytes."""

    name = "zero fill"
    plans = False
    spends = False

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        return [FrontierEstimate(0, {})]
