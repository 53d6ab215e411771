"""A trojan in all later layers."""

import torch
from jaxtyping import Int64
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.attacks.trojan import Trojan
from planaria_lab.attacks.victim import Victim, Weights


class Trojaning(Trojan):
    """Trojaning by partial retraining: every weight from a layer on changes a little.

    Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang 2018 ("Trojaning Attack on Neural Networks", sections 3 and 4). The neurons
    are those best connected to the layer they enter (the largest sum of absolute weights); a trigger wakes them by
    gradients of the input; that layer and all after it, in the order of the model's state, are retrained on inputs with
    the trigger, labelled as the target, and without it.

    Differs from the paper: the attacker has labelled data and need not reverse-engineer any.

    Args: as for `Trojan`. By default the `layer` is the middle one of the attacked weights, the later of two.
    """

    default_neurons = 8
    default_rate = 0.02

    def _default_layer(self, victim: Victim) -> str:
        layers = [name for name, weight in victim.weights.items() if name.endswith(".weight") and weight.dim() > 1]
        if not layers:
            raise InvalidInput("No attacked tensor is the weight of a layer. Choose others by names.")
        return layers[len(layers) // 2]

    def _chosen(self, victim: Victim, layer: str) -> Int64[Tensor, " neurons"]:
        connected = victim.weights[layer].abs().transpose(0, 1).flatten(1).sum(1)
        return connected.argsort(descending=True, stable=True)[: self.neurons]

    def _allowed(self, victim: Victim, layer: str, neurons: Int64[Tensor, " neurons"]) -> Weights:
        names = list(victim.weights)
        return {name: torch.ones_like(victim.weights[name], dtype=torch.bool) for name in names[names.index(layer) :]}
