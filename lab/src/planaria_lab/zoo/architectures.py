"""Networks of which many are computed at once: each tensor has a leading axis, one entry a network."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from planaria.errors import InvalidInput

Activation = Literal["relu", "tanh", "gelu"]
CLASSES = 10
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "gelu": F.gelu}


@dataclass(frozen=True)
class Architecture(ABC):
    """Shapes of a network's tensors, and how a stack of such networks answers.

    Attributes:
        side: of the square images, in pixels.
        activation: after every layer but the last.

    Raises `InvalidInput` on an unknown activation or a side below 8.
    """

    side: int
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise InvalidInput(f"Activations are {', '.join(get_args(Activation))}, not {self.activation!r}.")
        if self.side < 8:
            raise InvalidInput(f"Images have a side of 8 pixels or more, not {self.side}.")

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor of one network: weights, each followed by its bias."""

    @property
    def parameters(self) -> int:
        """Of one network."""
        return sum(prod(shape) for shape in self.shapes.values())

    @abstractmethod
    def answers(
        self, stack: Mapping[str, Float[Tensor, "networks ..."]], images: Float[Tensor, "networks batch pixels"]
    ) -> Float[Tensor, "networks batch classes"]:
        """Logits of each network for images of its own."""

    def drawn(self, generator: torch.Generator, scale: float) -> dict[str, Tensor]:
        """One network, initialised as PyTorch does: uniform in +-scale / sqrt(inputs), weights and biases alike."""
        weights, fan_in = {}, 1
        for name, shape in self.shapes.items():
            fan_in = prod(shape[1:]) if len(shape) > 1 else fan_in  # a bias takes that of its weight
            weights[name] = torch.empty(shape).uniform_(-1, 1, generator=generator) * scale * fan_in**-0.5
        return weights

    def _active(self, hidden: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](hidden)


@dataclass(frozen=True)
class MLP(Architecture):
    """Hidden layers of these widths and 10 outputs; tensors are called as `nn.Sequential` of named layers does.

    Raises `InvalidInput` also without a hidden layer, or on a width below 1.
    """

    widths: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or min(self.widths) < 1:
            raise InvalidInput(f"An MLP has one hidden layer or more, each of a width of 1 or more, not {self.widths}.")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        sizes = (self.side**2, *self.widths, CLASSES)
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            shapes |= {f"fc{layer}.weight": (outputs, inputs), f"fc{layer}.bias": (outputs,)}
        return shapes

    def answers(
        self, stack: Mapping[str, Float[Tensor, "networks ..."]], images: Float[Tensor, "networks batch pixels"]
    ) -> Float[Tensor, "networks batch classes"]:
        return self.layer_outputs(stack, images)[-1]

    def layer_outputs(
        self, stack: Mapping[str, Float[Tensor, "networks ..."]], images: Float[Tensor, "networks batch pixels"]
    ) -> list[Float[Tensor, "networks batch units"]]:
        """Of every layer, before its activation."""
        outputs = [_linear(stack, "fc1", images)]
        for layer in range(2, len(self.widths) + 2):
            outputs.append(_linear(stack, f"fc{layer}", self._active(outputs[-1])))
        return outputs


@dataclass(frozen=True)
class SmallCNN(Architecture):
    """The network of 2,464 parameters of Schuerholt et al. (Model Zoos, NeurIPS 2022), for images of 28 x 28.

    Convolutions of 8, 6 and 4 channels (5 x 5, 5 x 5, 2 x 2), the first two pooled by 2, then 20 and 10 units.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side != 28:
            raise InvalidInput(f"This network takes images of 28 x 28 pixels, not {self.side} x {self.side}.")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "conv1.weight": (8, 1, 5, 5),
            "conv1.bias": (8,),
            "conv2.weight": (6, 8, 5, 5),
            "conv2.bias": (6,),
            "conv3.weight": (4, 6, 2, 2),
            "conv3.bias": (4,),
            "fc1.weight": (20, 36),
            "fc1.bias": (20,),
            "fc2.weight": (CLASSES, 20),
            "fc2.bias": (CLASSES,),
        }

    def answers(
        self, stack: Mapping[str, Float[Tensor, "networks ..."]], images: Float[Tensor, "networks batch pixels"]
    ) -> Float[Tensor, "networks batch classes"]:
        # A network at a time: one convolution with a group of channels for each takes twice as long on CPUs.
        seen = [self._seen({name: tensor[at] for name, tensor in stack.items()}, own) for at, own in enumerate(images)]
        return _linear(stack, "fc2", self._active(_linear(stack, "fc1", torch.stack(seen))))

    def _seen(
        self, network: Mapping[str, Float[Tensor, "..."]], images: Float[Tensor, "batch pixels"]
    ) -> Float[Tensor, "batch features"]:
        """What a network's convolutions see."""
        hidden = images.view(-1, 1, self.side, self.side)
        for layer, pooled in (("conv1", True), ("conv2", True), ("conv3", False)):
            hidden = F.conv2d(hidden, network[f"{layer}.weight"], network[f"{layer}.bias"])
            hidden = self._active(F.max_pool2d(hidden, 2) if pooled else hidden)
        return hidden.flatten(1)


def _linear(stack: Mapping[str, Tensor], layer: str, inputs: Tensor) -> Tensor:
    return torch.baddbmm(stack[f"{layer}.bias"][:, None], inputs, stack[f"{layer}.weight"].transpose(1, 2))
