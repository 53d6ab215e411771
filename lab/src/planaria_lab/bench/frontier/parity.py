"""Error-correcting symbols over the weights as they are: exact, up to their number."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from planaria_lab.bench.frontier.base import Masks, SideMemory, Spaces, Weights
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective

SYMBOL = 4  # bytes of a weight


@dataclass(frozen=True)
class _Checks:
    """The code itself is not run: `intact` stands for what a decoder would find, and is used only where one would."""

    checks: int
    intact: Weights

    @property
    def nbytes(self) -> int:
        return SYMBOL * self.checks

    def restore(self, damaged: Weights, known: Masks) -> dict[str, Tensor]:
        if sum(int((~mask).count_nonzero()) for mask in known.values()) <= self.checks:
            return {name: torch.where(known[name], weight, self.intact[name]) for name, weight in damaged.items()}
        return {name: torch.where(known[name], weight, 0.0) for name, weight in damaged.items()}


class Parity(Method):
    """An ideal (MDS) code over all float32 weights together: a check symbol for each lost weight, else zero fill."""

    name = "parity"
    plans = False

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        return [_Checks(nbytes // SYMBOL, objective.weights)] if nbytes >= SYMBOL else []
