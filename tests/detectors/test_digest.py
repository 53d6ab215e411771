"""Digests of tiles."""

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from planaria.detectors import tile_digests
from planaria.errors import InvalidInput

KEY = bytes(range(32))


@given(content=st.binary(max_size=300), tile=st.integers(1, 400), size=st.integers(1, 32), key=st.none() | st.just(KEY))
def test_a_digest_is_the_blake3_of_its_tile(content: bytes, tile: int, size: int, key: bytes | None) -> None:
    digests = tile_digests(np.frombuffer(content, np.uint8), tile=tile, key=key, size=size)
    tiles = [content[start : start + tile] for start in range(0, len(content), tile)]
    assert digests.shape == (len(tiles), size) and digests.dtype == np.uint8
    for part, digest in zip(tiles, digests, strict=True):
        hasher = blake3(part, key=key) if key else blake3(part)
        assert digest.tobytes() == hasher.digest()[:size]


def test_bytes_that_are_not_contiguous_have_the_digests_of_their_copy() -> None:
    content = np.arange(250, dtype=np.uint8)
    content.flags.writeable = False
    assert np.array_equal(
        tile_digests(content[::2], tile=50, key=None), tile_digests(content[::2].copy(), tile=50, key=None)
    )


def test_only_the_same_key_gives_the_same_digests() -> None:
    content = np.arange(100, dtype=np.uint8)
    digests = [tile_digests(content, tile=10, key=key) for key in (None, KEY, bytes(32))]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (digests[one] != digests[other]).any(1).all()


def test_wrong_arguments_are_refused_at_once(unchecked: None) -> None:
    content = np.zeros(10, np.uint8)
    for key in (b"", b"short", bytes(33)):
        with pytest.raises(InvalidInput, match=f"exactly 32 bytes, not {len(key)}"):
            tile_digests(content, tile=5, key=key)
    with pytest.raises(InvalidInput, match="at least 1 byte"):
        tile_digests(content, tile=0, key=None)
    for size in (0, 33):
        with pytest.raises(InvalidInput, match=f"not 5 and {size}"):
            tile_digests(content, tile=5, key=None, size=size)
    for wrong in (content.reshape(2, 5), content.view(np.int8)):
        with pytest.raises(InvalidInput, match="a line of bytes"):
            tile_digests(wrong, tile=5, key=None)
