"""Digests of tiles."""

import numpy as np
import pytest
import torch
from blake3 import blake3
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st

from planaria.detectors import Digest, tile_digests
from planaria.errors import InvalidInput

KEY = bytes(range(32))
DTYPES = [torch.float8_e4m3fn, torch.bfloat16, torch.float32, torch.complex64, torch.int64, torch.bool, torch.uint16]


def bits(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Any bits at all, NaN among the floats."""
    numbers = drawn(*shape, seed=seed) * 100
    return (numbers > 0) if dtype == torch.bool else numbers.to(torch.int64).to(dtype)


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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_any_flipped_bit_condemns_exactly_the_weights_of_its_tile(dtype: torch.dtype, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(), (13,), (5, 7), (2, 3, 4)]))
    tile = data.draw(st.integers(1, 40))
    detector = Digest(tile=tile, key=data.draw(st.none() | st.just(KEY)))
    weight = bits(*shape, dtype=dtype)
    record = detector.prepare(weight)
    place, bit = data.draw(st.integers(0, weight.nbytes - 1)), data.draw(st.integers(0, 7))
    broken = weight.clone()
    broken.view(-1).view(torch.uint8)[place] ^= 1 << bit
    assert not same_bits(broken.view(-1).view(torch.uint8), weight.view(-1).view(torch.uint8))
    damaged = ~detector.find(broken, record).flatten()
    size = weight.element_size()
    start = place // tile * tile
    for at, found in enumerate(damaged.tolist()):
        assert found == (at * size < start + tile and (at + 1) * size > start)


def test_only_the_same_key_gives_the_same_digests() -> None:
    content = np.arange(100, dtype=np.uint8)
    digests = [tile_digests(content, tile=10, key=key) for key in (None, KEY, bytes(32))]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (digests[one] != digests[other]).any(1).all()
    weight = drawn(4, 6)
    assert Digest(key=KEY).find(weight, Digest(key=KEY).prepare(weight)).all()
    assert not Digest(key=bytes(32)).find(weight, Digest(key=KEY).prepare(weight)).any()


@pytest.mark.parametrize(("count", "tiles"), [(1, 1), (1024, 1), (1025, 2), (10_000, 10)])
def test_the_record_has_eight_bytes_a_tile(count: int, tiles: int) -> None:
    assert Digest().prepare(drawn(count)).nbytes == 8 * tiles


def test_views_that_are_conjugated_or_negated_count_as_what_they_show() -> None:
    weight = torch.complex(drawn(6), drawn(6, name="imaginary"))
    record = Digest().prepare(weight.conj())
    assert Digest().find(weight.conj().resolve_conj(), record).all()
    assert not Digest().find(weight, record).any()
    assert Digest().find(weight.conj().imag, Digest().prepare(weight.conj().imag.clone())).all()


def test_the_record_of_another_tensor_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"digests \(2, 8\); this weight of 40 bytes in tiles of 4096 has \(1, 8\)"):
        Digest().find(drawn(10), Digest().prepare(drawn(2000)))


def test_wrong_arguments_are_refused_at_once(unchecked: None) -> None:
    for key in (b"", b"short", bytes(33)):
        with pytest.raises(InvalidInput, match=f"exactly 32 bytes, not {len(key)}"):
            Digest(key=key)
    with pytest.raises(InvalidInput, match="at least 1 byte"):
        Digest(tile=0)
    content = np.zeros(10, np.uint8)
    for size in (0, 33):
        with pytest.raises(InvalidInput, match=f"not 5 and {size}"):
            tile_digests(content, tile=5, key=None, size=size)
    for wrong in (content.reshape(2, 5), content.view(np.int8)):
        with pytest.raises(InvalidInput, match="a line of bytes"):
            tile_digests(wrong, tile=5, key=None)
