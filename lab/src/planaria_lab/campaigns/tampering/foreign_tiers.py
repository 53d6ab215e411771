"""The victim's digests in a guard of the damaged model."""

from collections.abc import Sequence

import torch

from planaria.errors import InvalidInput
from planaria.guard import Guard
from planaria_lab.campaigns.tampering.base import Tensors
from planaria_lab.campaigns.tampering.forgery import Forgery, Seal, Tiers, guard_like, is_of, with_fields

TIERS = ("copy", "parity", "sketch", "refinement")


class ForeignTiers(Forgery):
    """Manifest, parity, copies, sketches and refinement are those of a guard of the damaged model; the digests stay.

    What is regrown or estimated then comes from the attacker's weights.

    Args:
        tiers: of "copy", "parity", "sketch" and "refinement" those to make, as far as the victim has them. Sketches and
            refinement take seconds to plan; a rule would take a minute to fit, and is left out.
        seal: as for `Forgery`.
    """

    def __init__(self, tiers: Sequence[str] = TIERS, *, seal: Seal = "kept"):
        super().__init__(seal=seal)
        self.tiers = tuple(tiers)
        if not self.tiers or set(self.tiers) - set(TIERS):
            raise InvalidInput(f"Tiers of the attacker's guard are some of {', '.join(TIERS)}, not {list(tiers)}.")

    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        wanted = tuple(tier for tier in self.tiers if any(is_of(name, tier) for name in victim.arrays))
        made = guard_like(victim, damaged, tiers=wanted)
        digests = {name: array for name, array in victim.arrays.items() if is_of(name, "digest")}
        manifest = with_fields(made.arrays["manifest"], key=victim.manifest.key or None)
        return {**made.arrays, **digests, "manifest": manifest}
