"""What a repair is judged by: weights, layers' outputs, decisions and accuracy, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from planaria_lab.bench.statistics import summary
from planaria_lab.zoo import MLP

BETTER = {"accuracy": "higher", "r2": "higher", "agreement": "higher", "output_error": "lower"}
TINY = 1e-30

Stack = Mapping[str, Float[Tensor, "networks ..."]]
Masks = Mapping[str, Bool[Tensor, "networks ..."]]


class Judge:
    """Compares repaired networks with the intact ones on test inputs.

    Args:
        intact: the networks; computed with in the precision of the inputs.
    """

    def __init__(
        self,
        architecture: MLP,
        intact: Stack,
        inputs: Float[Tensor, "images pixels"],
        labels: Int64[Tensor, " images"],
    ) -> None:
        self.architecture, self.intact, self.inputs, self.labels = architecture, intact, inputs, labels
        self._before = self._outputs(intact)
        self._variances = [layer.var(1, correction=0).mean(1).clamp_min(TINY) for layer in self._before]
        self.accuracy = self._percent(self._before[-1].argmax(2) == labels)

    def measures(self, repaired: Stack, known: Masks) -> dict[str, Float[Tensor, " networks"]]:
        """Of each network.

        accuracy: percent of the inputs classified right.
        r2: share of the variance of missing weights that is explained, each tensor's in units of its own variance; 0 is
            what the mean of a tensor's missing weights would do. Not a number if nothing is missing.
        agreement: percent of the inputs classified as by the intact network.
        output_error: mean squared error of a layer's outputs before the activation, in variances of them over the
            inputs; the mean over layers. 0 is exact.
        """
        after = self._outputs(repaired)
        errors = [
            (layer - before).square().mean((1, 2)) / variance
            for layer, before, variance in zip(after, self._before, self._variances, strict=True)
        ]
        decided = after[-1].argmax(2)
        return {
            "accuracy": self._percent(decided == self.labels),
            "r2": explained(self.intact, repaired, known),
            "agreement": self._percent(decided == self._before[-1].argmax(2)),
            "output_error": torch.stack(errors).mean(0).double(),
        }

    def _outputs(self, stack: Stack) -> list[Tensor]:
        stack = {name: tensor.to(self.inputs) for name, tensor in stack.items()}
        count = len(next(iter(stack.values())))
        return self.architecture.layer_outputs(stack, self.inputs.expand(count, *self.inputs.shape))

    @staticmethod
    def _percent(right: Bool[Tensor, "networks images"]) -> Float[Tensor, " networks"]:
        return 100 * right.double().mean(1)


def explained(intact: Stack, repaired: Stack, known: Masks) -> Float[Tensor, " networks"]:
    """R2 on missing weights, as `Judge.measures` has it."""
    wrong, spread = [], []
    for name, tensor in intact.items():
        there, truth = ~known[name].flatten(1), tensor.flatten(1).double()
        unit = truth.var(1, correction=0).clamp_min(TINY)
        mean = (truth * there).sum(1) / there.sum(1).clamp_min(1)
        error = (truth - repaired[name].flatten(1).double()) * there
        wrong.append(error.square().sum(1) / unit)
        spread.append(((truth - mean[:, None]) * there).square().sum(1) / unit)
    return 1 - torch.stack(wrong).sum(0) / torch.stack(spread).sum(0)


def cell(measure: str, runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A summary for JSON: the interval is over the second axis, and "worst" the minimum, or the maximum of an error."""
    sign = -1 if BETTER.get(measure) == "lower" else 1
    found = summary([[sign * value for value in row] for row in runs])
    return {
        "mean": round(sign * found.mean, 6),
        "interval": None if found.interval is None else round(found.interval, 6),
        "worst": round(sign * found.minimum, 6),
        "count": found.count,
    }
