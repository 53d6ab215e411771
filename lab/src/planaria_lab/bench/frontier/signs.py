"""The signs of all weights, or of the most important ones, and their scales."""

from collections.abc import Iterable

from planaria_lab.bench.frontier.base import SideMemory, Spaces
from planaria_lab.bench.frontier.chosen import Choice, estimates
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective

CHOICES = [Choice(1, whole_inputs=whole, row_scales=rows) for whole in (False, True) for rows in (False, True)]


class StoredSigns(Method):
    """1 bit a weight and the scale of least output error, of tensors or rows; weights one by one or by whole inputs."""

    name = "stored signs"

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        return estimates(objective.weights, objective, CHOICES, nbytes)
