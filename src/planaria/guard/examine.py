"""Finding damage and correcting what a code can: digest, then parity, then the digest again as proof."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint, Entry
from planaria.errors import LooksDifferent
from planaria.guard import parity
from planaria.guard.changed import FAR_OUT, ZEROED, changed_tiles
from planaria.guard.codewords import Unsolved
from planaria.guard.digests import bundle_digests, group_digest
from planaria.guard.draft import Draft
from planaria.guard.file import GuardFile
from planaria.guard.gate import writable_bits
from planaria.guard.known import Known, require_plausible
from planaria.guard.moved import put_back
from planaria.guard.pieces import pieces, weights_of
from planaria.guard.stream import SYMBOL, Stream

MOST = 0.5  # share of unproven tiles above which a model may be another one
NAMED = 5  # tensors that a note names
SCALE = (0.5, 2.0)  # of a tensor's root mean square, past which it is not the same tensor any more


@dataclass(frozen=True)
class Examination:
    """A model after digest, copy and parity.

    Attributes:
        draft: the model with what copy and parity corrected.
        struck: tiles that did not match their digest as they were found, or share a digest with one that did not.
        damaged: those of them that need not be right.
        unproven: those that still do not match.
        changed: those of the unproven that look trained, and stay as they were found.
        unsolved: what the parity left, or None if there is none.
        sound: whether the model looks like another one rather than a damaged one, and is repaired by force.
        notes: what else a person should know, a sentence each.
    """

    draft: Draft
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
    """Compares every tile with its digest, and corrects damaged ones in a draft: from the places where their content is
    found, from the copy, and with the parity. What looks trained is left as found, unless forced or a test is known.

    One pass over the model; two more over each damaged segment's. Memory: a few MiB, the guard's size again, and what
    moved, see `put_back`.

    Raises:
        LooksDifferent: if most tiles changed and the weights still look like weights, unless forced.
        InvalidInput: if digests contradict most of `known`, unless forced.
    """
    stream = guard.stream
    draft = Draft(checkpoint, stream)
    damaged = damaged_tiles(guard, draft, progress)
    if not force:
        require_plausible(guard, draft, damaged, known)
    unproven = damaged.copy()
    moved = put_back(guard, draft, unproven, proven=lambda tiles: _proven(guard, draft, tiles))
    _copy_back(guard, draft, unproven)
    unsolved = None
    shape = guard.manifest.parity
    if shape is not None and "parity" in guard.arrays and unproven.any():
        unsolved = parity.correct(
            draft,
            stream,
            shape,
            guard.arrays["parity"].astype(np.uint16, copy=False),
            unproven,
            lost=_lost_symbols(guard, checkpoint),
            suspects=lambda tiles: _broken_symbols(guard, draft, tiles, known),
            proven=lambda tiles: _proven(guard, draft, tiles),
            writable=lambda symbols: writable_bits(stream, symbols, known),
            threads=threads,
            progress=progress,
        )
    scattered = unsolved is not None and unsolved.scattered  # training leaves no codeword as it was
    sound = known is None and not scattered and bool(unproven.mean() > MOST) and _coherent(guard, draft, unproven)
    if sound and not force:
        raise LooksDifferent(
            f"{int(unproven.sum())} of {len(unproven)} tiles changed and yet all weights look sound: this is a "
            "fine-tuned or another model and not a damaged one. Protect it anew, or repair it with --force."
        )
    changed = np.zeros_like(unproven)
    if known is None and not force:
        changed = changed_tiles(guard, draft, unproven, moved.foreign, unsolved)
    unproven |= changed
    struck = damaged
    if guard.manifest.lean:  # a tile that shares its digest with a damaged one need not be damaged itself
        damaged = unproven.copy()
        damaged[stream.tiles_of(draft.symbols)] = True
    notes = [note_on(stream, moved.restored, "tensor has", "tensors have", "content that was found at other places")]
    trained = "trained rather than damaged (protect anew, or --force)"
    notes += [note_on(stream, changed, "tensor looks", "tensors look", trained)]
    return Examination(draft, struck, damaged, unproven, changed, unsolved, sound, tuple(filter(None, notes)))


def note_on(stream: Stream, tiles: NDArray[np.bool_], one: str, many: str, told: str) -> str:
    """A sentence on the tensors that hold any of these tiles, with the names of the first few; "" if there are none."""
    names = [entry.name for at, entry in enumerate(stream.entries) if tiles[stream.tiles_of_tensor(at)].any()]
    if not names:
        return ""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {one if len(names) == 1 else many} {told}: {', '.join(names[:NAMED])}{more}"


def damaged_tiles(
    guard: GuardFile, draft: Draft, progress: Callable[[int], None] = lambda count: None
) -> NDArray[np.bool_]:
    """Tiles of bundles that do not match. A group that matches is hashed in one pass, without its bundles."""
    stream = guard.stream
    damaged = np.zeros(stream.tiles, bool)
    for group in range(stream.groups):
        tensors = stream.tensors_in(group)
        tiles = np.arange(stream.first_tiles[tensors.start], stream.first_tiles[tensors.stop])
        if "digest.tensors" not in guard.arrays or not _matches(guard, draft, group):
            damaged[tiles] = True
            proven = _proven(guard, draft, tiles)
            # Tiles that all match in a group that does not: their shorter digests were forged.
            if len(proven) < len(tiles) or "digest.tensors" not in guard.arrays:
                damaged[proven] = False
        progress(sum(stream.entries[tensor].nbytes for tensor in tensors))
    return damaged


def _lost_symbols(guard: GuardFile, checkpoint: Checkpoint) -> NDArray[np.float64] | None:
    """By tile, how many of its symbols, at least, are wrong since the file ends before it; None if it is whole.

    What is not there reads as zeros, which some weights may have been: as many as the statistics say.
    """
    stream, cut = guard.stream, checkpoint.truncated()
    lost = np.zeros(stream.tiles)
    for name, (there, nbytes) in cut.items():
        index, bounds = stream.index[name], stream.tiles_of_tensor(stream.index[name])
        first, statistics = -(-there // stream.tile), guard.statistics(index)
        entry = guard.entries[index]
        weights = stream.tile * prod(entry.shape) / nbytes
        lost[bounds.start + first : bounds.stop] = 1.0 if statistics is None else weights * (1 - statistics.zeros)
    return lost if cut else None


def _copy_back(guard: GuardFile, draft: Draft, unproven: NDArray[np.bool_]) -> None:
    """Replaces damaged tiles of tensors that the guard holds a copy of, and marks in `unproven` those proven again.

    A copy is as well proven as a digest, by the guard's seal: where a tile shares its digest with others, which may
    be broken, it needs no other proof.
    """
    stream = guard.stream
    for index in guard.manifest.copied:
        bounds, content, name = stream.tiles_of_tensor(index), guard.copy_of(index), guard.entries[index].name
        if content is None or not unproven[bounds].any():
            continue
        for tile in unproven[bounds].nonzero()[0]:
            start = int(tile) * stream.tile
            found = draft.read(name, start, min(start + stream.tile, len(content))).copy()
            draft.replace(name, start, content[start : start + stream.tile])
            proven = _proven(guard, draft, np.array([bounds.start + tile]))
            unproven[proven] = False
            if guard.manifest.lean:
                unproven[bounds.start + tile] = False
            elif not len(proven):
                draft.replace(name, start, found)


def _proven(guard: GuardFile, draft: Draft, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """All tiles of those bundles of these tiles that match; without bundles' digests, of groups that match."""
    stream = guard.stream
    if "digest.tiles" not in guard.arrays:
        tensors = np.searchsorted(stream.first_tiles, tiles, side="right") - 1
        whole = [group for group in np.unique(stream.group_of[tensors]) if _matches(guard, draft, int(group))]
        bounds = [stream.tiles_of_tensor(of) for group in whole for of in stream.tensors_in(group)]
        return np.concatenate([np.empty(0, np.int64), *(np.arange(of.start, of.stop) for of in bounds)])
    bundles = np.unique(stream.bundle_of[tiles])
    digests = bundle_digests(draft, stream, bundles, key=guard.key)
    return stream.tiles_in(bundles[(digests == guard.arrays["digest.tiles"][bundles]).all(1)])


def _matches(guard: GuardFile, draft: Draft, group: int) -> bool:
    return group_digest(draft, guard.stream, group, key=guard.key) == guard.arrays["digest.tensors"][group].tobytes()


def _broken_symbols(guard: GuardFile, draft: Draft, tiles: NDArray[np.int64], known: Known | None) -> NDArray[np.int64]:
    """Symbols of these tiles that a hardware test, or their plain impossibility, shows to be broken; ascending."""
    stream = guard.stream
    found = [np.empty(0, np.int64)]
    for index, piece in _pieces(guard, tiles):
        if known is not None and piece.name not in known:
            continue
        if known is not None:
            whole = known[piece.name].flatten()
            nbytes, count = guard.entries[index].nbytes, whole.numel()
            broken = ~whole[piece.start * count // nbytes : (piece.start + piece.nbytes) * count // nbytes]
        elif (of := guard.statistics(index)) is not None:
            content = draft.read(piece.name, piece.start, piece.start + piece.nbytes)
            broken = of.broken(weights_of(content, piece)).flatten()
        else:
            continue
        weights = broken.numpy().nonzero()[0]
        bits = piece.nbytes * 8 // len(broken)  # some types have fewer than 8, and weights that share a symbol
        begins, ends = weights * bits // (8 * SYMBOL), ((weights + 1) * bits - 1) // (8 * SYMBOL)
        reach = np.arange(int((ends - begins).max(initial=0)) + 1)
        symbols = np.minimum(begins[:, None] + reach, ends[:, None]).ravel()
        new = np.diff(symbols, prepend=-1) > 0  # they ascend
        found.append(stream.starts[index] + piece.start // SYMBOL + symbols[new])
    symbols = np.concatenate(found)
    asked = np.zeros(stream.tiles, bool)
    asked[tiles] = True
    return symbols[asked[stream.tiles_of(symbols)]]


def _coherent(guard: GuardFile, draft: Draft, unproven: NDArray[np.bool_]) -> bool:
    """Whether no weight is far outside the intact range, nothing was zeroed, and every tensor has about its scale."""
    if "statistics" not in guard.arrays:
        return False
    intact, squares, sizes = np.zeros((3, len(guard.entries)))
    for index, piece in _pieces(guard, unproven.nonzero()[0]):
        of = guard.statistics(index)
        if of is None:
            continue
        weight = weights_of(draft.read(piece.name, piece.start, piece.start + piece.nbytes), piece)
        largest = FAR_OUT * max(abs(of.lowest), abs(of.highest))
        if not bool((weight.abs() <= largest).all()) or float((weight == 0).double().mean()) > of.zeros + ZEROED:
            return False
        intact[index] = of.rms
        squares[index] += float(weight.double().square().sum())
        sizes[index] += weight.numel()
    rms = np.sqrt(squares / np.maximum(sizes, 1))
    return bool(((SCALE[0] * intact <= rms) & (rms <= SCALE[1] * intact))[sizes > 0].all())


def _pieces(guard: GuardFile, tiles: NDArray[np.int64]) -> Iterator[tuple[int, Entry]]:
    """The pieces, with their tensors, that hold any of these tiles, ascending."""
    stream = guard.stream
    for index in np.unique(np.searchsorted(stream.first_tiles, tiles, side="right") - 1).tolist():
        first = stream.first_tiles[index]
        for piece in pieces(stream.entries[index], stream.tile):
            low = first + piece.start // stream.tile
            high = first + -(-(piece.start + piece.nbytes) // stream.tile)
            if np.searchsorted(tiles, low) < np.searchsorted(tiles, high):
                yield index, piece
