"""Finding damage and correcting what a code can: digest, then parity, then the digest again as proof."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint
from planaria.errors import LooksDifferent
from planaria.guard.byte_layout import ByteLayout
from planaria.guard.changed import FAR_OUT, ZEROED, changed_tiles
from planaria.guard.file import GuardFile
from planaria.guard.known import Known, require_plausible
from planaria.guard.moved import Moved
from planaria.guard.overlay import Overlay
from planaria.guard.pieces import pieces_holding, weights_of
from planaria.guard.restoring import Restoring
from planaria.guard.tiers import TIERS
from planaria.guard.tiers.digest import damaged_tiles
from planaria.guard.unsolved import Unsolved

MOST = 0.5  # share of unproven tiles above which a model may be another one
NAMED = 5  # tensors that a note names
SCALE = (0.5, 2.0)  # of a tensor's root mean square, past which it is not the same tensor any more


@dataclass(frozen=True)
class Examination:
    """A model after digest, copy and parity.

    Attributes:
        overlay: the model with what copy and parity corrected.
        struck: tiles that did not match their digest as they were found, or share a digest with one that did not.
        damaged: those of them that need not be right.
        unproven: those that still do not match.
        changed: those of the unproven that look trained, and stay as they were found.
        unsolved: what the parity left, or None if there is none.
        sound: whether the model looks like another one rather than a damaged one, and is repaired by force.
        notes: what else a person should know, a sentence each.
    """

    overlay: Overlay
    struck: NDArray[np.bool_]
    damaged: NDArray[np.bool_]
    unproven: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    unsolved: Unsolved | None
    sound: bool
    notes: tuple[str, ...] = ()


def examine(
    guard: GuardFile,
    checkpoint: Checkpoint,
    *,
    known: Known | None,
    force: bool,
    threads: int,
    progress: Callable[[int], None],
) -> Examination:
    """Compares every tile with its digest, and lets the tiers correct damaged ones in an overlay: from the places where
    their content is found, from the copy, and with the parity. What looks trained is left as found, unless forced or a
    test is known.

    One pass over the model; two more over each damaged segment's. Memory: a few MiB, the guard's size again, and what
    moved, see `put_back`.

    Raises:
        LooksDifferent: if most tiles changed and the weights still look like weights, unless forced.
        InvalidInput: if digests contradict most of `known`, unless forced.
    """
    layout = guard.layout
    overlay = Overlay(checkpoint, layout)
    damaged = damaged_tiles(guard, overlay, progress)
    if not force:
        require_plausible(guard, overlay, damaged, known)
    unproven = damaged.copy()
    restoring = Restoring(
        guard=guard,
        checkpoint=checkpoint,
        overlay=overlay,
        unproven=unproven,
        known=known,
        threads=threads,
        progress=progress,
        moved=Moved(np.zeros_like(unproven), np.zeros_like(unproven)),
    )
    for tier in TIERS.values():
        tier.restore(restoring)
    moved, unsolved = restoring.moved, restoring.unsolved
    scattered = unsolved is not None and unsolved.scattered  # training leaves no codeword as it was
    sound = known is None and not scattered and bool(unproven.mean() > MOST) and _coherent(guard, overlay, unproven)
    if sound and not force:
        raise LooksDifferent(
            f"{int(unproven.sum())} of {len(unproven)} tiles changed and yet all weights look sound: this is a "
            "fine-tuned or another model and not a damaged one. Protect it anew, or repair it with force=True."
        )
    changed = np.zeros_like(unproven)
    if known is None and not force:
        changed = changed_tiles(guard, overlay, unproven, moved.foreign, unsolved)
    unproven |= changed
    struck = damaged
    if guard.manifest.compact:  # a tile that shares its digest with a damaged one need not be damaged itself
        damaged = unproven.copy()
        damaged[layout.tiles_of(overlay.symbols)] = True
    notes = [note_on(layout, moved.restored, "tensor has", "tensors have", "content that was found at other places")]
    trained = "trained rather than damaged (protect anew, or force=True)"
    notes += [note_on(layout, changed, "tensor looks", "tensors look", trained)]
    return Examination(overlay, struck, damaged, unproven, changed, unsolved, sound, tuple(filter(None, notes)))


def note_on(layout: ByteLayout, tiles: NDArray[np.bool_], singular: str, plural: str, what: str) -> str:
    """A sentence on the tensors that hold any of these tiles, with the names of the first few; "" if there are none."""
    names = [entry.name for at, entry in enumerate(layout.entries) if tiles[layout.tiles_of_tensor(at)].any()]
    if not names:
        return ""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {singular if len(names) == 1 else plural} {what}: {', '.join(names[:NAMED])}{more}"


def _coherent(guard: GuardFile, overlay: Overlay, unproven: NDArray[np.bool_]) -> bool:
    """Whether no weight is far outside the intact range, nothing was zeroed, and every tensor has about its scale."""
    if "statistics" not in guard.arrays:
        return False
    intact, squares, sizes = np.zeros((3, len(guard.entries)))
    for index, piece in pieces_holding(guard.layout, unproven.nonzero()[0]):
        statistics = guard.statistics(index)
        if statistics is None:
            continue
        weight = weights_of(overlay.read(piece.name, piece.start, piece.start + piece.nbytes), piece)
        largest = FAR_OUT * max(abs(statistics.lowest), abs(statistics.highest))
        if (
            not bool((weight.abs() <= largest).all())
            or float((weight == 0).double().mean()) > statistics.zeros + ZEROED
        ):
            return False
        intact[index] = statistics.rms
        squares[index] += float(weight.double().square().sum())
        sizes[index] += weight.numel()
    rms = np.sqrt(squares / np.maximum(sizes, 1))
    return bool(((SCALE[0] * intact <= rms) & (rms <= SCALE[1] * intact))[sizes > 0].all())
