"""Analog devices stuck at one end of their range."""

import torch
from jaxtyping import Float64
from torch import Tensor

from planaria.damages.device_damage import DeviceDamage
from planaria.errors import InvalidInput


class DeviceStuckAt(DeviceDamage):
    """Sticks each device of a pair, independently, at its lowest or its highest conductance.

    The default rates are those that most studies of faulty resistive memory take, 1.75 % and 9.04 %, after a test chip
    of 4 Mbit (Chen et al., IEEE Transactions on Computers 2015); we have them at second hand.

    Args:
        sa0: probability of a device to be stuck at zero conductance, in [0, 1].
        sa1: probability of a device to be stuck at its largest conductance, in [0, 1]; with sa0 at most 1.

    Raises:
        InvalidInput: on other probabilities, and as `DeviceDamage` does.
    """

    def __init__(self, sa0: float = 0.0175, sa1: float = 0.0904):
        if not (0 <= sa0 <= 1 and 0 <= sa1 <= 1 and sa0 + sa1 <= 1):
            raise InvalidInput(f"Probabilities lie in [0, 1] and add up to at most 1, not {sa0} and {sa1}.")
        self.sa0 = sa0
        self.sa1 = sa1

    def _held(self, target: Float64[Tensor, "2 weights"], generator: torch.Generator) -> Float64[Tensor, "2 weights"]:
        drawn = torch.rand(target.shape, dtype=torch.float64, generator=generator)
        low = torch.where(drawn < self.sa0, 0.0, target)
        return torch.where((drawn >= self.sa0) & (drawn < self.sa0 + self.sa1), 1.0, low)
