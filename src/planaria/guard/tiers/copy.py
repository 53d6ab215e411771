"""The copy tier: the bytes of small tensors, as they are. Specified in FORMAT.md, section 7."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planaria.errors import InvalidGuard
from planaria.guard.tiers.base import Tier, require_array

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making
    from planaria.guard.restoring import Restoring

SHARE = 0.25  # of what digests and description leave


class CopyTier(Tier):
    """Copies of tensors of at most one axis: norms, biases and scales, smallest first, while they all take little."""

    name = "copy"

    def plan(self, making: "Making") -> None:
        entries = making.layout.entries
        small = [(entry.nbytes, index) for index, entry in enumerate(entries) if len(entry.shape) < 2 and entry.nbytes]
        room = SHARE * (making.allowed - making.size())
        taken: list[int] = []
        for nbytes, index in sorted(small):
            room -= nbytes + len(f"{index},")
            if room < 0:
                left = len(small) - len(taken)
                making.say(
                    f"copy: none of {left} larger vectors: all copies may take {SHARE:.0%} of what digests leave"
                )
                break
            taken.append(index)
            making.say(f"copy: {entries[index].name}, {nbytes:,} bytes: restored exactly whatever happens to it")
        if not taken:
            return
        copied = tuple(sorted(taken))
        manifest = replace(making.manifest, version=max(making.manifest.version, 2), copied=copied)
        content = np.concatenate([making.checkpoint.read(entries[index].name) for index in copied])
        if making.fits(manifest, {"copy": content}):
            making.add(manifest, {"copy": content})

    def validate(self, guard: "GuardFile") -> None:
        copied = guard.manifest.copied
        if copied and copied[-1] >= len(guard.entries):
            raise InvalidGuard(f"The guard has a copy of tensor {copied[-1]}, and the model {len(guard.entries)}.")
        if copied or "copy" in guard.arrays:
            require_array(guard, "copy", np.uint8, (sum(guard.entries[index].nbytes for index in copied),))

    def restore(self, restoring: "Restoring") -> None:
        """Replaces damaged tiles of tensors of which there is a copy.

        A copy is as well proven as a digest, by the guard's seal: where a tile shares its digest with others, which
        may be broken, it needs no other proof.
        """
        guard, unproven = restoring.guard, restoring.unproven
        layout, overlay = guard.layout, restoring.overlay
        for index in guard.manifest.copied:
            bounds, content, name = layout.tiles_of_tensor(index), self.copy_of(guard, index), guard.entries[index].name
            if content is None or not unproven[bounds].any():
                continue
            for tile in unproven[bounds].nonzero()[0]:
                start = int(tile) * layout.tile
                found = overlay.read(name, start, min(start + layout.tile, len(content))).copy()
                overlay.replace(name, start, content[start : start + layout.tile])
                proven = restoring.proven(np.array([bounds.start + tile]))
                unproven[proven] = False
                if guard.manifest.compact:
                    unproven[bounds.start + tile] = False
                elif not len(proven):
                    overlay.replace(name, start, found)

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        return {"copied": [guard.entries[index].name for index in guard.manifest.copied]}

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        if guard.manifest.copied and "copy" not in guard.lost:
            yield f"Copies of {len(guard.manifest.copied):,} tensors: restored bit for bit, whatever happens to them."

    def kept_of(self, guard: "GuardFile", tensor: int) -> str:
        return "copy" if tensor in guard.manifest.copied else ""

    @staticmethod
    def copy_of(guard: "GuardFile", tensor: int) -> NDArray[np.uint8] | None:
        """The bytes of a tensor, if the guard holds a copy of it."""
        copied = list(guard.manifest.copied)
        if tensor not in copied or "copy" not in guard.arrays:
            return None
        start = sum(guard.entries[index].nbytes for index in copied[: copied.index(tensor)])
        return guard.arrays["copy"].view(np.uint8)[start : start + guard.entries[tensor].nbytes]
