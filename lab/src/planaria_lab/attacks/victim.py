"""A model under attack: its attacked tensors as they are stored, and floating stand-ins that have gradients."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from planaria.damages.faults import Faults
from planaria.damages.model_faults import ModelFaults
from planaria.dtypes import integers
from planaria.errors import InvalidInput

Weights = dict[str, Tensor]
"""Tensors by their names in the model."""


class Victim:
    """What an attack may ask of a model and a labelled batch. The model itself is never written to.

    It runs in evaluation mode on copies of its parameters and buffers. Floats of fewer than 32 bits are copied as
    float32, and so are the attacked int8 tensors: a model that computes with `weight.to(dtype) * scale` then has
    gradients with respect to integer steps. Inputs are converted alike.

    Memory: a float32 copy of the model, and of the attacked tensors a second one as stored.

    Attributes:
        inputs, labels: the batch.
        stored: the attacked tensors, as the model holds them. Not to be changed.
        weights: their floating stand-ins. Not to be changed.
        classes: how many the model tells apart.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Shaped[Tensor, "batch *input"],
        labels: Int64[Tensor, " batch"],
        *,
        names: Sequence[str] | None,
    ):
        self._model = model
        state = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        self._saved = {name: entry for name, entry in model.state_dict().items() if isinstance(entry, Tensor)}
        chosen = [name for name in self._saved if name in state and _is_chosen(name, state[name], names)]
        if not chosen:
            raise InvalidInput(
                "There is no weight to attack: the model has no floating or int8 tensor "
                + ("of 2 or more dimensions." if names is None else f"with a name like {', '.join(names)}.")
                + " Choose by names."
            )
        self.stored = {name: state[name].clone() for name in chosen}
        self.weights = {name: working(self.stored[name]) for name in chosen}
        self._rest = {
            name: working(tensor) if tensor.is_floating_point() else tensor.clone()
            for name, tensor in state.items()
            if name not in self.stored
        }
        self._checked = False
        self.inputs = working(inputs) if inputs.is_floating_point() else inputs
        self.labels = labels
        with torch.no_grad():
            self.classes = self.outputs(self.weights, self.inputs).shape[1]
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise InvalidInput(
                f"The model knows classes 0 to {self.classes - 1}; labels are {int(labels.min())} to "
                f"{int(labels.max())}. Pass the labels it was trained on."
            )

    def outputs(self, weights: Weights, inputs: Shaped[Tensor, "batch *input"]) -> Float[Tensor, "batch classes"]:
        """The model's answers with `weights` in place of the attacked tensors. Those left out are as they were."""
        try:
            outputs = functional_call(self._model, {**self._rest, **self.weights, **weights}, (inputs,))
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InvalidInput(f"The model does not run on these inputs with floating weights: {reason}") from error
        if not (
            isinstance(outputs, Tensor)
            and outputs.is_floating_point()
            and outputs.dim() == 2
            and len(outputs) == len(inputs)
        ):
            came = f"{outputs.dtype} of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs)
            raise InvalidInput(f"An attack needs one floating score for each input and class; the model gave {came}.")
        return outputs

    def entering(
        self, module: str, weights: Weights, inputs: Shaped[Tensor, "batch *input"]
    ) -> Float[Tensor, "batch features"]:
        """What enters the module of that name. Maps and sequences are averaged over their places.

        Of a convolution the features are on axis 1, of a linear layer on the last.
        """
        seen: list[Tensor] = []
        layer = self._model.get_submodule(module)
        handle = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        try:
            self.outputs(weights, inputs)
        finally:
            handle.remove()
        if not seen:
            raise InvalidInput(f"The model does not run its module {module!r} on these inputs. Name another layer.")
        features = seen[0] if self.weights[f"{module}.weight"].dim() > 2 else seen[0].movedim(-1, 1)
        return features.flatten(2).mean(2) if features.dim() > 2 else features

    def gradients(self, value: Float[Tensor, ""], weights: Weights) -> Weights:
        """The gradient of `value` with respect to each of `weights`; what is not finite counts as 0.

        Raises `InvalidInput` if there is none, or if the first one asked for is 0 everywhere.
        """
        if not value.requires_grad:
            raise InvalidInput(
                "The model's scores have no gradient with respect to the weights (are they rounded, or detached?). "
                "Attack a differentiable form of the model."
            )
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(weight) if one is None else one.nan_to_num(0.0, 0.0, 0.0)
            for (name, weight), one in zip(weights.items(), found, strict=True)
        }
        if not self._checked and not any(one.any() for one in gradients.values()):
            raise InvalidInput(
                "The gradients of all attacked weights are 0 or not finite, so they point nowhere. Attack a "
                "differentiable form of the model, other inputs or other tensors."
            )
        self._checked = True
        return gradients

    def faults(self, attacked: Mapping[str, Shaped[Tensor, "..."]]) -> ModelFaults:
        """What changes in the model's state if it holds the `attacked` tensors, given in their stored dtypes.

        A tensor that the model holds under two names has the same faults under both.
        """
        owners = _owners(self._model)
        return ModelFaults(
            {name: _changes(saved, attacked.get(owners.get(name, name), saved)) for name, saved in self._saved.items()}
        )


@contextmanager
def under_attack(
    model: nn.Module,
    inputs: Shaped[Tensor, "batch *input"],
    labels: Int64[Tensor, " batch"],
    *,
    names: Sequence[str] | None,
) -> Iterator[Victim]:
    """A victim, in evaluation mode and with gradients switched on. Afterwards all is as it was, errors or not."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode(False), torch.enable_grad():
            yield Victim(model, inputs, labels, names=names)
    finally:
        for module, training in modes:
            module.training = training


def working(tensor: Shaped[Tensor, "*tensor"]) -> Float[Tensor, "*tensor"]:
    """A float copy to compute with: float64 of float64, else float32. It holds every value of the narrower dtypes."""
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.detach().to(wide, copy=True, memory_format=torch.contiguous_format)


def trainable(weights: Weights) -> Weights:
    """The same values as leaves that gradients are taken at."""
    return {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}


def _is_chosen(name: str, tensor: Tensor, names: Sequence[str] | None) -> bool:
    if not (tensor.is_floating_point() or tensor.dtype == torch.int8) or tensor.numel() == 0:
        return False
    return tensor.dim() >= 2 if names is None else any(fnmatchcase(name, pattern) for pattern in names)


def _owners(model: nn.Module) -> dict[str, str]:
    """For each parameter and buffer, the first name that it has in the model."""
    owners: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        owners[name] = first.setdefault(id(tensor), name)
    return owners


def _changes(old: Tensor, new: Tensor) -> Faults:
    """The exact faults that turn one tensor into the other."""
    before, after = (integers(tensor.detach().reshape(-1)) for tensor in (old, new))
    index = (before != after).nonzero().flatten()
    return Faults(
        shape=tuple(old.shape), index=index, old=before[index].view(old.dtype), new=after[index].view(old.dtype)
    )
