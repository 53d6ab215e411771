"""Conductance that phase-change memory loses."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from planaria.damages.device_damage import DeviceDamage, noise_like
from planaria.errors import InvalidInput

FIRST_READ = 20.0  # seconds after programming at which the fit starts, t_0
READ_TIME = 250e-9  # seconds that a read takes, t_read


class Drift(DeviceDamage):
    """Lets both conductances of a pair drift, g(t) = g (t / t_0)^-nu, and reads them with 1/f noise.

    The exponent nu of a device is the magnitude of a normal number whose mean and deviation depend on log(g / g_max);
    t counts from t_0 = 20 s after programming. The noise gathered until t has a deviation of
    g(t) min(0.0088 / (g / g_max)^0.65, 0.2) sqrt(log((t + t_read) / (2 t_read))), t_read = 250 ns. The fit is of
    phase-change memory (Nandakumar et al., ICECS 2019), its numbers as aihwkit gives them (`PCMLikeNoiseModel`). No
    compensation is made: a uniform loss, which is most of it, is what a factor on a layer's outputs makes good.
    Resistive memory does not drift; see `ProgrammingNoise`.

    Args:
        seconds: time since the first read, 0 or more.
        read_noise: factor of the 1/f noise, 0 or more; 0 leaves the drift alone.

    Raises:
        InvalidInput: on another time or factor, and as `DeviceDamage` does.
    """

    def __init__(self, seconds: float, *, read_noise: float = 1.0):
        if not 0 <= seconds < math.inf:
            raise InvalidInput(f"Devices drift for a finite time of 0 seconds or more, not {seconds}.")
        if not 0 <= read_noise < math.inf:
            raise InvalidInput(f"A factor of noise is finite and not negative, not {read_noise}.")
        self.seconds = seconds
        self.read_noise = read_noise

    def _held(self, target: Float64[Tensor, "2 weights"], generator: torch.Generator) -> Float64[Tensor, "2 weights"]:
        time = self.seconds + FIRST_READ
        mean, deviation = self.exponent(target)
        exponent = (mean + deviation * noise_like(target, generator)).abs()
        drifted = target * torch.exp(-math.log(time / FIRST_READ) * exponent)
        share = (0.0088 / (target**0.65).clamp(min=1e-3)).clamp(max=0.2)
        gathered = math.sqrt(math.log((time + READ_TIME) / (2 * READ_TIME)))
        noise = self.read_noise * gathered * share * drifted * noise_like(target, generator)
        return (drifted + noise).clamp(min=0)

    def exponent(
        self, target: Float64[Tensor, "*devices"]
    ) -> tuple[Float64[Tensor, "*devices"], Float64[Tensor, "*devices"]]:
        """Mean and standard deviation of the drift exponent of conductances, in units of g_max."""
        logarithm = target.clamp(min=1e-7).log()
        mean = (-0.0155 * logarithm + 0.0244).clamp(0.049, 0.1)
        return mean, (-0.0125 * logarithm - 0.0059).clamp(0.008, 0.045)
