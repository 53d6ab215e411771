"""Guards of version 3: small tensors share digests, headers come without offsets, only large tensors are measured."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import KEY, bytes_of, copied, crowd, crowd_guard, same, write
from safetensors.torch import save

from planaria.checkpoints import Entry
from planaria.errors import InvalidGuard, InvalidInput
from planaria.guard import Guard, protect
from planaria.guard.byte_layout import GROUP, ByteLayout
from planaria.guard.headers import pack_headers, unpack_headers


def flipped(place: float, bit: int) -> tuple[dict[str, torch.Tensor], str]:
    """The model with one bit of it flipped, counted through all tensors; and in which."""
    tensors, contents = copied(crowd()), bytes_of(crowd())
    at = int(place * sum(len(content) for content in contents.values()))
    for name, content in contents.items():
        if at < len(content):
            tensors[name].view(-1).view(torch.uint8)[at] ^= 1 << bit
            return tensors, name
        at -= len(content)
    raise AssertionError(place)


def test_a_model_of_many_small_tensors_has_a_compact_guard_and_others_have_not() -> None:
    guard = crowd_guard()
    assert guard.manifest.version == 3 and guard.manifest.parity is not None
    assert guard.layout.hash_groups < guard.layout.tiles / 2 and guard.layout.groups == 1
    assert len(guard.arrays["digest.tiles"]) == guard.layout.hash_groups
    measured = [index for index in range(len(guard.entries)) if guard.statistics(index) is not None]
    assert guard.entries[measured[-1]].name == "head.bias" or "head.weight" in [guard.entries[i].name for i in measured]
    assert protect(crowd(), budget=0.8, tiers=("digest", "parity")).manifest.version == 1
    assert protect({"weight": torch.randn(300, 300)}, budget=0.06, tiers=("digest",)).manifest.version == 1


def test_it_is_read_as_it_was_written_and_finds_its_model_intact(tmp_path: Path) -> None:
    file = write(tmp_path, crowd())
    for model in (crowd(), file):
        guard = protect(model, budget=0.06, tiers=("digest", "parity"))
        again = Guard.from_bytes(guard.to_bytes())
        assert guard.manifest.compact and again.to_bytes() == guard.to_bytes() and again.size == guard.size
        assert again.check(model).verdict == "intact"
        assert again.headers == guard.headers
    assert again.headers["model.safetensors"] == file.read_bytes()[: len(again.headers["model.safetensors"])]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_named_and_restored(place: float, bit: int) -> None:
    damaged, name = flipped(place, bit)
    report = crowd_guard().repair(damaged)
    assert report.verdict == "exact" and same(damaged, crowd())
    assert [tensor.name for tensor in report.tensors if tensor.regions] == [name]


def test_copies_are_restored_though_others_of_their_hash_group_are_lost() -> None:
    guard = protect(crowd(), budget=0.25, tiers=("digest", "copy"))
    assert guard.manifest.compact and guard.manifest.copied
    damaged = {name: torch.zeros_like(tensor) for name, tensor in crowd().items()}
    report = guard.repair(damaged, force=True)
    copied_names = [guard.entries[index].name for index in guard.manifest.copied]
    assert {"layers.3.norm", "layers.3.scale"} <= set(copied_names)
    assert all(torch.equal(damaged[name], crowd()[name]) for name in copied_names)
    verdicts = {tensor.name: {region.verdict for region in tensor.regions} for tensor in report.tensors}
    assert verdicts["layers.3.norm"] == {"exact"} and verdicts["layers.3.weight"] == {"lost"}
    assert guard.check(damaged, force=True).verdict == "lost"


def test_of_tensors_that_were_not_measured_what_is_absurd_takes_the_median() -> None:
    guard = protect(crowd(), budget=0.06, tiers=("digest",))
    index = guard.layout.index["layers.5.norm"]
    assert guard.statistics(index) is None
    damaged = copied(crowd())
    absurd = torch.tensor([torch.nan, torch.inf, 1e9, -1.0, 1e-9])
    damaged["layers.5.norm"][1:6] = absurd
    damaged["layers.5.norm"][7] = 3.0
    report = guard.repair(damaged)
    assert report.verdict == "lost" and report.exit_code == 2
    others = torch.cat([crowd()["layers.5.norm"][[0, 6]], torch.tensor([3.0]), crowd()["layers.5.norm"][8:]])
    assert (damaged["layers.5.norm"][1:6] == others.median()).all() and damaged["layers.5.norm"][7] == 3
    others = {name: tensor for name, tensor in crowd().items() if name != "layers.5.norm"}
    assert same({name: damaged[name] for name in others}, others)


@given(sizes=st.lists(st.integers(0, 700), max_size=30), tile=st.sampled_from([64, 128, 256]))
def test_hash_groups_hold_neighbours_and_no_more_than_a_tile(sizes: list[int], tile: int) -> None:
    entries = [Entry(str(index), "U8", (size,), size) for index, size in enumerate(sizes)]
    layout = ByteLayout(entries, tile=tile, grouped=True)
    begins, ends = layout.tile_bounds(np.arange(layout.tiles))
    nbytes = np.array([min(tile, size - start) for size in sizes for start in range(0, size, tile)], dtype=np.int64)
    assert len(nbytes) == layout.tiles == len(layout.hash_group_of) and (ends - begins == -(-nbytes // 2)).all()
    assert (np.diff(layout.hash_group_of, prepend=0) >= 0).all() and (
        np.diff(layout.hash_group_of, prepend=0) <= 1
    ).all()
    filled = np.bincount(layout.hash_group_of, weights=nbytes, minlength=layout.hash_groups)
    assert (filled <= tile).all() and len(filled) == layout.hash_groups
    for hash_group in range(1, layout.hash_groups):  # no tile had room in the hash group before
        first = int(layout.tiles_in(np.array([hash_group]))[0])
        assert filled[hash_group - 1] + nbytes[first] > tile
    assert sum(len(layout.tensors_in(group)) for group in range(layout.groups)) == len(sizes)
    plain = ByteLayout(entries, tile=tile)
    assert plain.hash_groups == plain.tiles and plain.groups == len(sizes)


def test_a_group_is_a_large_tensor_or_a_mebibyte_of_small_ones() -> None:
    entries = [Entry(str(index), "U8", (size,), size) for index, size in enumerate([10, GROUP, 5, GROUP - 5, 1, 0, 2])]
    assert ByteLayout(entries, tile=4096, grouped=True).group_of.tolist() == [0, 1, 2, 2, 3, 3, 3]


HEADER = save(crowd())
HEADER = HEADER[: 8 + int.from_bytes(HEADER[:8], "little")]


def test_headers_are_packed_without_their_offsets_and_unpacked_with_them() -> None:
    bare, full = (pack_headers([HEADER], bare=bare) for bare in (True, False))
    assert len(bare) < 0.7 * len(full)
    for packed, is_bare in ((bare, True), (full, False)):
        assert unpack_headers(packed, [len(HEADER)], bare=is_bare) == [HEADER]


def without_canon(header: bytes) -> bytes:
    table = json.loads(header[8:])
    return len(text := json.dumps(table, indent=1).encode()).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "headers",
    [
        [HEADER, HEADER],
        [HEADER, b'{"weight_map":{}}', HEADER],
        [without_canon(HEADER)],
        [HEADER, without_canon(HEADER), HEADER],
        [HEADER.replace(b"[0,", b"[1,")],
        [HEADER.replace(b'"I8"', b'"I9"')],
        [b""],
        [b"", HEADER, b""],
    ],
)
def test_headers_of_any_kind_come_back_to_the_byte(headers: list[bytes]) -> None:
    packed = pack_headers(headers, bare=True)
    assert unpack_headers(packed, [len(header) for header in headers], bare=True) == headers


@pytest.mark.parametrize("shape", [b"9" * 400, b"9999999999999999999,9999999999999999999", b",", b"1,,2", b"7"])
def test_offsets_that_cannot_be_are_refused_before_they_grow(shape: bytes) -> None:
    content = b'{"a":{"dtype":"F32","shape":[%s]}}' % shape + b'{"dtype":"U8","shape":[]}' * 50
    with pytest.raises(InvalidGuard):
        unpack_headers(pack_headers([content], bare=False), [len(content)], bare=True)


def test_a_guard_of_more_rows_than_floats_is_refused() -> None:
    guard = crowd_guard()
    arrays = dict(guard.arrays)
    arrays["statistics"] = np.zeros((60, 8), np.float32)
    with pytest.raises(InvalidGuard, match=re.escape("statistics")):
        Guard.from_bytes(Guard(guard.manifest, arrays).to_bytes())


def test_tensors_without_weights_may_stand_beside_small_ones_that_held_no_numbers() -> None:
    odd = torch.full((3, 3), -torch.inf).triu(1)
    guard = protect(crowd() | {"empty": torch.zeros(0, 4), "odd": odd}, budget=0.06, tiers=("digest", "parity"))
    assert [guard.entries[index].name for index in guard.manifest.not_finite] == ["odd"]


@given(odd=st.integers(1, 12), key=st.sampled_from([None, KEY]), excess=st.floats(1.0, 1.5))
def test_whatever_the_budget_the_tensors_that_held_no_numbers_are_those_without_statistics_that_did(
    odd: int, key: bytes | None, excess: float
) -> None:
    masks = {f"mask.{number}": torch.full((3, 3 + number), -torch.inf).triu(1) for number in range(odd)}
    model = crowd() | masks
    with pytest.raises(InvalidInput, match="too small") as refusal:
        protect(model, budget=1e-6, tiers="digest", key=key)
    least = float(str(refusal.value).split("bytes, ")[1].split(" %")[0]) / 100
    guard = protect(model, budget=min(1.0, least * excess), tiers="digest", key=key)
    unmeasured = {guard.entries[index].name for index in range(len(guard.entries)) if guard.statistics(index) is None}
    assert {guard.entries[index].name for index in guard.manifest.not_finite} == (
        masks.keys() & unmeasured if guard.manifest.compact else set()
    )
    assert Guard.from_bytes(guard.to_bytes(), key=key).check(model).verdict == "intact"
