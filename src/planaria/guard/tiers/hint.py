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
        if hints != {f"hint.{of.tensor}" for of in remembered if of.hinted}:
            raise InvalidGuard("The guard's hints are not those that its manifest names.")
        for of in remembered:
            entry = guard.entries[of.tensor] if of.tensor < len(guard.entries) else None
            if entry is None or not remembers(entry):
                raise InvalidGuard(f"The guard remembers tensor {of.tensor}, of which no memory is made.")
            columns, cells = prod(entry.shape[1:]), prod(of.space)
            if columns % cells or (of.codec == "low frequency" and columns != cells):
                raise InvalidGuard(
                    f"The guard remembers {columns} columns of {entry.name!r} as laid out over {of.space}."
                )
            content = guard.arrays[f"hint.{of.tensor}"].size if of.hinted else 0
            if content < PRIOR_BYTES * of.prior or (content > PRIOR_BYTES * of.prior) != bool(of.codec):
                raise InvalidGuard(f"The guard's hint of {entry.name!r} takes {content} bytes, which cannot be.")

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        """What hints and ladder are of, or None without any; strengths are shares of the ladder's weights."""
        shape = guard.manifest.memory
        if shape is None:
            return {"memory": None}
        tensors = {
            guard.entries[of.tensor].name: {
                "hint": of.codec or None,
                "prior": bool(of.prior),
                "ladder": bool(of.laddered),
                "error": of.error,
            }
            for of in shape.tensors
        }
        return {"memory": {"strengths": [] if "ladder" in guard.lost else list(shape.strengths), "tensors": tensors}}

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        shape = guard.manifest.memory
        if hinted := sum(of.hinted for of in shape.tensors) if shape else 0:
            yield f"Hints of {hinted:,} tensors: what is lost of them is estimated, be it all."

    def kept_of(self, guard: "GuardFile", tensor: int) -> str:
        of = remembered_of(guard, tensor)
        if of is None or f"hint.{tensor}" in guard.lost:
            return ""
        return ", ".join([f"{of.codec} hint"] * bool(of.codec) + ["prior"] * of.prior)


def remembered_of(guard: "GuardFile", tensor: int) -> RememberedShape | None:
    """What is remembered of a tensor, if anything is."""
    shape = guard.manifest.memory
    return next((of for of in shape.tensors if of.tensor == tensor), None) if shape else None
