"""Analog devices that no pulse moves any more."""

import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.device_damage import require_float
from planaria.damages.weight_damage import WeightDamage, finite, rounded
from planaria.errors import InvalidInput


class CorruptDevice(WeightDamage):
    """Fixes weights, one analog device each, at values near zero: the corrupt devices of aihwkit's ReRAM arrays.

    A corrupt device holds a value drawn uniformly from [-spread, spread], in units of the tensor's largest weight. Of
    the arrays that aihwkit's presets were fitted to, 13.48 % (`ReRamArrayOMPresetDevice`, the default) and 9.77 %
    (`ReRamArrayHfO2PresetDevice`) of the devices were corrupt, with a spread of 0.01 (Gong, Rasch et al., IEDM 2022);
    there, the unit is the range of a pulsed device.

    Args:
        rate, count: as of `WeightDamage`.
        spread: half the range of the values, in [0, 1].

    Raises:
        InvalidInput: as `WeightDamage` does, and on a spread outside [0, 1]; when applied, on what are no floats.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None, spread: float = 0.01):
        super().__init__(0.1348 if rate is None and count is None else rate, count=count)
        if not 0 <= spread <= 1:
            raise InvalidInput(f"A spread lies in [0, 1], not {spread}.")
        self.spread = spread

    def _size(self, weight: Tensor) -> int:
        require_float(weight.dtype)
        return super()._size(weight)

    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        largest = max(abs(finite(weight)), default=math.nan)
        drawn = 2 * torch.rand(len(old), dtype=torch.float64, generator=generator) - 1
        return rounded(self.spread * float(largest) * drawn, old.dtype)
