"""Content that stands at the wrong place: tensors that changed places, and runs of tiles that moved."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planaria.guard.byte_layout import CHUNK, SYMBOL, ByteLayout
from planaria.guard.digests import group_digest, hash_group_digests
from planaria.guard.hashing import hasher
from planaria.guard.overlay import Overlay

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile

MOST_TRIALS = 4096  # exchanges of small tensors that are tried: each costs a digest or two of one tile's bytes
LOOKED_UP = 8  # bytes of a digest


@dataclass(frozen=True)
class Moved:
    """What was found at other places. Masks over the model's tiles.

    Attributes:
        restored: tiles whose content was found somewhere else and was put back, proven by their digests.
        foreign: damaged tiles that hold what belongs at another place, and those whose own content was found in them.
    """

    restored: NDArray[np.bool_]
    foreign: NDArray[np.bool_]


def put_back(
    guard: "GuardFile",
    overlay: Overlay,
    unproven: NDArray[np.bool_],
    *,
    proven: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> Moved:
    """Restores damaged tiles whose content is found at another place, and marks in `unproven` those proven again.

    What is found is compared by digest with what is missed: whatever matches is the intact content, bit for bit. Only
    whole hash groups count, or, where their digests are lost, whole groups; and one tensor of a hash group of several,
    or two. Content that was copied over other content restores nothing but what it is a copy of.

    Cost: one pass over the damaged tiles, and one over what moved; 24 bytes for each tile of the model. Memory: what
    moved is held in the overlay, at up to 10 bytes for each of its symbols, before a first byte is written, since
    places that changed content need each other's.

    Args:
        proven: all tiles that are proven by the digests that these tiles have a part in.
    """
    moved = Moved(np.zeros_like(unproven), np.zeros_like(unproven))
    if not unproven.any():
        return moved
    unit_of, stored = _units(guard)
    units = np.unique(unit_of[unproven])
    found = _found(guard, overlay, units)
    # Where all content matches, longer digests do not: those that match are not to be trusted.
    missed = found != stored[units]
    units, found = units[missed], found[missed]
    moved.foreign[np.isin(unit_of, units[np.isin(found, stored)])] = True
    now = stored.copy()
    now[units] = found
    order = np.argsort(now, kind="stable")
    at = np.searchsorted(now[order], stored[units]).clip(max=len(order) - 1)
    sources = order[at]
    exists = now[sources] == stored[units]
    targets, sources = _tile_by_tile(overlay.layout, unit_of, units[exists], sources[exists])
    if len(targets):
        _write(overlay, targets, sources, unproven, proven)
        restored = targets[~unproven[targets]]
        moved.restored[restored] = True
        moved.foreign[targets[np.isin(unit_of[sources], units)]] = True
    if "digest.tiles" in guard.arrays:
        targets, sources = _exchanged(guard, overlay, unproven)
        if len(targets):
            _write(overlay, targets, sources, unproven, proven)
            moved.restored[targets] |= ~unproven[targets]
            moved.foreign[targets] = moved.foreign[sources] = True
    return moved


def _units(guard: "GuardFile") -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """By tile, the number of what its digest is of, ascending; and the first bytes of each digest."""
    layout = guard.layout
    if "digest.tiles" in guard.arrays:
        return layout.hash_group_of, _starts(guard.arrays["digest.tiles"].view(np.uint8))
    tensors = layout.tensors_of(np.arange(layout.tiles))
    return layout.group_of[tensors], _starts(guard.arrays["digest.tensors"].view(np.uint8))


def _starts(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :LOOKED_UP]).view(np.uint64).ravel()


def _found(guard: "GuardFile", overlay: Overlay, units: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The start of the digest of what is found in these units."""
    if "digest.tiles" in guard.arrays:
        return _starts(hash_group_digests(overlay, guard.layout, units, key=guard.key))
    digests = [group_digest(overlay, guard.layout, int(group), key=guard.key) for group in units]
    return _starts(np.frombuffer(b"".join(digests), np.uint8).reshape(len(units), -1))


def _tile_by_tile(
    layout: ByteLayout, unit_of: NDArray[np.int64], units: NDArray[np.int64], sources: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tiles of these units, ascending, and where the content of each is found, in units made up alike."""

    def bounds(units: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.searchsorted(unit_of, units), np.searchsorted(unit_of, units, side="right")

    (begins, ends), (others, others_end) = bounds(units), bounds(sources)
    as_many = ends - begins == others_end - others
    begins, others, counts = begins[as_many], others[as_many], (ends - begins)[as_many]
    unit = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(unit)) - np.repeat(counts.cumsum() - counts, counts)
    targets, found = begins[unit] + within, others[unit] + within
    alike = np.ones(len(counts), bool)
    alike[unit[_nbytes(layout, targets) != _nbytes(layout, found)]] = False
    return targets[alike[unit]], found[alike[unit]]


def _nbytes(layout: ByteLayout, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of each of these tiles."""
    tensors = layout.tensors_of(tiles)
    sizes = np.array([entry.nbytes for entry in layout.entries], np.int64)
    return np.minimum(layout.tile, sizes[tensors] - (tiles - np.asarray(layout.first_tiles)[tensors]) * layout.tile)


def _write(
    overlay: Overlay,
    targets: NDArray[np.int64],
    sources: NDArray[np.int64],
    unproven: NDArray[np.bool_],
    proven: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> None:
    """Puts what is found in some tiles into others, all at once; takes back what its digest does not prove."""
    layout = overlay.layout
    found = [(np.empty(0, np.int64), np.empty(0, np.uint16))]
    for target, source, count in _runs(layout, targets, sources):
        (name, start, stop), (origin, other_start, _) = (
            next(layout.bytes_of(np.arange(first, first + count))) for first in (target, source)
        )
        for begin in range(0, stop - start, CHUNK):
            end = min(begin + CHUNK, stop - start)
            padded = np.zeros(-(-(end - begin) // SYMBOL) * SYMBOL, np.uint8)
            padded[: end - begin] = overlay.read(name, start + begin, start + end)
            padded[: end - begin] ^= overlay.read(origin, other_start + begin, other_start + end)
            values = padded.view("<u2")
            changed = values.nonzero()[0]
            found.append((layout.start_of(name) + (start + begin) // SYMBOL + changed, values[changed]))
    symbols, values = (np.concatenate(part) for part in zip(*found, strict=True))
    overlay.xor(symbols, values)
    unproven[proven(np.sort(targets))] = False
    wrong = unproven[layout.tiles_of(symbols)]
    if wrong.any():  # the model changed since its digests were taken, or the guard contradicts itself
        overlay.xor(symbols[wrong], values[wrong])


def _runs(layout: ByteLayout, targets: NDArray[np.int64], sources: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Neighbours that moved together, as (first target, first source, count); no run crosses tensors."""
    tensors = [np.searchsorted(layout.first_tiles, tiles, side="right") for tiles in (targets, sources)]
    apart = (np.diff(targets) != 1) | (np.diff(sources) != 1)
    for tensor in tensors:
        apart |= np.diff(tensor) != 0
    for begin, end in pairwise([0, *(apart.nonzero()[0] + 1), len(targets)]):
        yield int(targets[begin]), int(sources[begin]), int(end - begin)


def _exchanged(
    guard: "GuardFile", overlay: Overlay, unproven: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tiles, ascending, in hash groups of several, and where the content of each is found: as in `_tile_by_tile`.

    One tile of a hash group, or two of the same, whose content is found at the same place of an alike tensor. A hash
    group in which more than that moved is not found.
    """
    layout = guard.layout
    shared = np.bincount(layout.hash_group_of, minlength=layout.hash_groups) > 1
    alike: dict[tuple[object, ...], list[int]] = {}
    for tile in (unproven & shared[layout.hash_group_of]).nonzero()[0].tolist():
        tensor = int(np.searchsorted(layout.first_tiles, tile, side="right")) - 1
        entry = layout.entries[tensor]
        alike.setdefault((entry.shape, entry.dtype, tile - layout.first_tiles[tensor]), []).append(tile)
    found: dict[int, int] = {}
    solved: set[int] = set()
    trials = 0
    for target, source in (pair for tiles in alike.values() for pair in permutations(tiles, 2)):
        hash_group, partner = (int(layout.hash_group_of[tile]) for tile in (target, source))
        if hash_group in solved:
            continue
        if (trials := trials + 1) > MOST_TRIALS:
            break
        instead = {target: source} if hash_group != partner else {target: source, source: target}
        if _matches_exchanged(guard, overlay, hash_group, instead):
            solved.add(hash_group)
            found |= instead
    targets = np.array(sorted(found), np.int64)
    return targets, np.array([found[tile] for tile in targets.tolist()], np.int64)


def _matches_exchanged(guard: "GuardFile", overlay: Overlay, hash_group: int, instead: dict[int, int]) -> bool:
    """Whether a hash group matches its digest with other tiles instead of some of its own."""
    digest = hasher(guard.key)
    for tile in guard.layout.tiles_in(np.array([hash_group])).tolist():
        for place in guard.layout.bytes_of(np.array([instead.get(tile, tile)])):
            digest.update(overlay.read(*place).data)
    stored = guard.arrays["digest.tiles"][hash_group]
    return digest.digest(length=stored.nbytes) == stored.tobytes()
