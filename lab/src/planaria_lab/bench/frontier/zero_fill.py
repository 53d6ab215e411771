"""Nothing is kept, and missing weights become 0."""

from collections.abc import Iterable

from planaria_lab.bench.frontier.base import Estimate, SideMemory, Spaces
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import Objective


class ZeroFill(Method):
    """What everything else must beat. No bytes."""

    name = "zero fill"
    plans = False
    spends = False

    def candidates(self, objective: Objective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        return [Estimate(0, {})]
