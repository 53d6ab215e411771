"""Tiers of noise."""

import numpy as np
import torch

from planaria.guard import Guard
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import ForgeryOfTiers, Tiers


class NoisyTiers(ForgeryOfTiers):
    """Tiers become random bytes, and the file is closed around them. Arguments as of `ForgeryOfTiers`."""

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        forged = dict(victim.arrays)
        for name, array in self._chosen(victim).items():
            noise = torch.randint(256, (array.nbytes,), generator=generator, dtype=torch.uint8).numpy()
            forged[name] = np.frombuffer(noise.tobytes(), array.dtype).reshape(array.shape)
        return forged
