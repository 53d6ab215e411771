"""Files that are missing, empty, cut, or something else than a model: restored exactly, or told and left alone."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import drawn, same_bits
from models import random_bits
from safetensors.torch import load_file, save_file
from shard_folders import shards_of
from torch import Tensor

from planaria import command_line
from planaria.codes import ReedSolomon
from planaria.errors import InvalidFile
from planaria.guard import Guard, protect

PLAIN = ("digest", "parity")
MODELS: dict[str, dict[str, Tensor]] = {
    "float32": {"wide": drawn(40, 50), "small": drawn(7, 50), "next": drawn(40, 40)},
    "bfloat16": {"wide": drawn(70, 60).bfloat16(), "small": drawn(21, 33).bfloat16(), "next": drawn(37, 99).half()},
    "int8": {"wide": random_bits(torch.int8, 80, 90), "small": random_bits(torch.int8, 20, 77), "one": drawn(1299)},
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 2147483648\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>" + "Nöt found. ".encode() * 40 + b"</body></html>"


def content(what: str, intact: bytes) -> bytes | None:
    """What lies in the place of a file of these bytes; None if nothing does."""
    header = 8 + int.from_bytes(intact[:8], "little")
    return {
        "missing": None,
        "empty": b"",
        "pointer": POINTER,
        "page": PAGE,
        "long page": PAGE * 200,
        "json": json.dumps({"error": "Repository not found"}).encode(),
        "text": b"Entry not found",
        "zip": b"PK\x03\x04" + bytes(range(256)) * (len(intact) // 256),
        "zeros": bytes(len(intact)),
        "zeros behind the header": intact[:header] + bytes(len(intact) - header),
        "ones": b"\xff" * len(intact),
        "no weight": intact[:header],
        "cut": intact[: len(intact) * 2 // 3],
    }[what]


TOLD = {
    "missing": "a missing file",
    "empty": "an empty file",
    "pointer": "a git-lfs pointer",
    "page": "a web page",
    "long page": "a web page",
    "json": "a JSON message",
    "text": "is text",
    "zip": "a zip archive",
    "zeros": "all zeros",
    "zeros behind the header": "all zeros",
    "ones": "the byte ff over and over",
    "no weight": "cut off before its first weight",
}


def put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.fixture(params=MODELS)
def tensors(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return MODELS[request.param]


@pytest.mark.parametrize("what", ["missing", "empty", "pointer", "long page", "zeros", "no weight", "cut"])
def test_a_small_shard_that_is_gone_is_restored_bit_for_bit(
    what: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = shards_of(tmp_path / "model", tensors)
    guard = protect(folder, budget=0.25, tiers=PLAIN)
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    put(folder / "part-1.safetensors", content(what, intact["part-1.safetensors"]))
    damaged = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert guard.check(folder).verdict == "exact"
    assert guard.repair(folder, tmp_path / "out").verdict == "exact"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == damaged
    assert guard.repair(folder, in_place=True).verdict == "exact"
    for repaired in (folder, tmp_path / "out"):
        assert {path.name: path.read_bytes() for path in repaired.iterdir()} == intact


@pytest.mark.parametrize("what", ["missing", "empty", "pointer", "page", "zeros behind the header"])
def test_a_large_shard_that_is_no_model_is_named_and_nothing_is_written(
    what: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = shards_of(tmp_path / "model", tensors)
    guard = protect(folder, budget=0.1, tiers=PLAIN)
    put(folder / "part-0.safetensors", content(what, (folder / "part-0.safetensors").read_bytes()))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for use in (guard.check, partial(guard.repair, in_place=True)):
        with pytest.raises(InvalidFile, match=f"part-0.safetensors .*{TOLD[what]}.*fetch it again") as caught:
            use(folder)
        assert str(caught.value).startswith(str(folder)) and len(str(caught.value).splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("what", [what for what in TOLD if what != "missing"])
def test_a_file_that_is_no_model_is_named_unless_its_weights_are_to_be_estimated(
    what: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.1, tiers=PLAIN)
    put(path, content(what, path.read_bytes()))
    before = path.read_bytes()
    for use in (guard.check, partial(guard.repair, in_place=True)):
        with pytest.raises(InvalidFile, match=f"{TOLD[what]}.*fetch it again"):
            use(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert guard.check(path, force=True).exit_code == 2
    assert guard.repair(path, force=True, in_place=True).exit_code == 2
    assert load_file(path).keys() == tensors.keys()


def test_a_file_cut_past_the_parity_is_estimated_as_ever(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.1, tiers=PLAIN)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert guard.repair(path, in_place=True).exit_code == 2


def test_a_page_of_text_within_a_model_is_damage_like_any_other(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.25, tiers=PLAIN)
    intact = path.read_bytes()
    path.write_bytes((PAGE * 9)[:1024] + intact[1024:])
    assert guard.repair(path, in_place=True).verdict == "exact"
    assert path.read_bytes() == intact


def test_zeros_that_belong_there_are_no_damage(tmp_path: Path) -> None:
    tensors = {"biases": torch.zeros(3000), "wide": drawn(60, 60)}
    folder = shards_of(tmp_path / "model", tensors)
    guard = protect(folder, budget=0.1, tiers=PLAIN)
    assert guard.check(folder).verdict == "intact"
    put(folder / "part-0.safetensors", b"")
    assert guard.repair(folder, in_place=True).verdict == "exact"
    assert same_bits(load_file(folder / "part-0.safetensors")["biases"], tensors["biases"])


@pytest.mark.parametrize("what", ["pointer", "page", "json", "zeros", "empty"])
def test_the_command_line_says_it_in_one_line_and_exits_with_six(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, guard = tmp_path / "model.safetensors", tmp_path / "guard"
    save_file(MODELS["float32"], path)
    protect(path, budget=0.1, tiers=PLAIN).save(guard)
    put(path, content(what, path.read_bytes()))
    before = path.read_bytes()
    others = [["protect", str(path), "-o", str(tmp_path / "new")]] if what != "zeros" else []
    for arguments in (["check", str(path)], ["repair", str(path), "--in-place"], *others):
        given = arguments if arguments[0] == "protect" else [*arguments, "--guard", str(guard)]
        monkeypatch.setattr(sys, "argv", ["planaria", *given])
        with pytest.raises(SystemExit) as stopped:
            command_line.main()
        said = capsys.readouterr()
        assert (stopped.value.code, said.out, said.err.count("\n")) == (6, "", 1)
        assert TOLD[what].removeprefix("is ") in said.err and "fetch it again" in said.err
    assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == [guard, path]


def test_a_guard_of_a_model_in_memory_tells_it_too(tmp_path: Path) -> None:
    guard: Guard = protect(MODELS["float32"], budget=0.1, tiers=PLAIN)
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(InvalidFile, match="git-lfs pointer"):
        guard.check(tmp_path / "model.safetensors")
    (tmp_path / "model.pt").write_bytes(POINTER)
    with pytest.raises(InvalidFile, match="git-lfs pointer"):
        guard.check(tmp_path / "model.pt")


# --- Codewords of a cut file -----------------------------------------------------------------------------------------


def cut(path: Path, share: float) -> None:
    """Leaves this share of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])  # of integers nobody knows how many were 0
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_codewords_of_which_too_much_is_cut_off_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, share: float
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(MODELS[kind], path)
    guard = protect(path, budget=0.06, tiers=PLAIN)
    cut(path, share)

    def decode(*args: object, **options: object) -> None:
        raise AssertionError("decoded what cannot be decoded")

    monkeypatch.setattr(ReedSolomon, "decode", decode)
    report = guard.check(path, force=True)
    assert report.verdict == "lost"
    lost = sum(region.stop - region.start for tensor in report.tensors for region in tensor.regions)
    assert lost > (0.9 - share) * guard.protected_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cut_file_of_zeros_nearly_all_is_restored_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    model = {"pruned": torch.where(drawn(300, 200, seed=1) > 2.3, drawn(300, 200), 0.0).to(dtype)}
    save_file(model, path)
    intact = path.read_bytes()
    guard = protect(path, budget=0.15, tiers=PLAIN)
    cut(path, 0.2)
    assert guard.repair(path, in_place=True).verdict == "exact"
    assert path.read_bytes() == intact


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_what_is_cut_off_is_told_as_if_it_were_zeroed(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"wide": drawn(300, 200), "norm": 1 + 0.1 * drawn(200), "other": drawn(100, 200)}, path)
    whole = path.read_bytes()
    guard = protect(path, budget=0.02, tiers=PLAIN)
    cut(path, share)
    as_cut = guard.check(path, force=True)
    path.write_bytes(path.read_bytes().ljust(len(whole), b"\0"))
    assert guard.check(path, force=True).tensors == as_cut.tensors
