"""The contract of an attack."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from planaria.damages.model_faults import ModelFaults
from planaria.errors import InvalidInput
from planaria_lab.attacks.objective import Objective
from planaria_lab.attacks.victim import Victim, Weights, under_attack


class Attack(ABC):
    """A way to break a model on purpose, with its gradients.

    `apply` leaves the model as it was, bit for bit, and answers with the exact faults of every tensor of its
    `state_dict`, which replay on any copy and save to a file. The model is a classifier that takes a batch and gives
    scores of shape (batch, classes). It runs in evaluation mode, which is set back after, so nothing else may use it at
    the same time.

    Gradients are taken at floating copies of the weights, so one attack serves float32, float16, bfloat16 and float8
    weights, and int8 weights where the model multiplies them by a scale. Results depend on nothing but the arguments,
    on one machine with one number of threads; others may round gradients otherwise.

    Args:
        names: patterns such as "blocks.*.weight"; every floating and int8 tensor of the model's state with such a name
            is attacked. By default those of two or more dimensions, parameters and buffers alike: biases, scales and
            the statistics of batch norm are spared.
    """

    def __init__(self, *, names: str | Sequence[str] | None = None):
        self.names = [names] if isinstance(names, str) else names

    def apply(
        self,
        model: nn.Module,
        inputs: Shaped[Tensor, "batch *input"],
        labels: Int64[Tensor, " batch"],
        generator: torch.Generator,
    ) -> ModelFaults:
        """The faults that this attack would make. The same generator state gives the same faults.

        Raises `InvalidInput` without labels, on labels that do not fit, if no tensor can be attacked, or if the model
        has no gradients.
        """
        require_batch(inputs, labels)
        with under_attack(model, inputs, labels, names=self.names) as victim:
            return victim.faults(self._attacked(victim, generator))

    @abstractmethod
    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        """The tensors that the attack changes, in their stored dtypes."""


class ObjectiveAttack(Attack):
    """An attack that serves any objective.

    When applied it raises `InvalidInput` also if the model or the batch lacks a class that the objective names.
    """

    def __init__(self, *, objective: Objective | None = None, names: str | Sequence[str] | None = None):
        super().__init__(names=names)
        self.objective = objective or Objective()

    def _value(self, victim: Victim, weights: Weights) -> Tensor:
        return self.objective.value(victim.outputs(weights, victim.inputs), victim.labels)


def require_batch(inputs: Shaped[Tensor, "batch *input"], labels: Int64[Tensor, " batch"]) -> None:
    """Raises `InvalidInput` unless these are inputs with one integer label each."""
    if not isinstance(labels, Tensor):
        raise InvalidInput(f"An attack follows gradients of labelled inputs; the labels are {labels!r}. Pass them.")
    if not isinstance(inputs, Tensor) or inputs.dim() == 0 or len(inputs) == 0:
        raise InvalidInput("An attack follows gradients of labelled inputs: pass a tensor with one row an input.")
    if labels.dtype != torch.int64 or tuple(labels.shape) != (len(inputs),):
        raise InvalidInput(
            f"Labels are int64, one for each of the {len(inputs)} inputs, not {labels.dtype} of shape "
            f"{tuple(labels.shape)}."
        )
