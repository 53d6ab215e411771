"""Nothing is kept, and missing weights become 0."""

from collections.abc import Iterable

from planaria.bench.frontier.base import Estimate, Moments, SideMemory, Spaces, Weights
from planaria.bench.frontier.method import Method


class ZeroFill(Method):
    """What everything else must beat. No bytes."""

    name = "zero fill"
    plans = False
    spends = False

    def candidates(
        self, weights: Weights, *, nbytes: int, rate: float | None, moments: Moments, spaces: Spaces
    ) -> Iterable[SideMemory]:
        return [Estimate(0, {})]
