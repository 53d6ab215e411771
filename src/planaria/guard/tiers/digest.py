"""The digest tier: which tiles are as they were, and content that stands at the wrong place.

Specified in FORMAT.md, section 4. All other tiers are proven by digests, so every guard has them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Checkpoint, Entry
from planaria.detectors import Outlier
from planaria.detectors.digest import tile_digests
from planaria.errors import InvalidGuard, InvalidInput
from planaria.guard.byte_layout import ByteLayout
from planaria.guard.container import packed_size
from planaria.guard.digests import GROUP_DIGEST_BYTES, HASH_GROUP_DIGEST_BYTES, group_digest, hash_group_digests
from planaria.guard.hashing import hasher
from planaria.guard.headers import pack_headers
from planaria.guard.manifest import COMPACT, NOT_FINITE, Manifest
from planaria.guard.moved import put_back
from planaria.guard.overlay import Overlay
from planaria.guard.pieces import PIECE, pieces, weights_of
from planaria.guard.statistics import FLOATS, STORED, Statistics, largest_floats, measured_tensors
from planaria.guard.tiers.base import Arrays, Tier, require_array

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making
    from planaria.guard.restoring import Restoring

TILES = (4096, 8192, 16384, 32768, 65536, 2**20)
SHARE = 0.125  # of the budget; a finer tile than that takes would starve the parity
COMPACT_SAVES = 0.1  # of the budget; else small tensors keep digests of their own, which tell damage apart
STATISTICS_SHARE = 0.05  # of the budget, for the compact form

LaidOut = tuple[Manifest, ByteLayout, Arrays]


class DigestTier(Tier):
    """Digests of tiles and tensors, and statistics that tell broken weights where no code can."""

    name = "digest"

    def plan(self, making: "Making") -> None:
        """Digests and statistics, which were laid out before there was a guard in the making. One pass."""
        while True:
            odd = tuple(_read(making))
            if not making.manifest.compact or odd == making.manifest.not_finite:
                return
            read, tile = making.arrays, making.layout.tile
            manifest = replace(making.manifest, version=NOT_FINITE, not_finite=odd)
            laid_out = _with_finest_tile(manifest, making.checkpoint, making.allowed)
            _require_room(laid_out, making.allowed)
            making.manifest, making.layout, making.arrays = laid_out
            if making.layout.tile == tile and _shapes(making.arrays) == _shapes(read):
                making.arrays |= {name: array for name, array in read.items() if name != "headers"}
                return
            # The few bytes that tell of them made the tiles coarser or the statistics fewer: never the other way.

    def validate(self, guard: "GuardFile") -> None:
        layout = guard.layout
        require_array(guard, "digest.tensors", np.uint8, (layout.groups, GROUP_DIGEST_BYTES))
        require_array(guard, "digest.tiles", np.uint8, (layout.hash_groups, HASH_GROUP_DIGEST_BYTES))
        statistics = guard.arrays.get("statistics", np.empty((0, STORED), np.float32))
        rows = len(layout.entries)
        if guard.manifest.compact:
            rows = min(len(statistics), sum(entry.dtype in FLOATS for entry in layout.entries))
        if rows or "statistics" in guard.arrays:
            require_array(guard, "statistics", np.float32, (rows, STORED))
        # Where all weights are equal, the limits of the detector's scores are no numbers.
        if "statistics" not in guard.lost and np.isnan(np.delete(statistics, (4, 5), axis=1)).any():
            raise InvalidGuard("The guard's statistics are not all numbers.")
        odd = guard.manifest.not_finite
        if odd and odd[-1] >= len(layout.entries):
            raise InvalidGuard(f"The guard speaks of tensor {odd[-1]}, and the model has {len(layout.entries)}.")

    def restore(self, restoring: "Restoring") -> None:
        """Puts back content that is found at another place."""
        restoring.moved = put_back(restoring.guard, restoring.overlay, restoring.unproven, proven=restoring.proven)


def lay_out(manifest: Manifest, checkpoint: Checkpoint, allowed: int) -> LaidOut:
    """What every guard has, in arrays of the sizes that they will have: compact if that saves enough, or with a key.

    Raises `InvalidInput` if that alone takes more than is allowed.
    """
    compact = _with_finest_tile(replace(manifest, version=COMPACT), checkpoint, allowed)
    plain = compact if manifest.key else _with_finest_tile(manifest, checkpoint, allowed)
    sizes = [_size(manifest, arrays) for manifest, _, arrays in (plain, compact)]
    if min(sizes) > allowed and (odd := _not_finite(checkpoint, compact)):  # to name a size that does
        compact = _with_finest_tile(replace(compact[0], version=NOT_FINITE, not_finite=odd), checkpoint, allowed)
        plain = compact if manifest.key else plain
    _require_room(min(plain, compact, key=lambda plan: _size(plan[0], plan[2])), allowed)
    return plain if sizes[0] <= min(allowed, sizes[1] + COMPACT_SAVES * allowed) else compact


def _not_finite(checkpoint: Checkpoint, laid_out: LaidOut) -> tuple[int, ...]:
    """The tensors without statistics in which some values are no numbers. One pass over these."""
    _, layout, arrays = laid_out
    measured = largest_floats(layout.entries, len(arrays.get("statistics", ())))
    return tuple(
        index
        for index, entry in enumerate(layout.entries)
        if entry.dtype in FLOATS
        and entry.nbytes
        and index not in measured
        and not all(
            weights_of(checkpoint.read(entry.name, piece.start, piece.start + piece.nbytes), piece).isfinite().all()
            for piece in pieces(entry, layout.tile)
        )
    )


def _require_room(laid_out: LaidOut, allowed: int) -> None:
    """Raises `InvalidInput` if this guard takes more than is allowed."""
    manifest, layout, arrays = laid_out
    if (size := _size(manifest, arrays)) > allowed:
        raise InvalidInput(
            f"A budget of {allowed:,} bytes is too small: the smallest guard of this model takes {size:,} bytes, "
            f"{100.5 * size / layout.nbytes:.3g} %. Raise the budget."  # never rounded down
        )


def _with_finest_tile(manifest: Manifest, checkpoint: Checkpoint, allowed: int) -> LaidOut:
    """With the finest tile whose digests leave room for the rest."""
    entries, headers = tuple(checkpoint.entries.values()), list(checkpoint.headers.values())
    measured = len(entries)
    if manifest.compact:
        row = STORED * np.dtype(np.float32).itemsize
        measured = len(largest_floats(entries, int(STATISTICS_SHARE * allowed) // row))
    packed = np.frombuffer(pack_headers(headers, bare=manifest.compact), np.uint8)
    for tile in TILES:
        layout = ByteLayout(entries, tile=tile, grouped=manifest.compact)
        manifest = replace(manifest, tile=tile)
        arrays: Arrays = {
            "headers": packed,
            "digest.tensors": np.zeros((layout.groups, GROUP_DIGEST_BYTES), np.uint8),
            "digest.tiles": np.zeros((layout.hash_groups, HASH_GROUP_DIGEST_BYTES), np.uint8),
        }
        statistics: Arrays = {"statistics": np.zeros((measured, STORED), np.float32)}
        if measured and (not manifest.compact or _size(manifest, arrays | statistics) <= allowed):
            arrays |= statistics
        size = _size(manifest, arrays)
        if layout.hash_groups * HASH_GROUP_DIGEST_BYTES <= SHARE * allowed and size <= allowed:
            break
    return manifest, layout, arrays


def _size(manifest: Manifest, arrays: Arrays) -> int:
    """Bytes of the guard file of arrays of these sizes."""
    return packed_size({"manifest": manifest.encode(), **arrays})


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items() if name != "headers"}


def _read(making: "Making") -> list[int]:
    """Digests and statistics in one pass; the tensors without statistics in which some values are no numbers."""
    layout, arrays, tile = making.layout, making.arrays, making.layout.tile
    rows = len(arrays.get("statistics", ()))
    row_of = {
        index: row for row, index in enumerate(measured_tensors(layout.entries, rows, compact=making.manifest.compact))
    }
    shared = (np.bincount(layout.hash_group_of) > 1)[layout.hash_group_of] if layout.tiles else np.zeros(0, bool)
    open_hash_group, hash_group_digest = -1, hasher(making.key)
    odd, done = [], 0
    for group in range(layout.groups):
        group_digest = hasher(making.key)
        for index in layout.tensors_in(group):
            entry, parts = layout.entries[index], []
            for piece in _pieces(entry, tile):
                content = making.checkpoint.read(entry.name, piece.start, piece.start + piece.nbytes)
                group_digest.update(content.data)
                first, count = layout.first_tiles[index] + piece.start // tile, -(-piece.nbytes // tile)
                alone = count - bool(count and shared[first + count - 1])  # only a tensor's last tile shares a digest
                if alone:
                    digests = tile_digests(
                        content[: alone * tile], tile=tile, key=making.key, size=HASH_GROUP_DIGEST_BYTES
                    )
                    arrays["digest.tiles"][layout.hash_group_of[first : first + alone]] = digests
                if alone < count:
                    if (hash_group := int(layout.hash_group_of[first + alone])) != open_hash_group:
                        open_hash_group, hash_group_digest = hash_group, hasher(making.key)
                    hash_group_digest.update(content[alone * tile :].data)
                    digest = hash_group_digest.digest(length=HASH_GROUP_DIGEST_BYTES)
                    arrays["digest.tiles"][hash_group] = np.frombuffer(digest, np.uint8)
                if entry.dtype in FLOATS and piece.nbytes:
                    weights = weights_of(content, piece)
                    if index in row_of:
                        parts.append((Statistics.of(weights, Outlier()), piece.nbytes))
                    elif index not in odd and not bool(weights.isfinite().all()):
                        odd.append(index)
                done += piece.nbytes
                making.progress(done, layout.nbytes, "digests")
            if index in row_of:
                merged = Statistics.merged([part for part, _ in parts], [size for _, size in parts])
                arrays["statistics"][row_of[index]] = merged.row
        digest = group_digest.digest(length=GROUP_DIGEST_BYTES)
        arrays["digest.tensors"][group] = np.frombuffer(digest, np.uint8)
    return odd


def _pieces(entry: Entry, tile: int) -> Sequence[Entry]:
    """A tensor in parts that begin with a tile; those that its statistics are made of, if it has any."""
    if entry.dtype in FLOATS:
        return list(pieces(entry, tile))
    step = max(PIECE // tile, 1) * tile
    starts = range(0, entry.nbytes, step)
    return [Entry(entry.name, entry.dtype, (), min(step, entry.nbytes - start), start) for start in starts]


def damaged_tiles(
    guard: "GuardFile",
    overlay: Overlay,
    progress: Callable[[int], None] = lambda count: None,
    *,
    within: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Tiles of hash groups that do not match; of all, or of those groups that hold tiles in `within`.

    A group that matches is hashed in one pass, without its hash groups.
    """
    layout = guard.layout
    damaged = np.zeros(layout.tiles, bool)
    groups = np.arange(layout.groups)
    if within is not None:
        groups = np.unique(layout.group_of[layout.tensors_of(within.nonzero()[0])])
    for group in groups.tolist():
        tensors = layout.tensors_in(group)
        tiles = np.arange(layout.first_tiles[tensors.start], layout.first_tiles[tensors.stop])
        if "digest.tensors" not in guard.arrays or not _matches(guard, overlay, group):
            damaged[tiles] = True
            overlay.keep(tiles)
            proven = proven_tiles(guard, overlay, tiles)
            # Tiles that all match in a group that does not: their shorter digests were forged.
            if len(proven) < len(tiles) or "digest.tensors" not in guard.arrays:
                damaged[proven] = False
        progress(sum(layout.entries[tensor].nbytes for tensor in tensors))
    return damaged


def proven_tiles(guard: "GuardFile", overlay: Overlay, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """All tiles of those hash groups of these tiles that match; without hash_groups' digests, of groups that match."""
    layout = guard.layout
    if "digest.tiles" not in guard.arrays:
        groups = np.unique(layout.group_of[layout.tensors_of(tiles)])
        whole = [group for group in groups if _matches(guard, overlay, int(group))]
        bounds = [layout.tiles_of_tensor(span) for group in whole for span in layout.tensors_in(group)]
        return np.concatenate([np.empty(0, np.int64), *(np.arange(span.start, span.stop) for span in bounds)])
    hash_groups = np.unique(layout.hash_group_of[tiles])
    digests = hash_group_digests(overlay, layout, hash_groups, key=guard.key)
    return layout.tiles_in(hash_groups[(digests == guard.arrays["digest.tiles"][hash_groups]).all(1)])


def _matches(guard: "GuardFile", overlay: Overlay, group: int) -> bool:
    return group_digest(overlay, guard.layout, group, key=guard.key) == guard.arrays["digest.tensors"][group].tobytes()
