"""Layers whose weights are stored as int8 with one float scale, as quantised models are shipped."""

import copy

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from planaria.errors import InvalidInput


class Int8Linear(nn.Linear):
    """A linear layer that stores `weight` as int8 and computes with `weight * scale`; both are buffers."""

    scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        _take_over(self, linear)

    def forward(self, input: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return F.linear(input, self.weight.to(input.dtype) * self.scale, self.bias)


class Int8Conv2d(nn.Conv2d):
    """A convolution that stores `weight` as int8 and computes with `weight * scale`; both are buffers."""

    scale: Tensor

    def __init__(self, conv: nn.Conv2d):
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            padding_mode=conv.padding_mode,
        )
        _take_over(self, conv)

    def forward(
        self, input: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs out_height out_width"]:
        return self._conv_forward(input, self.weight.to(input.dtype) * self.scale, self.bias)


def quantised_weight(
    weight: Float[Tensor, "*weight"],
) -> tuple[Int8[Tensor, "*weight"], Float32[Tensor, ""]]:
    """The nearest int8 weights, and the scale that turns them back; the largest magnitude is 127 steps, -128 unused.

    Symmetric and per tensor, the setting of the progressive bit search (Rakin, He, Fan 2019, section 3.1). Weights that
    are all zero have scale 1. Raises `InvalidInput` for weights that are not finite.
    """
    weight = weight.detach().float()
    if not weight.isfinite().all():
        raise InvalidInput("Weights that are not finite cannot be quantised. Repair them first.")
    largest = weight.abs().max() if weight.numel() else torch.zeros(())
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (weight / scale).round().to(torch.int8), scale


def quantised(network: nn.Module) -> nn.Module:
    """A copy of a trained network in which every linear and 2-d convolutional layer is stored as int8.

    Biases and the statistics of batch norm stay as they are. A layer that is itself the network is quantised too.
    """
    layers: dict[type[nn.Module], type[Int8Linear] | type[Int8Conv2d]] = {nn.Linear: Int8Linear, nn.Conv2d: Int8Conv2d}
    holder = nn.ModuleDict({"network": copy.deepcopy(network)})
    for parent in list(holder.modules()):
        for name, layer in parent.named_children():
            if type(layer) in layers:
                setattr(parent, name, layers[type(layer)](layer).train(layer.training))  # type: ignore[arg-type]
    return holder["network"]


def _take_over(layer: nn.Module, source: nn.Linear | nn.Conv2d) -> None:
    """Puts the quantised weight of `source` where `layer` has a float parameter, and keeps its bias."""
    weight, scale = quantised_weight(source.weight)
    del layer.weight
    layer.register_buffer("weight", weight)
    layer.register_buffer("scale", scale)
    if source.bias is not None:
        layer.bias = source.bias
