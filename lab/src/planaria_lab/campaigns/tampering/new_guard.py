"""A guard of the damaged model."""

import torch

from planaria.guard import protect
from planaria_lab.campaigns.tampering.base import Tampering, Tensors
from planaria_lab.campaigns.tampering.forgery import opened, share_of


class NewGuard(Tampering):
    """The victim's guard is thrown away, and the damaged model protected anew, without a key.

    Against a guard without a key this always succeeds, by design: digests without a key tell accidents, not attacks.
    """

    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        budget = share_of(opened(content), damaged)
        return protect(damaged, budget=budget, tiers=("copy", "parity"), threads=1).to_bytes()
