"""Digests of a model's hash groups and groups. Specified in FORMAT.md, section 4."""

import numpy as np
from numpy.typing import NDArray

from planaria.detectors.digest import tile_digests
from planaria.guard.byte_layout import CHUNK, ByteLayout, Readable
from planaria.guard.hashing import hasher

GROUP_DIGEST_BYTES = 16
HASH_GROUP_DIGEST_BYTES = 8


def hash_group_digests(
    content: Readable, layout: ByteLayout, hash_groups: NDArray[np.int64], *, key: bytes | None
) -> NDArray[np.uint8]:
    """Of each of these hash groups, ascending. Cost: one pass over them, a few MiB at a time."""
    digests = np.empty((len(hash_groups), HASH_GROUP_DIGEST_BYTES), np.uint8)
    tiles = layout.tiles_in(hash_groups)
    place, count = np.unique(layout.hash_group_of[tiles], return_inverse=True, return_counts=True)[1:]
    lone = count[place] == 1
    at_once = max(CHUNK // layout.tile, 1) * layout.tile
    found = [np.empty((0, HASH_GROUP_DIGEST_BYTES), np.uint8)]
    for name, start, stop in layout.bytes_of(tiles[lone]):
        for begin in range(start, stop, at_once):
            part = content.read(name, begin, min(begin + at_once, stop))
            found.append(tile_digests(part, tile=layout.tile, key=key, size=HASH_GROUP_DIGEST_BYTES))
    digests[count == 1] = np.concatenate(found)
    for hash_group in (count > 1).nonzero()[0]:
        digest = hasher(key)
        for name, start, stop in layout.bytes_of(tiles[place == hash_group]):
            digest.update(content.read(name, start, stop).data)
        digests[hash_group] = np.frombuffer(digest.digest(length=HASH_GROUP_DIGEST_BYTES), np.uint8)
    return digests


def group_digest(content: Readable, layout: ByteLayout, group: int, *, key: bytes | None) -> bytes:
    """Of all bytes of a group's tensors, one after the other. Cost: one pass over them."""
    digest = hasher(key)
    for tensor in layout.tensors_in(group):
        entry = layout.entries[tensor]
        for start in range(0, entry.nbytes, CHUNK):
            digest.update(content.read(entry.name, start, min(start + CHUNK, entry.nbytes)).data)
    return digest.digest(length=GROUP_DIGEST_BYTES)
