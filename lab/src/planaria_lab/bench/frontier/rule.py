"""The automaton alone: what it learned of the intact layer, and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from planaria.automaton import DEFAULT
from planaria.fit import fit_rule
from planaria.layouts import Sheet
from planaria.records import Record
from planaria.repairers import Regrow
from planaria_lab.bench.frontier.base import FrontierEstimate, Masks, SideMemory, Spaces, Weights
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective

SEED = 0


class RuleAlone(Method):
    """A rule of the default recipe for each tensor whose rows are sheets, fitted as `bench tinymlp` does; else nothing.

    Other tensors have no neighbours that tell of one another: they are filled with zeros, and cost no bytes. The rule
    is stored in bytes if it does not fit in half precision.
    """

    name = "rule alone"
    plans = False

    def __init__(self) -> None:
        self._fitted: dict[int, tuple[Tensor, list[tuple[Regrow, Record]]]] = {}

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory]:
        weights = objective.weights
        sheets = [n for n, weight in weights.items() if n in spaces and weight[0].numel() == prod(spaces[n])]
        sheets = [name for name in sheets if weights[name].dim() == 2]
        if not sheets:
            return [FrontierEstimate(0, {})]
        variants = zip(*(self._variants(weights[n], spaces[n], objective.moments.get(n)) for n in sheets), strict=True)
        memories = [_Rules(dict(zip(sheets, variant, strict=True))) for variant in variants]
        return [memory for memory in memories if memory.nbytes <= nbytes]

    def _variants(self, weight: Tensor, space: tuple[int, ...], moments: Tensor | None) -> list[tuple[Regrow, Record]]:
        """A fit takes minutes, and one serves all budgets."""
        if id(weight) not in self._fitted:
            fit = fit_rule(weight, layout=Sheet(space), recipe=DEFAULT, moments=moments, seed=SEED)
            rules = [Regrow(fit.automaton, Sheet(space), precision=precision) for precision in ("half", "byte")]
            self._fitted[id(weight)] = (weight, [(rule, rule.prepare(weight)) for rule in rules])
        return self._fitted[id(weight)][1]


@dataclass(frozen=True, eq=False)
class _Rules:
    rules: dict[str, tuple[Regrow, Record]]

    @property
    def nbytes(self) -> int:
        return sum(record.nbytes for _, record in self.rules.values())

    def restore(self, damaged: Weights, known: Masks) -> dict[str, Tensor]:
        restored = {}
        for name, tensor in damaged.items():
            if name in self.rules:
                rule, record = self.rules[name]
                restored[name] = rule.restore(tensor, known[name], record)
            else:
                restored[name] = torch.where(known[name], tensor, 0.0)
        return restored
