"""A copy of the most important weights in 8 or 16 bits, and their positions."""

from collections.abc import Iterable

from planaria_lab.bench.frontier.base import SideMemory, Spaces
from planaria_lab.bench.frontier.chosen import Choice, estimates
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective

CHOICES = [Choice(bits, whole_inputs=whole) for bits in (8, 16) for whole in (False, True)]


class ImportantWeights(Method):
    """Importance is the square of a weight times the mean square of its input; chosen one by one or by whole inputs."""

    name = "important weights"

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        return estimates(objective.weights, objective, CHOICES, nbytes)
