"""Folders of shards, sound and damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import all_bytes, as_bytes, header_of, no_descriptor_left, noise, shards, small, write_index

from planaria.checkpoints import ShardedFolder, open_checkpoint
from planaria.checkpoints.header import INDEX, expected_entries
from planaria.errors import InvalidFile, InvalidInput, OtherModel

SHARDS = ["part-1.safetensors", "part-2.safetensors"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tensors_come_shard_after_shard_with_the_bytes_that_were_saved(tmp_path: Path) -> None:
    with open_checkpoint(shards(tmp_path)) as checkpoint:
        assert all_bytes(checkpoint) == as_bytes(small())
        assert list(checkpoint.entries)[-1] == "first.weight"
        assert checkpoint.entries == expected_entries({name: checkpoint.headers[name] for name in SHARDS})
        assert list(checkpoint.entries) == list(expected_entries({name: checkpoint.headers[name] for name in SHARDS}))
        assert (checkpoint.aliases, checkpoint.truncated(), checkpoint.header_damaged) == ({}, {}, False)


def test_headers_are_those_of_the_shards_and_the_whole_index(tmp_path: Path) -> None:
    with open_checkpoint(shards(tmp_path)) as checkpoint:
        files = contents(tmp_path)
        assert checkpoint.headers == {INDEX: files.pop(INDEX)} | {name: header_of(files[name]) for name in SHARDS}


def test_writing_changes_those_bytes_of_one_shard(tmp_path: Path) -> None:
    before = contents(shards(tmp_path))
    content = noise(9, seed=5).numpy()
    with open_checkpoint(tmp_path, writable=True) as checkpoint:
        checkpoint.write("first.weight", 11, content)
        start = len(checkpoint.headers[SHARDS[1]]) + 11
    whole = before[SHARDS[1]]
    assert contents(tmp_path) == before | {SHARDS[1]: whole[:start] + content.tobytes() + whole[start + 9 :]}


def test_every_damage_of_headers_and_sizes_is_told_and_mended(tmp_path: Path) -> None:
    before = contents(shards(tmp_path))
    with open_checkpoint(tmp_path) as checkpoint:
        headers = dict(checkpoint.headers)
    for name, broken in [
        (SHARDS[0], b"\xff" * 20 + before[SHARDS[0]][20:]),
        (SHARDS[1], before[SHARDS[1]][:-3]),
        (INDEX, b"no index"),
        (INDEX, before[INDEX].replace(b"1000.0", b"1001.0")),
        (INDEX, None),
    ]:
        if broken is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes(broken)
        with open_checkpoint(tmp_path, headers=headers, writable=True) as checkpoint:
            assert checkpoint.header_damaged == (name != SHARDS[1])
            assert checkpoint.truncated() == ({} if name != SHARDS[1] else {"first.weight": (117, 120)})
            assert checkpoint.headers == headers
            for tensor, whole in as_bytes(small()).items():
                checkpoint.write(tensor, 0, np.frombuffer(whole, np.uint8))
            checkpoint.write_headers()
            assert not checkpoint.header_damaged
        assert contents(tmp_path) == before


def test_mending_wants_a_writable_folder(tmp_path: Path) -> None:
    with open_checkpoint(shards(tmp_path)) as checkpoint, pytest.raises(InvalidInput, match="writable=True"):
        checkpoint.write_headers()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (shards(tmp_path) / SHARDS[1]).unlink()
    with pytest.raises(FileNotFoundError, match=SHARDS[1]):
        open_checkpoint(tmp_path)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=INDEX):
        ShardedFolder(tmp_path)


MAP = {"first.weight": SHARDS[1], "first.bias": SHARDS[0], "steps": SHARDS[0]}
BROKEN: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "no sound JSON"),
    "deep": (b"[" * 200_000, "no sound JSON"),
    "a list": ([MAP], "no sound JSON"),
    "a name twice": (json.dumps({"weight_map": MAP}).replace("steps", "first.bias").encode(), "twice"),
    "no map": ({}, "no weight_map"),
    "a list for a map": ({"weight_map": list(MAP)}, "no weight_map"),
    "a number for a file": ({"weight_map": MAP | {"steps": 1}}, "no weight_map"),
    "a file above": ({"weight_map": MAP | {"steps": "../part-1.safetensors"}}, "plain name"),
    "an absolute file": ({"weight_map": MAP | {"steps": "/etc/passwd"}}, "plain name"),
    "a file below": ({"weight_map": MAP | {"steps": "below\\part-1.safetensors"}}, "plain name"),
    "the folder above": ({"weight_map": MAP | {"steps": ".."}}, "plain name"),
    "no file name": ({"weight_map": MAP | {"steps": ""}}, "plain name"),
    "a NUL": ({"weight_map": MAP | {"steps": "part\0"}}, "plain name"),
    "a tensor too few": (
        {"weight_map": {name: MAP[name] for name in ["first.weight", "steps"]}},
        "disagree.*first.bias",
    ),
    "a tensor too many": ({"weight_map": MAP | {"extra": SHARDS[0]}}, "disagree.*extra"),
    "a tensor astray": ({"weight_map": MAP | {"steps": SHARDS[1]}}, "disagree.*steps"),
}


@pytest.mark.parametrize(("index", "refusal"), BROKEN.values(), ids=BROKEN)
def test_a_broken_index_is_refused(index: object, refusal: str, tmp_path: Path) -> None:
    write_index(shards(tmp_path), index)
    with pytest.raises(InvalidFile, match=refusal):
        open_checkpoint(tmp_path)


def test_an_endless_index_is_refused_unread(tmp_path: Path) -> None:
    with (shards(tmp_path) / INDEX).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidFile, match="longer"):
        open_checkpoint(tmp_path)


def test_a_guards_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    with open_checkpoint(shards(tmp_path)) as checkpoint:
        headers = dict(checkpoint.headers)
    headers[INDEX] = json.dumps({"weight_map": MAP | {"steps": "../out.safetensors"}}).encode()
    with pytest.raises(InvalidFile, match="plain name"):
        open_checkpoint(tmp_path, headers=headers)


def test_a_guards_index_and_headers_name_the_same_shards(tmp_path: Path) -> None:
    with open_checkpoint(shards(tmp_path)) as checkpoint:
        headers = dict(checkpoint.headers)
    with pytest.raises(InvalidFile, match="guard has headers"):
        open_checkpoint(tmp_path, headers={name: headers[name] for name in [INDEX, SHARDS[0]]})


def test_a_guard_of_shards_fits_the_model_in_memory_in_the_guards_order(tmp_path: Path) -> None:
    with open_checkpoint(shards(tmp_path)) as folder, open_checkpoint(small(), headers=folder.headers) as memory:
        assert list(memory.entries) == list(folder.entries)
        assert all_bytes(memory) == all_bytes(folder)


def test_a_guard_of_one_file_is_not_of_shards(tmp_path: Path) -> None:
    with pytest.raises(OtherModel, match="not in shards"):
        ShardedFolder(shards(tmp_path), headers={"model.safetensors": b""})


def test_a_shard_that_is_not_sound_is_refused_by_name_and_all_are_closed(tmp_path: Path) -> None:
    (shards(tmp_path) / SHARDS[1]).write_bytes(b"")
    with no_descriptor_left(), pytest.raises(InvalidFile, match=SHARDS[1]) as caught:
        open_checkpoint(tmp_path)
    assert SHARDS[0] not in str(caught.value)


def test_closing_closes_every_shard(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(shards(tmp_path))
    checkpoint.close()
    for name in checkpoint.entries:
        with pytest.raises(ValueError, match="closed"):
            checkpoint.read(name)
