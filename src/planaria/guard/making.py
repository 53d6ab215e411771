"""A guard in the making, and how its bytes are shared among tiers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Checkpoint
from planaria.detectors import Detector
from planaria.fit import Schedule
from planaria.guard import parity
from planaria.guard.byte_layout import ByteLayout
from planaria.guard.container import packed_size
from planaria.guard.manifest import MORE_TIERS, Manifest, ParityShape
from planaria.guard.pieces import pieces, weights_of
from planaria.guard.statistics import Statistics, measured_tensors
from planaria.guard.tiers.base import Arrays

Explain = Callable[[str], None]
Progress = Callable[[int, int, str], None]

PARITY_SHARE = 0.5  # of what copies leave, where any damage may come: small one is then restored exactly
PARITY_SHARE_EXPECTED = 0.1  # where so much is expected that parity cannot restore it
DESCRIPTION_SHARE = 0.02  # of the budget, for the compact form


@dataclass(kw_only=True)
class Making:
    """What tiers read of the model, and what they have put into its guard so far.

    Attributes:
        checkpoint, layout: the model.
        manifest, arrays: of the guard; tiers add to both.
        allowed: bytes that the guard's file may take.
        tiers: names of those asked for.
        expect, moments, schedule, seed, threads, device, key: see `protect`.
        say: called with what a tier buys, a line each.
        progress: called with (done, total, what).
    """

    checkpoint: Checkpoint
    layout: ByteLayout
    manifest: Manifest
    arrays: Arrays
    allowed: int
    tiers: frozenset[str]
    expect: float | None = None
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    schedule: Schedule | None = None
    seed: int = 0
    threads: int = 1
    device: torch.device | str = "cpu"
    key: bytes | None = None
    say: Explain
    progress: Progress

    def size(self, manifest: Manifest | None = None, arrays: Mapping[str, NDArray[np.generic]] | None = None) -> int:
        """Bytes of the guard's file, with this manifest in the place of its own, and these arrays besides."""
        return packed_size({"manifest": (manifest or self.manifest).encode(), **self.arrays, **(arrays or {})})

    def fits(self, manifest: Manifest, arrays: Mapping[str, NDArray[np.generic]]) -> bool:
        """Whether the budget has room for these arrays, with this manifest in the place of its own."""
        return self.size(manifest, arrays) <= self.allowed

    def add(self, manifest: Manifest, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes them into the guard."""
        self.manifest = manifest
        self.arrays |= arrays

    def take(self, name: str, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> bool:
        """Adds a tier that is not in the format, with its settings for the manifest; answers whether there was room."""
        plain = not self.manifest.compact
        tiers = {**self.manifest.tiers, name: settings}
        manifest = replace(self.manifest, version=MORE_TIERS, plain=plain, tiers=tiers)
        if fits := self.fits(manifest, arrays):
            self.add(manifest, arrays)
        return fits

    @cached_property
    def memory_room(self) -> int | None:
        """Bytes of the file that sketches, the refinement refinement and rules share; the rest is the parity's.

        None where neither sketches nor refinement are asked for. It is settled when it is first asked for, by what is
        left then.
        """
        if not self.tiers & {"sketch", "refinement"}:
            return None
        room = max(self.allowed - self.size(), 0)
        if "parity" not in self.tiers:
            return room
        shape = self.parity_shape(self.allowed)
        if self.expect is not None and shape is not None and _restores(shape, self.layout, self.expect):
            share = f"{self.expect:.3g} of all weights bit for bit"
            self.say(f"parity restores {share}, where it is known which: it gets all bytes")
            return 0
        memory = int((1 - (PARITY_SHARE if self.expect is None else PARITY_SHARE_EXPECTED)) * room)
        rest = self.parity_shape(self.allowed - memory)
        if rest is None or rest.check < parity.PROVABLE:
            self.say(
                f"parity: none is set aside: fewer than {parity.PROVABLE} check symbols prove no correction; "
                "memory gets its bytes"
            )
            return room
        return memory

    def parity_shape(self, allowed: int) -> ParityShape | None:
        """The most parity with which the guard's file takes no more bytes than this."""
        room = allowed - self.size()
        while room > 0:
            shape = parity.shape_for(self.layout.symbols, room, compact=self.manifest.compact)
            if shape is None:
                return None
            check_symbols = {"parity": parity.nothing_of(shape, self.layout)}
            excess = self.size(replace(self.manifest, parity=shape), check_symbols) - allowed
            if excess <= 0:
                return shape
            room -= max(excess, room // 200)
        return None

    def shorten(self) -> None:
        """Leaves out of the manifest why tensors have no rule, where that takes too much of a small guard."""
        wordy = self.manifest.compact and self.manifest.encode().nbytes > DESCRIPTION_SHARE * self.allowed
        if wordy or self.size() > self.allowed:
            self.manifest = replace(self.manifest, reasons={})

    def measure(self, tensor: int, detector: Detector) -> None:
        """Measures a tensor anew, with this detector in the place of `Outlier`. One pass over it."""
        entry, rows = self.layout.entries[tensor], self.arrays.get("statistics", np.empty((0, 0)))
        measured = list(measured_tensors(self.layout.entries, len(rows), compact=self.manifest.compact))
        if tensor in measured:
            parts = list(pieces(entry, self.layout.tile))
            contents = (self.checkpoint.read(entry.name, part.start, part.start + part.nbytes) for part in parts)
            weights = (weights_of(content, part) for content, part in zip(contents, parts, strict=True))
            found = [Statistics.of(weight, detector) for weight in weights]
            rows[measured.index(tensor)] = Statistics.merged(found, [part.nbytes for part in parts]).row


def _restores(shape: ParityShape, layout: ByteLayout, share: float) -> bool:
    """Whether the loss of a share of all weights, known and scattered, is restored but for bad luck."""
    # Two weights that share a symbol are lost together.
    narrow = any(entry.dtype in ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2") for entry in layout.entries)
    lost = (1 - (1 - share) ** 2 if narrow else share) * -(-shape.segment // shape.width)
    return shape.check >= lost + max(0.1 * lost, 5 * lost**0.5) + 4
