"""The hint tier: a coarse sketch of each tensor where that pays. Specified in FORMAT.md, sections 8 and 9."""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from planaria.errors import InvalidGuard
from planaria.guard.manifest import RememberedShape
from planaria.guard.remember import remember, remembers
from planaria.guard.tiers.base import Tier, require_array
from planaria.memory.memory import PRIOR_BYTES

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making


class HintTier(Tier):
    """Hints, and priors of what they leave: what is lost is estimated, be it all."""

    name = "hint"

    def plan(self, making: "Making") -> None:
        """Hints and ladder are planned together, here if there are hints."""
        remember(making)

    def validate(self, guard: "GuardFile") -> None:
        hints = {name for name in guard.arrays if name.startswith("hint.")}
        for name in hints:
            require_array(guard, name, np.uint8, (guard.arrays[name].size,))
        remembered = guard.manifest.memory.tensors if guard.manifest.memory else ()
        if hints != {f"hint.{kept.tensor}" for kept in remembered if kept.hinted}:
            raise InvalidGuard("The guard's hints are not those that its manifest names.")
        for kept in remembered:
            entry = guard.entries[kept.tensor] if kept.tensor < len(guard.entries) else None
            if entry is None or not remembers(entry):
                raise InvalidGuard(f"The guard remembers tensor {kept.tensor}, of which no memory is made.")
            columns, cells = prod(entry.shape[1:]), prod(kept.space)
            if columns % cells or (kept.codec == "low frequency" and columns != cells):
                raise InvalidGuard(
                    f"The guard remembers {columns} columns of {entry.name!r} as laid out over {kept.space}."
                )
            content = guard.arrays[f"hint.{kept.tensor}"].size if kept.hinted else 0
            if content < PRIOR_BYTES * kept.prior or (content > PRIOR_BYTES * kept.prior) != bool(kept.codec):
                raise InvalidGuard(f"The guard's hint of {entry.name!r} takes {content} bytes, which cannot be.")

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        """What hints and ladder are of, or None without any; strengths are shares of the ladder's weights."""
        shape = guard.manifest.memory
        if shape is None:
            return {"memory": None}
        tensors = {
            guard.entries[kept.tensor].name: {
                "hint": kept.codec or None,
                "prior": bool(kept.prior),
                "ladder": bool(kept.laddered),
                "error": kept.error,
            }
            for kept in shape.tensors
        }
        return {"memory": {"strengths": [] if "ladder" in guard.lost else list(shape.strengths), "tensors": tensors}}

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        shape = guard.manifest.memory
        if hinted := sum(kept.hinted for kept in shape.tensors) if shape else 0:
            yield f"Hints of {hinted:,} tensors: what is lost of them is estimated, be it all."

    def kept_of(self, guard: "GuardFile", tensor: int) -> str:
        kept = remembered_of(guard, tensor)
        if kept is None or f"hint.{tensor}" in guard.lost:
            return ""
        return ", ".join([f"{kept.codec} hint"] * bool(kept.codec) + ["prior"] * kept.prior)


def remembered_of(guard: "GuardFile", tensor: int) -> RememberedShape | None:
    """What is remembered of a tensor, if anything is."""
    shape = guard.manifest.memory
    return next((kept for kept in shape.tensors if kept.tensor == tensor), None) if shape else None
