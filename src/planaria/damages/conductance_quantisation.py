"""Analog devices that hold a few conductances only."""

import torch
from jaxtyping import Float64
from torch import Tensor

from planaria.damages.device_damage import DeviceDamage
from planaria.errors import InvalidInput


class ConductanceQuantisation(DeviceDamage):
    """Rounds both conductances of a pair to the nearest of `levels` evenly spaced ones, from zero to the largest.

    A weight then has 2 levels - 1 values. Nothing is random.

    Args:
        levels: 2 or more.

    Raises:
        InvalidInput: on fewer levels, and as `DeviceDamage` does.
    """

    def __init__(self, levels: int):
        if levels < 2:
            raise InvalidInput(f"A device has 2 or more levels, not {levels}.")
        self.levels = levels

    def _held(self, target: Float64[Tensor, "2 weights"], generator: torch.Generator) -> Float64[Tensor, "2 weights"]:
        return (target * (self.levels - 1)).round() / (self.levels - 1)
