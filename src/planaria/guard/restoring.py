"""The exact part of a repair, as it goes from tier to tier."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint
from planaria.guard.file import GuardFile
from planaria.guard.known import Known
from planaria.guard.moved import Moved
from planaria.guard.overlay import Overlay
from planaria.guard.tiers.digest import proven_tiles
from planaria.guard.unsolved import Unsolved


@dataclass(kw_only=True)
class Restoring:
    """A damaged model, and what tiers corrected so far.

    Attributes:
        guard, checkpoint: the guard, and the model as it is found.
        overlay: the model with the corrections.
        unproven: tiles that match no digest, as far as is known; tiers clear those that they restored.
        known: what a hardware test says, by tensor; None without one.
        threads, progress: see `Guard.check`.
        moved: what was found at other places.
        unsolved: what the parity could not correct; None if it had nothing to do.
    """

    guard: GuardFile
    checkpoint: Checkpoint
    overlay: Overlay
    unproven: NDArray[np.bool_]
    known: Known | None
    threads: int
    progress: Callable[[int], None]
    moved: Moved
    unsolved: Unsolved | None = None

    def proven(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        """All tiles that are proven by the digests that these tiles have a part in, with the corrections so far."""
        return proven_tiles(self.guard, self.overlay, tiles)
