"""What damages of analog in-memory devices share: weights as pairs of conductances."""

from abc import abstractmethod

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from planaria.damages.base import Damage
from planaria.damages.faults import Faults
from planaria.damages.weight_damage import rounded
from planaria.dtypes import integers
from planaria.errors import InvalidInput


class DeviceDamage(Damage):
    """Breaks weights as an analog in-memory accelerator does, which holds each as a pair of conductances.

    A weight is the difference of two devices: a positive one is held by the first, a negative one by the second, and
    the other device is at zero. The weight of largest magnitude in the tensor takes the whole range of a device, as
    with aihwkit's `SinglePairConductanceConverter`. Conductances are counted in units of that range, g_max. A tensor of
    zeros alone has no such scale, and stays.

    A subclass changes conductances; nearly all weights may change, and the faults list all that do. Other than in
    aihwkit, inputs and outputs of the accelerator are exact.

    Cost: memory for about ten float64 tensors of the weight's shape.

    Raises:
        InvalidInput: when applied, on what are no floats, and on weights that are not finite.
    """

    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        require_float(weight.dtype)
        old = weight.detach().reshape(-1).cpu()
        values = old.double()
        if not values.isfinite().all():
            raise InvalidInput("A weight that is not finite has no conductance. Leave such tensors out.")
        largest = values.abs().max() if values.any() else torch.ones(())
        target = torch.stack([values, -values]).clamp(min=0) / largest
        held = self._held(target, generator) if values.any() else target
        # What leaves both conductances alone leaves the weight alone, whatever rounding does.
        (touched,) = (held != target).any(0).nonzero(as_tuple=True)
        new = rounded((held[0] - held[1])[touched] * largest, weight.dtype)
        changed = integers(new) != integers(old)[touched]
        index = touched[changed]
        faults = Faults(
            shape=tuple(weight.shape),
            index=index.to(weight.device),
            old=integers(old)[index].view(weight.dtype).to(weight.device),
            new=integers(new)[changed].view(weight.dtype).to(weight.device),
        )
        return faults.replay(weight), faults

    @abstractmethod
    def _held(self, target: Float64[Tensor, "2 weights"], generator: torch.Generator) -> Float64[Tensor, "2 weights"]:
        """The conductances that the devices hold instead of `target`, which lies in [0, 1], in units of g_max."""


def require_float(dtype: torch.dtype) -> None:
    """Raises `InvalidInput` unless it is a type of floating-point numbers."""
    if not dtype.is_floating_point:
        raise InvalidInput(f"Analog devices hold floating-point weights, not {dtype}. Leave such tensors out.")


def noise_like(values: Float64[Tensor, "*values"], generator: torch.Generator) -> Float64[Tensor, "*values"]:
    """Standard normal numbers."""
    return torch.randn(values.shape, dtype=torch.float64, generator=generator)
