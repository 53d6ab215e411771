"""A guard with less in it."""

import numpy as np
import torch

from planaria.guard import Guard
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import ForgeryOfTiers, Tiers, is_of, with_fields

FIELDS = {"parity": "parity", "copy": "copied", "sketch": "memory", "refinement": "memory", "rule": "rules"}
"""What the manifest says of a tier. Sketches and refinement build on one another, and go together."""


class RemovedTiers(ForgeryOfTiers):
    """Tiers are taken out, and the manifest says nothing of them any more.

    Where the victim's seal is kept the manifest has to stay too: there the tiers become zeros. Arguments as of
    `ForgeryOfTiers`.
    """

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        fields = {FIELDS[tier] for tier in self.tiers if tier in FIELDS}
        gone = {*self.tiers, *(tier for tier, field in FIELDS.items() if field in fields)}
        chosen = [name for name in victim.arrays if any(is_of(name, tier) for tier in gone)]
        if self._kept(victim):
            return {**victim.arrays, **{name: np.zeros_like(victim.arrays[name]) for name in chosen}}
        left = {name: array for name, array in victim.arrays.items() if name not in chosen}
        return {**left, "manifest": with_fields(victim.arrays["manifest"], **dict.fromkeys(fields))}
