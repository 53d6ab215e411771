"""Digests in the wrong places."""

from collections.abc import Sequence

import numpy as np
import torch

from planaria.guard import Guard
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import ForgeryOfTiers, Seal, Tiers


class SwappedDigests(ForgeryOfTiers):
    """Every digest moves to another place of its tier: genuine ones, under the victim's key, of other weights.

    Args:
        tiers: in which; by default all digests. ["digest.tiles"] leaves those of whole tensors sound.
        seal: as for `Forgery`.
    """

    def __init__(self, tiers: Sequence[str] = ("digest",), *, seal: Seal = "kept"):
        super().__init__(tiers, seal=seal)

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        forged = dict(victim.arrays)
        for name, array in self._chosen(victim).items():
            by = int(torch.randint(1, max(len(array), 2), (), generator=generator))
            forged[name] = np.roll(array, by, axis=0)
        return forged
