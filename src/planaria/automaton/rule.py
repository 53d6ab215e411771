"""What a cell does: one small MLP, shared by all cells, from perception to a change of state."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from planaria.errors import InvalidInput


class Rule(nn.Module):
    """`delta = W2 relu(W1 p + b1) + b2` with `W2 = 0, b2 = 0` at the start, so that a new rule changes nothing.

    Args:
        features: values a cell perceives (filters x channels).
        hidden: width of the hidden layer.
        outputs: channels that the rule changes.
        generator: stream that draws the first layer, uniform in +-1/sqrt(features).
    """

    def __init__(self, features: int, *, hidden: int, outputs: int, generator: torch.Generator):
        super().__init__()
        for name, size in (("features", features), ("hidden", hidden), ("outputs", outputs)):
            if size < 1:
                raise InvalidInput(f"A rule needs at least one of its {name}, not {size}.")
        bound = 1 / math.sqrt(features)
        self.hidden_weight = nn.Parameter(torch.empty(hidden, features).uniform_(-bound, bound, generator=generator))
        self.hidden_bias = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound, generator=generator))
        self.delta_weight = nn.Parameter(torch.zeros(outputs, hidden))
        self.delta_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, perceived: Float[Tensor, "batch features *space"]) -> Float[Tensor, "batch outputs *space"]:
        hidden = torch.relu(self._dense(self.hidden_weight, self.hidden_bias, perceived))
        return self._dense(self.delta_weight, self.delta_bias, hidden)

    @staticmethod
    def _dense(weight: Tensor, bias: Tensor, values: Tensor) -> Tensor:
        """The same affine map at every cell."""
        mapped = torch.einsum("of,bfn->bon", weight, values.flatten(2)) + bias[:, None]
        return mapped.unflatten(2, values.shape[2:]) if values.dim() > 3 else mapped
