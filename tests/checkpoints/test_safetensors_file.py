"""Safetensors files, read and written in place, sound and damaged."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import (
    all_bytes,
    as_bytes,
    every_dtype,
    file_of,
    header_of,
    no_descriptor_left,
    noise,
    small,
    tensor,
)
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.torch import save

from planaria.checkpoints import SafetensorsFile, open_checkpoint
from planaria.errors import InvalidFile, InvalidInput, OtherModel, OutputFailed

SMALL = save(small(), metadata={"format": "pt"})
HEADER = header_of(SMALL)
GIVEN = {"model.safetensors": HEADER}


def written(folder: Path, content: bytes = SMALL) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def flipped(content: bytes, bit: int) -> bytes:
    broken = bytearray(content)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


def test_bytes_are_those_that_the_library_reads_for_every_dtype(tmp_path: Path) -> None:
    content = save(every_dtype())
    with open_checkpoint(written(tmp_path, content)) as checkpoint:
        assert all_bytes(checkpoint) == {name: bytes(info["data"]) for name, info in deserialize(content)}
        assert all_bytes(checkpoint) == as_bytes(every_dtype())


def test_entries_are_in_the_order_of_the_file_and_the_header_is_its_first_bytes(tmp_path: Path) -> None:
    with open_checkpoint(written(tmp_path)) as checkpoint:
        assert b"".join(all_bytes(checkpoint).values()) == SMALL[len(HEADER) :]
        assert checkpoint.headers == GIVEN
        assert (checkpoint.aliases, checkpoint.truncated(), checkpoint.header_damaged) == ({}, {}, False)


@given(ends=st.tuples(st.integers(0, 120), st.integers(0, 120)).map(sorted))
def test_a_piece_is_that_piece_of_the_whole_and_the_callers_own(ends: list[int], tmp_path: Path) -> None:
    with open_checkpoint(written(tmp_path)) as checkpoint:
        whole, piece = checkpoint.read("first.weight"), checkpoint.read("first.weight", *ends)
        assert piece.dtype == np.uint8
        assert np.array_equal(piece, whole[slice(*ends)])
        piece[:] = 0
        assert np.array_equal(checkpoint.read("first.weight"), whole)


@given(start=st.integers(0, 120), count=st.integers(0, 120), seed=st.integers(0, 9))
def test_writing_changes_those_bytes_of_the_file_and_no_others(
    start: int, count: int, seed: int, tmp_path: Path
) -> None:
    content = noise(min(count, 120 - start), seed=seed).numpy()
    path = written(tmp_path)
    with open_checkpoint(path, writable=True) as checkpoint:
        checkpoint.write("first.weight", start, content)
        assert np.array_equal(checkpoint.read("first.weight", start, start + len(content)), content)
        first = len(HEADER) + checkpoint.entries["first.weight"].start + start
    assert path.read_bytes() == SMALL[:first] + content.tobytes() + SMALL[first + len(content) :]


def test_a_strided_array_is_written_as_its_numbers_stand(tmp_path: Path) -> None:
    content = np.arange(20, dtype=np.uint8)[::-2]
    with open_checkpoint(written(tmp_path), writable=True) as checkpoint:
        checkpoint.write("first.weight", 3, content)
        assert np.array_equal(checkpoint.read("first.weight", 3, 13), content)


def test_a_read_that_answers_in_bits_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda file, parts, start: preadv(file, [parts[0][:7]], start))
    monkeypatch.setattr(os, "pwrite", lambda file, content, start: pwrite(file, content[:7], start))
    content = noise(120, seed=1).numpy()
    with open_checkpoint(written(tmp_path), writable=True) as checkpoint:
        assert all_bytes(checkpoint) == as_bytes(small())
        checkpoint.write("first.weight", 0, content)
        assert np.array_equal(checkpoint.read("first.weight"), content)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 121), (121, 121), (121, None)])
def test_a_range_outside_the_tensor_is_refused(start: int, stop: int | None, tmp_path: Path) -> None:
    with open_checkpoint(written(tmp_path)) as checkpoint, pytest.raises(InvalidInput, match="bytes 0 to 120"):
        checkpoint.read("first.weight", start, stop)


def test_what_cannot_be_written_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = written(tmp_path)
    line = np.zeros(4, np.uint8)
    with open_checkpoint(path, writable=True) as checkpoint:
        for name, start, content in [
            ("first.weight", 117, line),
            ("first.weight", -1, line),
            ("nowhere", 0, line),
            ("first.weight", 0, line.astype(np.int8)),
            ("first.weight", 0, line.reshape(2, 2)),
        ]:
            with pytest.raises(InvalidInput):
                checkpoint.write(name, start, content)
    with open_checkpoint(path) as checkpoint:
        with pytest.raises(InvalidInput, match="writable=True"):
            checkpoint.write("first.weight", 0, line)
        with pytest.raises(InvalidInput, match="writable=True"):
            checkpoint.write_headers()
    assert path.read_bytes() == SMALL


def test_a_closed_file_is_read_no_more(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(written(tmp_path), writable=True)
    checkpoint.close()
    checkpoint.close()
    with pytest.raises(ValueError, match="closed"):
        checkpoint.read("steps")


def test_a_failing_disk_is_an_output_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    checkpoint = open_checkpoint(written(tmp_path), writable=True)
    monkeypatch.setattr(os, "pwrite", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputFailed, match=r"model\.safetensors: No space left"):
        checkpoint.write("steps", 0, np.zeros(1, np.uint8))
    with pytest.raises(OutputFailed, match=r"model\.safetensors: No space left"):
        checkpoint.close()


def test_a_file_that_must_not_be_written_is_an_output_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("planaria.checkpoints.safetensors_file.io.FileIO", refuse)
    with pytest.raises(OutputFailed, match="Permission denied"):
        SafetensorsFile(written(tmp_path), writable=True)
    with pytest.raises(PermissionError):
        SafetensorsFile(written(tmp_path))


@pytest.mark.parametrize("content", [b"", SMALL[:-1], SMALL + b"\0", SMALL[: len(HEADER) // 2], b"text" * 100])
def test_a_damaged_file_without_a_guard_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with no_descriptor_left(), pytest.raises(InvalidFile) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")


@given(bit=st.integers(0, len(HEADER) * 8 - 1))
@examples(200)
def test_any_flipped_bit_of_the_header_is_told_and_mended_by_the_guards(bit: int, tmp_path: Path) -> None:
    path = written(tmp_path, flipped(SMALL, bit))
    with open_checkpoint(path, headers=GIVEN, writable=True) as checkpoint:
        assert checkpoint.header_damaged
        assert checkpoint.headers == GIVEN
        assert all_bytes(checkpoint) == as_bytes(small())
        checkpoint.write_headers()
        assert not checkpoint.header_damaged
    assert path.read_bytes() == SMALL


def test_a_header_that_is_gone_is_told_and_mended_by_the_guards(tmp_path: Path) -> None:
    path = written(tmp_path, bytes(noise(len(HEADER)).tolist()) + SMALL[len(HEADER) :])
    with open_checkpoint(path, headers=GIVEN, writable=True) as checkpoint:
        assert checkpoint.header_damaged
        assert all_bytes(checkpoint) == as_bytes(small())
        checkpoint.write_headers()
    assert path.read_bytes() == SMALL


def test_a_sound_file_is_not_touched_by_mending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoint(written(tmp_path), headers=GIVEN, writable=True) as checkpoint:
        monkeypatch.setattr(os, "pwrite", None)
        assert not checkpoint.header_damaged
        checkpoint.write_headers()


@given(length=st.integers(0, len(SMALL)))
def test_a_truncated_file_opens_with_the_guards_header_and_tells_what_it_lacks(length: int, tmp_path: Path) -> None:
    path = written(tmp_path, SMALL[:length])
    with open_checkpoint(path, headers=GIVEN, writable=True) as checkpoint:
        assert checkpoint.header_damaged == (length < len(HEADER))
        lacking = dict(checkpoint.truncated())
        for name, whole in as_bytes(small()).items():
            start, stop = lacking.get(name, (len(whole), len(whole)))
            assert stop == len(whole)
            assert checkpoint.read(name).tobytes() == whole[:start] + bytes(len(whole) - start)
        assert sum(stop - start for start, stop in lacking.values()) == min(
            len(SMALL) - length, len(SMALL) - len(HEADER)
        )
        checkpoint.write_headers()
        for name, (start, _) in lacking.items():
            checkpoint.write(name, start, np.frombuffer(as_bytes(small())[name][start:], np.uint8))
        assert checkpoint.truncated() == {}
    assert path.read_bytes() == SMALL


def test_a_file_that_shrinks_while_open_reads_as_zero(tmp_path: Path) -> None:
    path = written(tmp_path)
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, len(HEADER))
        assert not any(any(content) for content in all_bytes(checkpoint).values())
        assert checkpoint.truncated().keys() == checkpoint.entries.keys()


def test_a_file_that_grew_opens_with_the_guards_header(tmp_path: Path) -> None:
    with open_checkpoint(written(tmp_path, SMALL + b"more"), headers=GIVEN) as checkpoint:
        assert all_bytes(checkpoint) == as_bytes(small())
        assert checkpoint.truncated() == {}


def test_a_file_saved_again_is_read_by_its_own_header_in_the_guards_order(tmp_path: Path) -> None:
    names = list(small())[::-1]
    table, start, data = {}, 0, b""
    for name in names:
        content = as_bytes(small())[name]
        dtype = {"first.weight": "F32", "first.bias": "BF16", "steps": "I64"}[name]
        shape = list(small()[name].shape)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(content)]}
        start, data = start + len(content), data + content
    again = file_of(table, data)
    with open_checkpoint(written(tmp_path), headers=GIVEN) as first:
        order = list(first.entries)
    with open_checkpoint(written(tmp_path, again), headers=GIVEN) as checkpoint:
        assert list(checkpoint.entries) == order != names
        assert all_bytes(checkpoint) == as_bytes(small())
        assert checkpoint.headers == {"model.safetensors": header_of(again)}
        assert not checkpoint.header_damaged


def test_a_guard_goes_with_a_renamed_file(tmp_path: Path) -> None:
    path = written(tmp_path).rename(tmp_path / "copy.safetensors")
    with open_checkpoint(path, headers=GIVEN) as checkpoint:
        assert checkpoint.headers == {"copy.safetensors": HEADER}


def test_another_model_is_refused_by_its_first_differences(tmp_path: Path) -> None:
    other = {
        "first.weight": tensor(torch.float32, 5, 6),
        "first.bias": tensor(torch.float16, 7),
        "steps": tensor(torch.int64),
    }
    refusal = r"F32 \[5, 6\] and not F32 \[6, 5\]; .*F16 \[7\] and not BF16 \[7\]\. "
    with pytest.raises(OtherModel, match=refusal):
        open_checkpoint(written(tmp_path, save(other)), headers=GIVEN)
    for model, refusal in [
        (small() | {"extra": tensor(torch.float32, 1)}, "'extra' is not in the guard"),
        ({"steps": small()["steps"]}, "'first.weight' is missing"),
        ({f"layer{index}": tensor(torch.float32, 1) for index in range(4)}, "and 4 more"),
        ({"second" + name[5:]: value for name, value in small().items()}, "'second.weight' is not in|is missing"),
    ]:
        with pytest.raises(OtherModel, match=refusal):
            open_checkpoint(written(tmp_path, save(model)), headers=GIVEN)


def test_another_model_of_a_nearly_equal_header_is_refused(tmp_path: Path) -> None:
    names = [f"layer{index}.weight" for index in range(30)]
    one = {name: tensor(torch.float32, 2, 3) for name in names}
    headers = {"model.safetensors": header_of(save(one))}
    with pytest.raises(OtherModel, match=r"'layer7.weight' is F32 \[3, 2\]"):
        open_checkpoint(written(tmp_path, save(one | {"layer7.weight": tensor(torch.float32, 3, 2)})), headers=headers)


def test_a_guard_of_a_model_in_memory_opens_a_sound_file_and_cannot_mend_its_header(tmp_path: Path) -> None:
    with open_checkpoint(small()) as checkpoint:
        headers = checkpoint.headers
    with open_checkpoint(written(tmp_path), headers=headers) as checkpoint:
        assert list(checkpoint.entries) == list(small())
        assert all_bytes(checkpoint) == as_bytes(small())
    with pytest.raises(InvalidFile, match="in memory"):
        open_checkpoint(written(tmp_path, bytes(8) + SMALL[8:]), headers=headers)


def test_a_guard_of_many_files_is_not_of_one(tmp_path: Path) -> None:
    with pytest.raises(OtherModel, match="2 files"):
        open_checkpoint(written(tmp_path), headers={"one": HEADER, "two": HEADER})


def test_pieces_of_a_gigabyte_are_read_without_holding_it(tmp_path: Path) -> None:
    size = 2**30
    path = written(tmp_path, file_of({"big": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}))
    os.truncate(path, path.stat().st_size + size)
    tracemalloc.start()
    try:
        with open_checkpoint(path, writable=True) as checkpoint:
            for start in range(0, size, 2**28):
                assert not checkpoint.read("big", start, start + 1000).any()
            checkpoint.write("big", size - 9, np.arange(9, dtype=np.uint8))
            assert checkpoint.read("big", size - 2).tolist() == [7, 8]
            assert checkpoint.truncated() == {}
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
