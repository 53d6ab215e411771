"""The tier that docs/tiers.md adds, taken from there: what it shows is what is tested."""

import re
from pathlib import Path
from typing import Any

from planaria.guard import tiers

PAGE = Path(__file__).parents[2] / "docs" / "tiers.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def stripe_tier() -> tiers.Tier:
    """An instance of it, not registered."""
    code = BLOCK.findall(PAGE.read_text(encoding="utf-8"))[0]
    assert len(code.splitlines()) <= 60
    scope: dict[str, Any] = {}
    exec(code.replace("register(StripeTier())", ""), scope)
    tier = scope["StripeTier"]()
    assert isinstance(tier, tiers.Tier)
    return tier
