"""Analog devices that were programmed with noise."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from planaria.damages.device_damage import DeviceDamage, noise_like
from planaria.errors import InvalidInput

Device = Literal["pcm", "reram", "reram-1-day", "reram-2-days"]
# g_max in microsiemens, and the standard deviation in microsiemens as a polynomial in g / g_max, lowest power first.
DEVICES: dict[str, tuple[float, tuple[float, ...]]] = {
    "pcm": (25.0, (0.26348, 1.9650, -1.1731)),
    "reram": (40.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
    "reram-1-day": (40.0, (0.701, 22.086, -50.773, 47.095, -16.458)),
    "reram-2-days": (40.0, (0.782, 20.274, -43.507, 37.062, -11.934)),
}


class ProgrammingNoise(DeviceDamage):
    """Adds normal noise to both conductances of a pair, whose deviation depends on the conductance; none falls below 0.

    The polynomials are published fits: phase-change memory after Nandakumar et al. (ICECS 2019), resistive memory after
    Wan et al. (Nature 2022, 1 second after programming, or once it has relaxed for 1 or 2 days), both as aihwkit gives
    them (`PCMLikeNoiseModel`, `ReRamWan2022NoiseModel`).

    Args:
        device: "pcm", "reram", "reram-1-day" or "reram-2-days".
        scale: factor of the noise, 0 or more.

    Raises:
        InvalidInput: on an unknown device or another scale, and as `DeviceDamage` does.
    """

    def __init__(self, device: Device = "pcm", *, scale: float = 1.0):
        if device not in get_args(Device):
            raise InvalidInput(f"Unknown device {device!r}. Devices are: {', '.join(get_args(Device))}.")
        if not 0 <= scale < math.inf:
            raise InvalidInput(f"A scale of noise is finite and not negative, not {scale}.")
        self.device = device
        self.scale = scale

    def _held(self, target: Float64[Tensor, "2 weights"], generator: torch.Generator) -> Float64[Tensor, "2 weights"]:
        noise = self.scale * self.deviation(target) * noise_like(target, generator)
        return (target + noise).clamp(min=0)

    def deviation(self, target: Float64[Tensor, "*devices"]) -> Float64[Tensor, "*devices"]:
        """Standard deviation of a programmed conductance, both in units of g_max; before `scale`."""
        g_max, coefficients = DEVICES[self.device]
        deviation = torch.zeros_like(target)
        for coefficient in reversed(coefficients):
            deviation = deviation * target + coefficient
        return deviation / g_max
