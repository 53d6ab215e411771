"""What a guard holds, one kind of redundancy a file. Adding one is a subclass of `Tier` and a place in `TIERS`."""

from planaria.errors import InvalidInput
from planaria.guard.manifest import is_tier_name
from planaria.guard.tiers.base import Tier as Tier
from planaria.guard.tiers.base import require_array as require_array
from planaria.guard.tiers.copy import CopyTier as CopyTier
from planaria.guard.tiers.digest import DigestTier as DigestTier
from planaria.guard.tiers.parity import ParityTier as ParityTier
from planaria.guard.tiers.refinement import RefinementTier as RefinementTier
from planaria.guard.tiers.rule import RuleTier as RuleTier
from planaria.guard.tiers.sketch import SketchTier as SketchTier

# In the order in which they plan, and restore: parity takes the bytes that all others leave.
TIERS: dict[str, Tier] = {
    tier.name: tier for tier in (DigestTier(), CopyTier(), RuleTier(), SketchTier(), RefinementTier(), ParityTier())
}


def register(tier: Tier) -> None:
    """Adds a tier of your own, before parity. Guards that hold it are read elsewhere too, without it.

    Raises `InvalidInput` if there is a tier of that name, or it is no name for one.
    """
    if tier.name in TIERS or not is_tier_name(tier.name):
        raise InvalidInput(
            f"{tier.name!r} cannot name a new tier. Choose small letters and digits, and none of {', '.join(TIERS)}."
        )
    parity = TIERS.pop("parity")
    TIERS[tier.name] = tier
    TIERS["parity"] = parity
