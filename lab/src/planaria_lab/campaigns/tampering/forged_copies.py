"""Copies of the damage."""

import numpy as np
import torch

from planaria.checkpoints import open_checkpoint
from planaria.guard import Guard
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import Forgery, Tiers


class ForgedCopies(Forgery):
    """The copies of small tensors become the attacker's bytes, so that what is copied back is the damage.

    A guard without copies stays as it is, and so do copies of tensors that the damage spares.

    Args:
        seal: as for `Forgery`.
    """

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        names = [victim.entries[index].name for index in victim.manifest.copied]
        if not names:
            return victim.arrays
        with open_checkpoint(damaged) as checkpoint:
            return {**victim.arrays, "copy": np.concatenate([checkpoint.read(name) for name in names])}
