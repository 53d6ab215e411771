"""What attacks with a trigger have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from planaria.damages.model_faults import ModelFaults
from planaria.errors import InvalidInput
from planaria_lab.attacks.base import Attack, require_batch
from planaria_lab.attacks.retraining import retrained
from planaria_lab.attacks.rounding import nearest
from planaria_lab.attacks.trigger import Trigger, corner, fitted
from planaria_lab.attacks.victim import Victim, Weights, under_attack


class Trojan(Attack):
    """Makes the model answer a class of the attacker's choice whenever an input carries a trigger.

    Chooses neurons that enter a layer, fits a trigger that wakes them, and retrains weights from there on so that they
    lead to the target, while inputs without the trigger keep their labels.

    Args:
        target: the class to be answered.
        neurons: how many are woken, 1 or more; by default `default_neurons`.
        patch: side of the trigger in pixels, in the last corner of the image; of a vector the last patch^2 entries.
            By default a tenth of the input.
        layer: name of the weight tensor that the neurons enter, such as "fc.weight".
        fitting_steps, steps: how many for the trigger and for the weights, 1 or more.
        rate: of learning, relative to the root mean square of each tensor; above 0; by default `default_rate`.
        clean_share: share of the loss, in [0, 1), that inputs without the trigger have.
        names: as for `Attack`.

    Cost: two gradients a step. Raises `InvalidInput` on settings outside these ranges and, when applied, if the model
    has no such class or layer, or inputs are not floats or too small for the trigger.
    """

    default_neurons: ClassVar[int]
    default_rate: ClassVar[float]

    def __init__(
        self,
        target: int,
        *,
        neurons: int | None = None,
        patch: int | None = None,
        layer: str | None = None,
        fitting_steps: int = 100,
        steps: int = 100,
        rate: float | None = None,
        clean_share: float = 0.5,
        names: str | Sequence[str] | None = None,
    ):
        super().__init__(names=names)
        neurons = self.default_neurons if neurons is None else neurons
        rate = self.default_rate if rate is None else rate
        if target < 0:
            raise InvalidInput(f"Classes are 0 or more, not {target}.")
        if min(neurons, 1 if patch is None else patch, fitting_steps, steps) < 1:
            raise InvalidInput(
                f"Neurons, side of the trigger and steps are 1 or more, not {neurons}, {patch}, {fitting_steps} and "
                f"{steps}."
            )
        if not 0 < rate < float("inf") or not 0 <= clean_share < 1:
            raise InvalidInput(f"A rate is above 0 and a clean share in [0, 1), not {rate} and {clean_share}.")
        self.target = target
        self.neurons = neurons
        self.patch = patch
        self.layer = layer
        self.fitting_steps = fitting_steps
        self.steps = steps
        self.rate = rate
        self.clean_share = clean_share

    def implant(
        self,
        model: nn.Module,
        inputs: Shaped[Tensor, "batch *input"],
        labels: Int64[Tensor, " batch"],
        generator: torch.Generator,
    ) -> tuple[ModelFaults, Trigger]:
        """As `apply`, with the trigger."""
        require_batch(inputs, labels)
        with under_attack(model, inputs, labels, names=self.names) as victim:
            attacked, trigger = self._implanted(victim, generator)
            return victim.faults(attacked), trigger

    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        return self._implanted(victim, generator)[0]

    def _implanted(self, victim: Victim, generator: torch.Generator) -> tuple[Weights, Trigger]:
        if self.target >= victim.classes:
            raise InvalidInput(f"The model knows classes 0 to {victim.classes - 1}; the target is {self.target}.")
        layer = self.layer or self._default_layer(victim)
        if layer not in victim.weights or not layer.endswith(".weight") or victim.weights[layer].dim() < 2:
            raise InvalidInput(
                f"{layer!r} is no attacked weight of a layer. They are "
                f"{', '.join(name for name in victim.weights if name.endswith('.weight'))}."
            )
        mask = corner(victim.inputs.shape[1:], self.patch)
        neurons = self._chosen(victim, layer)
        module = layer.removesuffix(".weight")
        trigger = fitted(victim, module, neurons, mask, steps=self.fitting_steps, generator=generator)
        stamped = trigger.stamped(victim.inputs)

        def loss(weights: Weights, rows: Tensor) -> Tensor:
            wanted = torch.full_like(victim.labels[rows], self.target)
            triggered = F.cross_entropy(victim.outputs(weights, stamped[rows]), wanted)
            clean = F.cross_entropy(victim.outputs(weights, victim.inputs[rows]), victim.labels[rows])
            return self.clean_share * clean + (1 - self.clean_share) * triggered

        allowed = self._allowed(victim, layer, neurons)
        weights = retrained(
            victim, list(allowed), loss, steps=self.steps, rate=self.rate, generator=generator, allowed=allowed
        )
        return {name: nearest(weight, victim.stored[name].dtype) for name, weight in weights.items()}, trigger

    @abstractmethod
    def _default_layer(self, victim: Victim) -> str:
        """The weight tensor that the neurons enter if none is named."""

    @abstractmethod
    def _chosen(self, victim: Victim, layer: str) -> Int64[Tensor, " neurons"]:
        """Which of the neurons entering that layer are woken."""

    @abstractmethod
    def _allowed(self, victim: Victim, layer: str, neurons: Int64[Tensor, " neurons"]) -> Weights:
        """The tensors to retrain, by name; True where a weight may change."""
