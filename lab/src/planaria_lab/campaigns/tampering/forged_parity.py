"""Parity that leads to the damage."""

import torch

from planaria.checkpoints import open_checkpoint
from planaria.guard import Guard, parity
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import Forgery, Tiers


class ForgedParity(Forgery):
    """The parity becomes that of the damaged model, so that every correction leads to it; the digests stay.

    A guard without parity stays as it is.

    Args:
        seal: as for `Forgery`.
    """

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        shape = victim.manifest.parity
        if shape is None:
            return victim.arrays
        with open_checkpoint(damaged) as checkpoint:
            made = parity.encode(checkpoint, victim.layout, shape, threads=1, progress=lambda count: None)
        return {**victim.arrays, "parity": made}
