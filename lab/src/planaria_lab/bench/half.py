"""Networks stored as float16, computing as accelerators do."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


def halved(network: nn.Module) -> nn.Module:
    """A copy that stores float16, and rounds what every layer gives to float16.

    To be run with its tensors as float32, on float32 inputs, as accelerators sum in float32 and store float16. An
    infinite weight does as it would there, and so does a huge one: outputs past 65,504 are infinite. On a CPU that is
    some ten times as fast as arithmetic in float16.
    """
    network = copy.deepcopy(network).half()
    for layer in network.modules():
        if next(layer.children(), None) is None:
            layer.register_forward_hook(_rounded)
    return network


def _rounded(layer: nn.Module, arguments: Any, outputs: Tensor) -> Tensor:
    return outputs.to(torch.float16).to(outputs.dtype)
