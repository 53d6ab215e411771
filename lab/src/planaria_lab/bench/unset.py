"""Layers whose weights are yet to be set."""

from typing import Any, TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def unset(kind: type[Layer], *arguments: Any, **options: Any) -> Layer:
    """A layer that draws nothing from the global generator, of any numbers: set them.

    As `torch.nn.utils.skip_init`, which imports a package of symbolic algebra for it and so takes seconds.
    """
    layer = kind(*arguments, device="meta", **options)
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype)))
    return layer
