"""What damages of scattered weights share: each struck weight gets a new value."""

import math
from abc import abstractmethod

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from planaria.damages.base import ScatteredDamage
from planaria.damages.faults import Faults
from planaria.dtypes import integers
from planaria.errors import InvalidInput


class WeightDamage(ScatteredDamage):
    """Gives weights, drawn uniformly without replacement, new values. The faults list only weights whose bits changed.

    Args:
        rate: probability of each weight to be struck, in [0, 1].
        count: how many weights are struck, instead of a rate; over all tensors together.

    Raises:
        InvalidInput: as `ScatteredDamage` does.
    """

    def _size(self, weight: Tensor) -> int:
        return weight.numel()

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        bits = integers(weight.detach().reshape(-1))
        # Drawn on the CPU wherever the weight is, so that the device does not decide what breaks.
        old = bits[struck.to(weight.device)].cpu()
        new = integers(self._replaced(old.view(weight.dtype), weight, generator))
        changed = new != old
        return Faults(
            shape=tuple(weight.shape),
            index=struck[changed].to(weight.device),
            old=old[changed].view(weight.dtype).to(weight.device),
            new=new[changed].view(weight.dtype).to(weight.device),
        )

    @abstractmethod
    def _replaced(
        self, old: Shaped[Tensor, " struck"], weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> Shaped[Tensor, " struck"]:
        """What the struck weights hold instead, in their dtype; on the CPU. They held `old`, in the whole `weight`."""


def filled(weight: Shaped[Tensor, "*weight"], value: float) -> Shaped[Tensor, "*weight"]:
    """Such a tensor full of one value, rounded if a float. Raises `InvalidInput` if its dtype cannot hold it."""
    dtype = weight.dtype
    if dtype.is_floating_point and math.isfinite(value):
        fits = abs(value) <= torch.finfo(dtype).max
    elif dtype.is_floating_point:
        fits = str(torch.full((), value, dtype=dtype).item()) == str(value)  # some floats of 8 bits have no infinity
    elif dtype.is_complex:
        fits = True
    else:
        lowest, highest = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        fits = math.isfinite(value) and value == int(value) and lowest <= value <= highest
    if not fits:
        raise InvalidInput(f"A weight of {dtype} cannot hold {value}. Choose another value, or leave such tensors out.")
    return torch.full_like(weight, value if dtype.is_floating_point or dtype.is_complex else int(value))


def require_real(dtype: torch.dtype) -> None:
    """Raises `InvalidInput` unless tensors of `dtype` hold real numbers."""
    if dtype.is_complex or dtype == torch.bool:
        raise InvalidInput(f"{dtype} holds no real numbers to draw. Leave such tensors out.")


def rounded(values: Float64[Tensor, "*values"], dtype: torch.dtype) -> Shaped[Tensor, "*values"]:
    """Numbers in a dtype: floats are rounded, integers too, and what lies beyond its range becomes its end."""
    if dtype.is_floating_point:
        limits = torch.finfo(dtype)
        return values.clamp(limits.min, limits.max).to(dtype)
    lowest, highest = float(torch.iinfo(dtype).min), float(torch.iinfo(dtype).max)
    if highest > torch.iinfo(dtype).max:  # the float64 nearest to the end of 64 bits lies beyond it
        highest = math.nextafter(highest, 0)
    inside = values.round().clamp(lowest, highest).numpy()
    return torch.from_numpy(inside.astype(str(dtype).removeprefix("torch.")))


def finite(weight: Shaped[Tensor, "*weight"]) -> Float64[np.ndarray, " finite"]:
    """The finite weights. NumPy's, whose sums do not depend on the number of threads."""
    values = weight.detach().reshape(-1).double().cpu().numpy()
    return values[np.isfinite(values)]
