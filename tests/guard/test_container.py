"""The guard file survives its own damage up to a promised amount, and past it says so."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from models import KEY, random_bytes, scattered, struck
from numpy.typing import NDArray
from safetensors.numpy import load, save

from planaria.codes import ReedSolomon
from planaria.errors import InvalidGuard
from planaria.guard.container import PAGE, PAGE_PROTECTED, Contents, geometry, pack, packed_size, survives_a_lost_page
from planaria.guard.container import unpack as unpacked

Tiers = dict[str, NDArray[Any]]

seeds = st.integers(0, 999)
sizes = st.integers(0, 60_000)


def tiers(nbytes: int, *, seed: int = 0) -> Tiers:
    """Tiers of every type and, together, about so many bytes."""
    parity, rest = nbytes // 3, nbytes - nbytes // 3
    return {
        "statistics": np.arange(24, dtype=np.float32).reshape(3, 8),
        "parity": random_bytes(parity // 2 * 2, seed=seed + 1).view(np.uint16).reshape(1, -1, 1),
        "headers": np.zeros(0, np.uint8),
        "manifest": random_bytes(rest, seed=seed),
    }


def equal(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def whole(found: Contents, arrays: Tiers) -> bool:
    return equal(found.arrays, arrays) and found.broken == ()


def parity_of(content: bytes) -> bytes:
    """The check symbols of a guard, made as FORMAT.md says, and not as the code does."""
    width, check = geometry(len(content))
    data = np.frombuffer(content[: len(content) - 2 * width * check], "<u2")
    rows = np.concatenate([data, np.zeros(-len(data) % width, np.uint16)]).reshape(-1, width)
    return ReedSolomon(check).feed(rows).tobytes()


def resealed(content: bytes) -> bytes:
    """The content with check symbols that fit it, as an attacker leaves it who cannot make the seal."""
    parity = parity_of(content)
    return content[: -len(parity)] + parity


@given(nbytes=sizes, seed=seeds, key=st.none() | st.binary(min_size=32, max_size=32))
def test_what_is_packed_comes_out_again(nbytes: int, seed: int, key: bytes | None) -> None:
    arrays = tiers(nbytes, seed=seed)
    content = pack(arrays, key=key)
    found = unpacked(content, key=key)
    assert whole(found, arrays) and found.mended == 0
    assert len(content) == packed_size(arrays) and len(content) % 2 == 0


@given(nbytes=sizes)
def test_any_reader_of_safetensors_sees_the_tiers_and_the_promised_parity(nbytes: int) -> None:
    arrays = tiers(nbytes)
    content = pack(arrays, key=None)
    seen = load(content)
    assert seen.keys() == arrays.keys() | {"seal", "self"} and equal({name: seen[name] for name in arrays}, arrays)
    assert content.endswith(parity_of(content))


def test_the_order_in_which_tiers_are_given_does_not_matter() -> None:
    arrays = tiers(3000)
    assert pack(dict(reversed(arrays.items())), key=None) == pack(arrays, key=None) == pack(arrays, key=None)


@given(length=st.integers(64, 10**9))
def test_the_code_over_a_guard_is_strong_enough_for_what_is_promised(length: int) -> None:
    width, check = geometry(length)
    symbols = length // 2
    column = -(-symbols // width)
    assert check / 2 >= 0.02 * column + 6 * (0.02 * column) ** 0.5 - 1
    assert column <= 65535
    if survives_a_lost_page(length):
        # At worst a run begins within a symbol, and is cut in two by the end of the data, which may be a short row.
        most = max(-(-first // width) + -(-(PAGE // 2 + 1 - first) // width) for first in (0, 1, width, PAGE // 2))
        assert most <= check / 2


@given(nbytes=sizes, seed=seeds)
def test_one_percent_of_random_bytes_anywhere_is_mended(nbytes: int, seed: int) -> None:
    arrays = tiers(nbytes, seed=seed)
    content = pack(arrays, key=None)
    count = len(content) // 100
    found = unpacked(struck(content, scattered(count, len(content), seed=seed), seed=seed), key=None)
    assert whole(found, arrays) and found.mended == count


LARGE = tiers(31_000)
PACKED = pack(LARGE, key=None)
BOUNDARY = len(PACKED) - len(parity_of(PACKED))  # between the data and the check symbols


@pytest.mark.parametrize(
    "start",
    [
        *range(0, len(PACKED) - PAGE, PAGE),
        len(PACKED) - PAGE,
        *(BOUNDARY - PAGE + step for step in (0, 1, 2, 9, 10, 11, 2047, 2048, 2049, 4085, 4086, 4095, 4096)),
    ],
)
def test_a_lost_page_anywhere_in_a_guard_of_40_kilobytes_is_mended(start: int) -> None:
    assert 35_000 < len(PACKED) < 45_000
    found = unpacked(struck(PACKED, slice(start, start + PAGE)), key=None)
    assert whole(found, LARGE) and found.mended == PAGE


@examples(12)
@given(nbytes=st.integers(30_200, 60_000), place=st.floats(0, 1), near=st.booleans())
def test_a_lost_page_anywhere_in_a_guard_of_32_kilobytes_or_more_is_mended(
    nbytes: int, place: float, near: bool
) -> None:
    arrays = tiers(nbytes)
    content = pack(arrays, key=None)
    assert len(content) >= PAGE_PROTECTED and survives_a_lost_page(len(content))
    boundary = len(content) - len(parity_of(content))
    start = boundary - PAGE + int(place * PAGE) if near else int(place * (len(content) - PAGE))
    zeroed = content[:start] + bytes(PAGE) + content[start + PAGE :]
    for damaged in (struck(content, slice(start, start + PAGE)), zeroed):
        assert whole(unpacked(damaged, key=None), arrays)


@given(nbytes=st.integers(0, 9000), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_mended_to_the_same_bytes(nbytes: int, place: float, bit: int) -> None:
    arrays = tiers(nbytes)
    content = pack(arrays, key=KEY)
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= 1 << bit
    found = unpacked(bytes(damaged), key=KEY)
    assert pack(found.arrays, key=KEY) == content and found.broken == ()
    assert found.mended == 1


@given(nbytes=st.integers(0, 20_000), share=st.floats(0.01, 1), seed=seeds, run=st.booleans())
def test_past_its_strength_no_tier_that_is_wrong_is_taken_for_right(
    nbytes: int, share: float, seed: int, run: bool
) -> None:
    arrays = tiers(nbytes)
    content = pack(arrays, key=None)
    count = round(share * len(content))
    start = seed * (len(content) - count) // 1000
    places = slice(start, start + count) if run else scattered(count, len(content), seed=seed)
    try:
        found = unpacked(struck(content, places, seed=seed), key=None)
    except InvalidGuard:
        return
    assert found.arrays.keys() == arrays.keys()
    right = [name for name in arrays if name not in found.broken]
    assert equal({name: found.arrays[name] for name in right}, {name: arrays[name] for name in right})


@pytest.mark.parametrize("lost", ["parity", "manifest"])
def test_a_tier_lost_beyond_repair_is_named_and_all_others_are_right(lost: str) -> None:
    arrays = tiers(20_000)
    content = pack(arrays, key=None)
    start = content.index(arrays[lost].tobytes())
    found = unpacked(struck(content, slice(start, start + arrays[lost].nbytes)), key=None)
    assert found.broken == (lost,)
    assert all(np.array_equal(found.arrays[name], arrays[name]) for name in arrays if name != lost)


@given(nbytes=st.integers(0, 5000), cut=st.floats(0, 1, exclude_max=True))
def test_a_guard_that_was_cut_short_is_refused(nbytes: int, cut: float) -> None:
    content = pack(tiers(nbytes), key=None)
    with pytest.raises(InvalidGuard):
        unpacked(content[: int(cut * len(content))], key=None)


@pytest.mark.parametrize(
    "content", [b"", b"\0", bytes(999), b"hello " * 99, save({"weight": np.zeros(99, np.float32)})]
)
def test_what_is_no_guard_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidGuard):
        unpacked(content, key=None)


@pytest.mark.parametrize(("made", "given_"), [(KEY, None), (None, KEY), (KEY, KEY[::-1])])
def test_with_another_key_no_tier_counts_as_sound(made: bytes | None, given_: bytes | None) -> None:
    arrays = tiers(2000)
    assert set(unpacked(pack(arrays, key=made), key=given_).broken) == arrays.keys()


@given(place=st.floats(0, 1, exclude_max=True))
def test_a_tier_that_was_changed_with_its_parity_is_named(place: float) -> None:
    arrays = tiers(2000)
    content = bytearray(pack(arrays, key=KEY))
    start = bytes(content).index(arrays["manifest"].tobytes())
    content[start + int(place * arrays["manifest"].nbytes)] ^= 1
    assert unpacked(resealed(bytes(content)), key=KEY).broken == ("manifest",)


@pytest.mark.parametrize("part", [b'"planaria guard"', b"U16", b"[3,8]"])
def test_a_container_that_was_changed_around_sound_tiers_is_refused(part: bytes) -> None:
    content = pack(tiers(2000), key=KEY)
    other = {b'"planaria guard"': b'"planaria GUARD"', b"U16": b"F16", b"[3,8]": b"[8,3]"}[part]
    changed = resealed(content.replace(part, other, 1))
    assert len(changed) == len(content) and changed != content
    with pytest.raises(InvalidGuard):
        unpacked(changed, key=KEY)
