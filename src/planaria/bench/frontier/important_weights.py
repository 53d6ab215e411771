"""A copy of the most important weights in 8 or 16 bits, and their positions."""

from collections.abc import Iterable

from planaria.bench.frontier.base import Moments, SideMemory, Spaces, Weights
from planaria.bench.frontier.chosen import Choice, estimates
from planaria.bench.frontier.method import Method
from planaria.bench.frontier.output_error import Objective

CHOICES = [Choice(bits, whole_inputs=whole) for bits in (8, 16) for whole in (False, True)]


class ImportantWeights(Method):
    """Importance is the square of a weight times the mean square of its input; chosen one by one or by whole inputs."""

    name = "important weights"

    def candidates(
        self, weights: Weights, *, nbytes: int, rate: float | None, moments: Moments, spaces: Spaces
    ) -> Iterable[SideMemory]:
        return estimates(weights, Objective(weights, rate=rate, moments=moments), CHOICES, nbytes)
