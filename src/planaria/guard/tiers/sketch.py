"""The sketch tier: a coarse sketch of each tensor where that pays. Specified in FORMAT.md, sections 8 and 9."""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from planaria.errors import InvalidGuard
from planaria.guard.manifest import EncodedShape
from planaria.guard.plan_memory import encodable, plan_memory
from planaria.guard.tiers.base import Tier, require_array
from planaria.memory.memory import PRIOR_BYTES

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making


class SketchTier(Tier):
    """Sketches, and priors of what they leave: what is lost is estimated, be it all."""

    name = "sketch"

    def plan(self, making: "Making") -> None:
        """Sketches and refinement are planned together, here if there are sketches."""
        plan_memory(making)

    def validate(self, guard: "GuardFile") -> None:
        sketches = {name for name in guard.arrays if name.startswith("hint.")}
        for name in sketches:
            require_array(guard, name, np.uint8, (guard.arrays[name].size,))
        encoded = guard.manifest.memory.tensors if guard.manifest.memory else ()
        if sketches != {f"hint.{kept.tensor}" for kept in encoded if kept.sketched}:
            raise InvalidGuard("The guard's sketches are not those that its manifest names.")
        for kept in encoded:
            entry = guard.entries[kept.tensor] if kept.tensor < len(guard.entries) else None
            if entry is None or not encodable(entry):
                raise InvalidGuard(f"The guard encodable tensor {kept.tensor}, of which no memory is made.")
            columns, cells = prod(entry.shape[1:]), prod(kept.space)
            if columns % cells or (kept.codec == "low frequency" and columns != cells):
                raise InvalidGuard(
                    f"The guard encodable {columns} columns of {entry.name!r} as laid out over {kept.space}."
                )
            content = guard.arrays[f"hint.{kept.tensor}"].size if kept.sketched else 0
            if content < PRIOR_BYTES * kept.prior or (content > PRIOR_BYTES * kept.prior) != bool(kept.codec):
                raise InvalidGuard(f"The guard's sketch of {entry.name!r} takes {content} bytes, which cannot be.")

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        """What sketches and refinement are of, or None without any; strengths are shares of the weights refined."""
        shape = guard.manifest.memory
        if shape is None:
            return {"memory": None}
        tensors = {
            guard.entries[kept.tensor].name: {
                "sketch": kept.codec or None,
                "prior": bool(kept.prior),
                "refinement": bool(kept.refined),
                "error": kept.error,
            }
            for kept in shape.tensors
        }
        return {"memory": {"strengths": [] if "ladder" in guard.lost else list(shape.strengths), "tensors": tensors}}

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        shape = guard.manifest.memory
        if sketched := sum(kept.sketched for kept in shape.tensors) if shape else 0:
            yield f"Sketches of {sketched:,} tensors: what is lost of them is estimated, be it all."

    def kept_of(self, guard: "GuardFile", tensor: int) -> str:
        kept = encoded_of(guard, tensor)
        if kept is None or f"hint.{tensor}" in guard.lost:
            return ""
        return ", ".join([f"{kept.codec} sketch"] * bool(kept.codec) + ["prior"] * kept.prior)


def encoded_of(guard: "GuardFile", tensor: int) -> EncodedShape | None:
    """What is encoded of a tensor, if anything is."""
    shape = guard.manifest.memory
    return next((kept for kept in shape.tensors if kept.tensor == tensor), None) if shape else None
