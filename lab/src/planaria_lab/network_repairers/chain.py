"""MLPs as chains of layers, and their hidden neurons as tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.network_repairers.base import Shapes, Stack


@dataclass(frozen=True)
class Chain:
    """Layers of which each takes what the one before gives: matrices (outputs, inputs) with their bias vectors.

    A token is a hidden neuron: its incoming weights, its bias, its outgoing weights, in this order.

    Attributes:
        weights, biases: their names, from the first layer to the last.
        sizes: inputs, widths of hidden layers, outputs.
    """

    weights: tuple[str, ...]
    biases: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, shapes: Shapes) -> "Chain":
        """The chain, found by shapes alone: any names do. Raises `InvalidInput` if there is none."""
        # Files list tensors in any order: layers are first taken to be numbered, then to come as they are listed.
        for names in (sorted(shapes, key=_numbered), list(shapes)):
            weights = tuple(name for name in names if len(shapes[name]) == 2)
            biases = tuple(name for name in names if len(shapes[name]) == 1)
            outputs = [shapes[name][0] for name in weights]
            if (
                len(weights) > 1
                and len(shapes) == 2 * len(weights)
                and outputs == [shapes[name][0] for name in biases]
                and outputs[:-1] == [shapes[name][1] for name in weights[1:]]
            ):
                return cls(weights, biases, (shapes[weights[0]][1], *outputs))
        raise InvalidInput(
            "an MLP has two or more matrices (outputs, inputs), each with its bias, numbered or in the order of its "
            f"layers, and these are {dict(shapes)}"
        )

    def tokens(self, stack: Mapping[str, Shaped[Tensor, "networks ..."]]) -> list[Shaped[Tensor, "networks _ _"]]:
        """Of each hidden layer, weights or masks."""
        return [
            torch.cat([stack[before], stack[bias][..., None], stack[after].mT], -1)
            for (before, after), bias in zip(pairwise(self.weights), self.biases[:-1], strict=True)
        ]

    def stack(
        self,
        tokens: Sequence[Float[Tensor, "networks _ _"]],
        last_bias: Float[Tensor, "networks outputs"],
        precisions: Sequence[Float[Tensor, "networks _ _"]] | None = None,
    ) -> Stack:
        """Tensors from tokens. What two tokens tell of (a weight between hidden layers) is their mean, so weighted."""
        sure = [torch.ones_like(token) for token in tokens] if precisions is None else precisions
        stack = {self.biases[-1]: last_bias}
        for layer, (name, inputs) in enumerate(zip(self.weights, self.sizes, strict=False)):
            told, weight = [], []
            if layer < len(tokens):
                told.append(tokens[layer][..., :inputs])
                weight.append(sure[layer][..., :inputs])
                stack[self.biases[layer]] = tokens[layer][..., inputs]
            if layer > 0:
                begin = self.sizes[layer - 1] + 1
                told.append(tokens[layer - 1][..., begin:].mT)
                weight.append(sure[layer - 1][..., begin:].mT)
            total = sum(weight[1:], weight[0])
            stack[name] = sum(
                (a * b / total for a, b in zip(told[1:], weight[1:], strict=True)), told[0] * weight[0] / total
            )
        return stack

    def reordered(
        self, stack: Mapping[str, Shaped[Tensor, "networks ..."]], orders: Sequence[Int64[Tensor, "networks _"]]
    ) -> dict[str, Shaped[Tensor, "networks ..."]]:
        """The same networks (or masks) with the neurons of each hidden layer in another order."""
        stack = dict(stack)
        for layer, order in enumerate(orders):
            weight, bias, after = self.weights[layer], self.biases[layer], self.weights[layer + 1]
            stack[weight] = stack[weight].take_along_dim(order[:, :, None], 1)
            stack[bias] = stack[bias].take_along_dim(order, 1)
            stack[after] = stack[after].take_along_dim(order[:, None], 2)
        return stack


def refusal_of_chain(shapes: Shapes) -> str | None:
    """Why these shapes are no MLP; None if they are one."""
    try:
        Chain.of(shapes)
    except InvalidInput as error:
        return str(error)
    return None


def _numbered(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
