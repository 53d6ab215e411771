"""The refinement tier: check bits over the bit planes of many tensors. Specified in FORMAT.md, section 10."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from planaria.errors import InvalidGuard, InvalidInput
from planaria.guard.headers import LARGEST_EXPANSION
from planaria.guard.plan_memory import plan_memory, refinement_columns
from planaria.guard.tiers.base import Tier, require_array
from planaria.guard.tiers.sketch import encoded_of
from planaria.memory.memory import matrix_shape
from planaria.memory.refinement import Refinement

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making


class RefinementTier(Tier):
    """Check bits that restore weights between bounds, the narrower the fewer of all are missing."""

    name = "refinement"

    def plan(self, making: "Making") -> None:
        """Planned together with sketches, if there are any."""
        if "sketch" not in making.tiers:
            plan_memory(making)

    def validate(self, guard: "GuardFile") -> None:
        shape = guard.manifest.memory
        if "ladder" in guard.arrays:
            require_array(guard, "ladder", np.uint8, (guard.arrays["ladder"].size,))
        covered = [guard.entries[kept.tensor] for kept in shape.tensors if kept.refined] if shape else []
        if bool(covered) != ("ladder" in guard.arrays):
            raise InvalidGuard(
                f"The guard's refinement is of {len(covered)} tensors, and {'' if covered else 'not '}missing."
            )
        if refinement_columns(covered) > LARGEST_EXPANSION * guard.size:
            raise InvalidGuard(
                f"The guard's refinement claims {refinement_columns(covered)} columns in {guard.size} bytes."
            )
        if covered and "ladder" not in guard.lost:
            self.refinement_of(guard)

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        shape = guard.manifest.memory
        if shape is None or not shape.strengths or "ladder" in guard.lost:
            return
        strongest, *finer = [f"{100 * strength:.3g}" for strength in shape.strengths]
        covered = sum(kept.refined for kept in shape.tensors)
        yield (
            f"Refinement of {covered:,} tensors: up to {strongest} % of their weights may be missing, and are restored "
            f"between bounds{'; finer ones up to ' + ', '.join(finer) + ' %' if finer else ''}."
        )

    def kept_of(self, guard: "GuardFile", tensor: int) -> str:
        kept = encoded_of(guard, tensor)
        return "refinement" if kept is not None and kept.refined and "ladder" not in guard.lost else ""

    @staticmethod
    def refinement_of(guard: "GuardFile") -> Refinement | None:
        """As stored; None without one. Raises `InvalidGuard`."""
        shape = guard.manifest.memory
        covered = [] if shape is None else [guard.entries[kept.tensor].shape for kept in shape.tensors if kept.refined]
        if shape is None or not covered:
            return None
        try:
            refinement = Refinement.from_bytes(
                guard.arrays["ladder"].view(np.uint8), [matrix_shape(entry_shape) for entry_shape in covered]
            )
        except InvalidInput as error:
            raise InvalidGuard(f"The guard's refinement is not sound: {error}") from error
        if len(refinement.stages) != len(shape.strengths):
            raise InvalidGuard(
                f"The guard's refinement has {len(refinement.stages)} stages, not {len(shape.strengths)}."
            )
        return refinement
