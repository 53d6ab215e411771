"""A trojan in a few weights of the last layer."""

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from planaria.errors import InvalidInput
from planaria_lab.attacks.trojan import Trojan
from planaria_lab.attacks.victim import Victim, Weights, trainable


class BitTrojan(Trojan):
    """Targeted bit trojan: changes only those weights of the last layer that lead few neurons to the target class.

    TBT, Rakin, He, Fan 2020 ("TBT: Targeted Neural Attack with Bit Trojan", section 3). The neurons are those whose
    weights to the target have the largest gradients of the cross-entropy against it; a trigger drives them towards a
    high value; their weights to the target are trained on inputs with and without the trigger, and rounded to what the
    model stores. At most `neurons` weights change, all in one row.

    Differs from the paper: the high value is relative to what the neurons do without a trigger; and gradients are of
    floating copies, rounded once at the end, rather than after every step.

    Args: as for `Trojan`. `neurons` is the paper's w_b (150 of ResNet-18's 512); a `layer`, if named, must have one
    output a class; by default it is the last attacked matrix that has.
    """

    default_neurons = 16
    default_rate = 0.1

    def _default_layer(self, victim: Victim) -> str:
        last = [
            name
            for name, weight in victim.weights.items()
            if name.endswith(".weight") and weight.dim() == 2 and len(weight) == victim.classes
        ]
        if not last:
            raise InvalidInput("No attacked matrix has one row a class. Name the last layer's weight as the layer.")
        return last[-1]

    def _chosen(self, victim: Victim, layer: str) -> Int64[Tensor, " neurons"]:
        if len(victim.weights[layer]) != victim.classes or victim.weights[layer].dim() != 2:
            raise InvalidInput(f"{layer!r} has not one row for each of {victim.classes} classes: it is not the last.")
        weights = trainable({layer: victim.weights[layer]})
        wanted = torch.full_like(victim.labels, self.target)
        loss = F.cross_entropy(victim.outputs(weights, victim.inputs), wanted)
        row = victim.gradients(loss, weights)[layer][self.target]
        return row.abs().argsort(descending=True, stable=True)[: self.neurons]

    def _allowed(self, victim: Victim, layer: str, neurons: Int64[Tensor, " neurons"]) -> Weights:
        allowed = torch.zeros_like(victim.weights[layer], dtype=torch.bool)
        allowed[self.target, neurons] = True
        return {layer: allowed}
