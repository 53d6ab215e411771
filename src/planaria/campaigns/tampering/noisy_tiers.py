"""Tiers of noise."""

from collections.abc import Sequence

import numpy as np
import torch

from planaria.campaigns.tampering.base import Tensors
from planaria.campaigns.tampering.forgery import Forgery, Seal, Tiers, is_of, require_tiers
from planaria.guard import Guard


class NoisyTiers(Forgery):
    """Tiers become random bytes, and the file is closed around them.

    Args:
        tiers: which, such as ["copy", "hint"] or ["digest.tensors"].
        seal: as for `Forgery`.
    """

    def __init__(self, tiers: Sequence[str], *, seal: Seal = "kept"):
        super().__init__(seal=seal)
        self.tiers = tuple(tiers)
        require_tiers(self.tiers)

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        forged = dict(victim.arrays)
        for name, array in victim.arrays.items():
            if any(is_of(name, tier) for tier in self.tiers):
                noise = torch.randint(256, (array.nbytes,), generator=generator, dtype=torch.uint8).numpy()
                forged[name] = np.frombuffer(noise.tobytes(), array.dtype).reshape(array.shape)
        return forged
