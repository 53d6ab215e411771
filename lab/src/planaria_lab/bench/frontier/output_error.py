"""What the methods make small: the error of the layers' outputs, relative to those outputs, in the mean over layers."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from planaria import streams
from planaria.damages import Erasure
from planaria_lab.bench.frontier.base import RATES, FrontierEstimate, Masks, Moments, SideMemory, Weights


def output_error(intact: Weights, restored: Weights, moments: Moments) -> float:
    """trace(E M E') / trace(W M W') of each tensor, `E` its error and `M` its inputs' moments; the mean of them."""
    errors = [
        _energy((restored[name] - weight).flatten(1), moments.get(name))
        / max(_energy(weight.flatten(1), moments.get(name)), 1e-300)
        for name, weight in intact.items()
    ]
    return sum(errors) / len(errors)


class OutputObjective:
    """The output error to expect at a rate; the choices of every method make this small.

    If each weight is missing with probability p, and then errs by D, the expected trace(E M E') is trace(D M_p D') with
    M_p = p^2 M + p (1 - p) diag(M): errors of an input's neighbours add up only where both are missing.

    Args:
        stresses: by tensor, how much more its error counts; 1 if None.

    Attributes:
        forms: by tensor, M_p over the energy trace(W M W') of its outputs, in the mean over `RATES` if `rate` is None,
            times its stress.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        rate: float | None,
        moments: Moments,
        stresses: Mapping[str, float] | None = None,
    ):
        self.weights, self.rate = weights, rate
        self.stresses = dict.fromkeys(weights, 1.0) if stresses is None else stresses
        self.rates = RATES if rate is None else (rate,)
        self.moments = moments
        square = sum(rate**2 for rate in self.rates) / len(self.rates)
        single = sum(rate * (1 - rate) for rate in self.rates) / len(self.rates)
        self.forms: dict[str, Float[Tensor, "inputs inputs"]] = {}
        for name, weight in weights.items():
            moment = moments.get(name)
            moment = torch.eye(weight[0].numel()) if moment is None else moment
            energy = max(_energy(weight.flatten(1), moment), 1e-300)
            form = square * moment + single * moment.diagonal().diag()
            self.forms[name] = form * (self.stresses[name] / energy)

    def importance(self, name: str) -> Float[Tensor, " inputs"]:
        """What the square of a lone error at each input costs."""
        return self.forms[name].diagonal()

    def of(self, memory: SideMemory) -> float:
        """Expected exactly for estimates; measured on held-out masks for memories that look at the survivors."""
        if isinstance(memory, FrontierEstimate):
            return sum(
                _energy(memory.values.get(name, torch.zeros(())) - weight, self.forms[name])
                for name, weight in self.weights.items()
            ) / len(self.weights)
        errors = [
            output_error(self.weights, memory.restore(damaged, known), self.moments)
            for damaged, known in held_out(self.weights, self.rates)
        ]
        return sum(errors) / len(errors)

    def best(self, candidates: Iterable[SideMemory | None]) -> SideMemory | None:
        """The candidate with the least error, the first of equals; None if there is none."""
        found, least = None, float("inf")
        for candidate in candidates:
            if candidate is not None and (error := self.of(candidate)) < least:
                found, least = candidate, error
        return found


def held_out(weights: Weights, rates: Iterable[float]) -> Iterator[tuple[dict[str, Tensor], Masks]]:
    """A damaged copy for each of the rates, with masks that no measurement uses."""
    draws = streams.generator(0, "held-out masks")
    for rate in rates:
        faults = Erasure(rate).apply_to_model(weights, draws)
        yield faults.replay(weights), {name: faults.tensors[name].known for name in weights}


def _energy(rows: Tensor, form: Tensor | None) -> float:
    """trace(rows form rows')."""
    rows = rows.flatten(1)
    moved = rows if form is None else rows @ form.to(rows)
    return float((moved * rows).sum(dtype=torch.float64))
