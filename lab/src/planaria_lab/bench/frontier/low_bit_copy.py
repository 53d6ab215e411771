"""A copy of the weights in few bits: fixed ones for as many weights as fit, or an entropy-coded copy of all."""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil, log

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from planaria_lab.bench.frontier.base import FrontierEstimate, SideMemory, Spaces, Weights
from planaria_lab.bench.frontier.chosen import Choice, estimates
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.output_error import OutputObjective

CHOICES = [
    Choice(bits, whole_inputs=whole, row_scales=rows)
    for bits in (2, 3, 4)
    for whole in (False, True)
    for rows in (False, True)
]
# The exponent of an input's importance in its step, and whether errors are passed on.
VARIANTS = ((0.0, False), (0.0, True), (1.0, False), (1.0, True))
ROUNDING = 0.45  # a little below 0.5: what lies near zero becomes zero, which costs fewest bits
GROUPS = (1, 4, 16)  # of inputs alike in importance, each with its own symbol probabilities
LARGEST = 30  # symbol; what lies beyond is clipped
HALVINGS = 24
SMALL = 2  # bytes of a symbol's count or value
LOG_2 = log(2)


class LowBitCopy(Method):
    """Lloyd's quantiser at 2 to 4 bits on the most important weights, or a uniform one with a dead zone on all.

    The uniform quantiser's steps follow the importance of inputs to a power, its symbols are counted at their entropy
    by groups of inputs (no coder takes less), each with its table of counts; a further variant passes each error on to
    the inputs that are quantised later (GPTQ; Frantar et al. 2023), with the moments that the rate gives.
    """

    name = "low-bit copy"

    def candidates(self, objective: OutputObjective, *, nbytes: int, spaces: Spaces) -> Iterable[SideMemory | None]:
        weights = objective.weights
        yield objective.best(estimates(weights, objective, CHOICES, nbytes))
        yield from _entropy_coded(weights, objective, nbytes)


def _entropy_coded(weights: Weights, objective: OutputObjective, nbytes: int) -> Iterator[FrontierEstimate]:
    flat = all(bool((objective.importance(name) == objective.importance(name)[0]).all()) for name in weights)
    for exponent, feedback in [(0.0, False)] if flat else VARIANTS:
        found = _largest_that_fits(weights, objective, exponent, feedback, nbytes)
        if found is not None:
            yield found


def _largest_that_fits(
    weights: Weights, objective: OutputObjective, exponent: float, feedback: bool, nbytes: int
) -> FrontierEstimate | None:
    """The finest steps whose symbols fit, found by halving the logarithm of an interval."""
    steps = {name: _relative_steps(objective.importance(name), exponent) for name in weights}
    fixed = sum(_fixed(step, exponent) for step in steps.values())
    if fixed >= nbytes:
        return None
    prepared = {name: _Feedback(objective.forms[name]) for name in weights} if feedback else {}

    def symbols(factor: float, fed_back: bool) -> dict[str, Tensor]:
        return {
            name: prepared[name].symbols(weight.flatten(1), factor * steps[name])
            if fed_back
            else _rounded(weight.flatten(1) / (factor * steps[name]))
            for name, weight in weights.items()
        }

    def cost(of: Mapping[str, Tensor]) -> float:
        return fixed + sum(_entropy_bytes(of[name], steps[name]) for name in weights)

    largest = max(float((weight.flatten(1) / steps[name]).abs().max()) for name, weight in weights.items())
    low, high = largest / LARGEST / 64, largest / ROUNDING
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if cost(symbols(middle, False)) <= nbytes else (middle, high)
    chosen = symbols(high, feedback)
    # Errors passed on make the symbols a little larger.
    for _ in range(HALVINGS):
        if cost(chosen) <= nbytes:
            break
        high *= max(1.02, (cost(chosen) / nbytes) ** 0.7)
        chosen = symbols(high, feedback)
    if cost(chosen) > nbytes or not any(bool(one.any()) for one in chosen.values()):
        return None
    values = {
        name: _reconstructed(chosen[name], weight.flatten(1), high * steps[name]).view_as(weight)
        for name, weight in weights.items()
    }
    return FrontierEstimate(ceil(cost(chosen)), values)


def _relative_steps(importance: Float[Tensor, " inputs"], exponent: float) -> Float[Tensor, " inputs"]:
    """Steps of inputs up to a factor: equal slopes for exponent 1, equal steps within the tensor for 0."""
    typical = importance.mean().clamp_min(1e-30)
    relative = (importance / typical).clamp_min(1e-4)
    # As stored: one byte an input, in 16ths of a power of two.
    return typical.rsqrt() * ((-8 * exponent * relative.log2()).round() / 16).exp2()


def _fixed(steps: Tensor, exponent: float) -> int:
    """Bytes of the steps, and of the first two reconstructed magnitudes of the tensor."""
    return 2 * SMALL + SMALL + (len(steps) if exponent else 0)


def _rounded(scaled: Tensor) -> Tensor:
    return scaled.sign() * (scaled.abs() + ROUNDING).floor().clamp_max(LARGEST)


def _entropy_bytes(symbols: Float[Tensor, "rows inputs"], steps: Float[Tensor, " inputs"]) -> float:
    """Entropy of the symbols by groups of inputs with alike steps, and a count of each symbol in each group.

    The number of groups is the cheapest of a few.
    """
    finest = max(GROUPS)
    order = steps.argsort(stable=True)
    groups: Int64[Tensor, " inputs"] = torch.empty_like(order)
    groups[order] = torch.arange(len(order)) * finest // len(order)
    kinds = 2 * LARGEST + 1
    at = (symbols + LARGEST).long() + groups * kinds
    counts = torch.bincount(at.flatten(), minlength=finest * kinds).view(finest, kinds).double()
    sizes = []
    for number in GROUPS:
        merged = counts.view(number, -1, kinds).sum(1)
        nats = torch.xlogy(merged.sum(1), merged.sum(1)).sum() - torch.xlogy(merged, merged).sum()
        sizes.append(float(nats) / LOG_2 / 8 + SMALL * int(merged.count_nonzero()))
    return min(sizes) + 1


def _reconstructed(symbols: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
    """Symbols of magnitude 1 and 2 at the mean of what became them, others at the middle of their interval."""
    values = symbols * steps
    scaled = rows / steps * symbols.sign()
    for magnitude in (1, 2):
        of = symbols.abs() == magnitude
        if of.any():
            mean = scaled[of].mean().clamp(0.5 * magnitude, 1.5 * magnitude).half().float()
            values = torch.where(of, symbols.sign() * mean * steps, values)
    return values


class _Feedback:
    """Quantises inputs in the order of importance, and lets those that follow make up for each error."""

    def __init__(self, form: Float[Tensor, "inputs inputs"]):
        self.order = form.diagonal().argsort(descending=True, stable=True)
        ordered = form[self.order][:, self.order].double()
        ordered = ordered + 1e-3 * ordered.diagonal().mean() * torch.eye(len(ordered), dtype=torch.float64)
        # Upper factor of the inverse: its rows say how an error is made up for.
        self.factor = torch.linalg.cholesky(torch.linalg.inv(ordered), upper=True).float()

    def symbols(self, rows: Float[Tensor, "rows inputs"], steps: Float[Tensor, " inputs"]) -> Tensor:
        left = rows[:, self.order].T.contiguous()
        step = steps[self.order]
        symbols = torch.empty_like(left)
        for start in range(0, len(left), 128):  # blocks: what an error changes far away is added up in one product
            stop = min(start + 128, len(left))
            errors = torch.empty_like(left[start:stop])
            for at in range(start, stop):
                symbols[at] = _rounded(left[at] / step[at])
                errors[at - start] = (left[at] - symbols[at] * step[at]) / self.factor[at, at]
                left[at + 1 : stop] -= self.factor[at, at + 1 : stop, None] * errors[at - start]
            left[stop:] -= self.factor[start:stop, stop:].T @ errors
        back = torch.empty_like(symbols)
        back[self.order] = symbols
        return back.T
