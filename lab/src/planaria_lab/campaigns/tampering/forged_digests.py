"""Digests that agree with the damage."""

import torch

from planaria.guard import Guard
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import Forgery, Tiers, guard_like, is_of


class ForgedDigests(Forgery):
    """All digests become those of the damaged weights, made without the key; everything else stays.

    Args:
        seal: as for `Forgery`.
    """

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        made = guard_like(victim, damaged, tiers=())
        return {**victim.arrays, **{name: array for name, array in made.arrays.items() if is_of(name, "digest")}}
