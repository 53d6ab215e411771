"""The victim's digests in a guard of the damaged model."""

import torch

from planaria.campaigns.tampering.base import Tensors
from planaria.campaigns.tampering.forgery import Forgery, Tiers, guard_like, is_of, with_fields
from planaria.guard import Guard


class ForeignTiers(Forgery):
    """Manifest, parity, copies, hints and ladder are those of a guard of the damaged model; the digests stay.

    What is regrown or estimated then comes from the attacker's weights. Rules are left out: one takes a minute to fit.

    Args:
        seal: as for `Forgery`.
    """

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        tiers = ("copy", "parity", "hint", "ladder")
        wanted = tuple(tier for tier in tiers if any(is_of(name, tier) for name in victim.arrays))
        made = guard_like(victim, damaged, tiers=wanted)
        digests = {name: array for name, array in victim.arrays.items() if is_of(name, "digest")}
        manifest = with_fields(made.arrays["manifest"], key=victim.manifest.key or None)
        return {**made.arrays, **digests, "manifest": manifest}
