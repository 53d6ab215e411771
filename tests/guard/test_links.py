"""Models behind links, as caches keep them: what links lead to is repaired, and links stay links."""

import os
from pathlib import Path

import pytest
import torch
from helpers import drawn, same_bits
from models import copied, random_bits
from safetensors.torch import load_file, save_file
from shard_folders import INDEX, shards_of
from torch import Tensor

from planaria.checkpoints import write_state_dict
from planaria.errors import OutputFailed
from planaria.files import write_atomically
from planaria.guard import Guard, protect

MODELS: dict[str, dict[str, Tensor]] = {
    "float32": {"wide": drawn(96, 100), "scale": 1 + 0.01 * drawn(77, seed=2)},
    "bfloat16": {"half": drawn(150, 60, seed=1).bfloat16(), "more": drawn(33, 50).bfloat16(), "one": torch.tensor(3)},
    "int8": {"codes": random_bits(torch.int8, 70, 200), "odd": random_bits(torch.int8, 77, 91)},
}
PLAIN = ("digest", "parity")


def broken(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A few weights of each tensor but the smallest are other ones."""
    other = copied(tensors)
    for tensor in other.values():
        if tensor.dim() == 2:
            tensor[5, 3:9] = 7
    return other


@pytest.fixture(params=MODELS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def guard(kind: str) -> Guard:
    return protect(MODELS[kind], budget=0.1, tiers=PLAIN)


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("relative", [False, True])
def test_what_a_chain_of_links_leads_to_is_repaired(
    hops: int, relative: bool, kind: str, guard: Guard, tmp_path: Path
) -> None:
    blob = tmp_path / "blobs" / "0123abc"
    blob.parent.mkdir()
    save_file(broken(MODELS[kind]), blob)
    target = blob
    for hop in reversed(range(hops)):
        link = tmp_path / f"snapshot{hop}" / "model.safetensors"
        link.parent.mkdir()
        link.symlink_to(os.path.relpath(target, link.parent) if relative else target)
        target = link
    links = [path.readlink() for path in sorted(tmp_path.glob("snapshot*/*"))]
    report = guard.repair(link, in_place=True)
    assert report.verdict == "exact"
    assert [path.readlink() for path in sorted(tmp_path.glob("snapshot*/*"))] == links
    assert all(same_bits(tensor, MODELS[kind][name]) for name, tensor in load_file(blob).items())
    assert str(blob) in str(report) and str(link) in str(report)
    assert [path.name for path in blob.parent.iterdir()] == [blob.name]
    assert guard.repair(link, in_place=True).notes == ()  # nothing to do, and so nothing to tell


@pytest.mark.parametrize("place", ["beside", "two folders", "folder"])
def test_shards_that_are_links_are_repaired_where_they_lie(place: str, kind: str, tmp_path: Path) -> None:
    tensors = MODELS[kind]
    folder = shards_of(tmp_path / "model", tensors)
    guard = protect(folder, budget=0.15, tiers=PLAIN)
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    for number, (name, tensor) in enumerate(broken(tensors).items()):
        save_file({name: tensor}, folder / f"part-{number}.safetensors")
    given = folder
    if place == "folder":
        given = tmp_path / "link"
        given.symlink_to(folder.name)
    for number, path in enumerate(sorted(folder.glob("part-*")) if place != "folder" else []):
        blobs = tmp_path / ("blobs" if place == "beside" else f"blobs{number}")
        blobs.mkdir(exist_ok=True)
        path.rename(blobs / f"blob{number}")
        path.symlink_to(Path("..", blobs.name, f"blob{number}"))
    links = {path: path.readlink() for path in tmp_path.rglob("*") if path.is_symlink()}
    there = sorted(tmp_path.rglob("*"))
    report = guard.repair(given, in_place=True)
    assert report.verdict == "exact"
    assert {path: path.readlink() for path in tmp_path.rglob("*") if path.is_symlink()} == links and links
    assert sorted(tmp_path.rglob("*")) == there
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == intact
    assert ("links left" in str(report)) == (place != "folder")


def test_a_link_in_the_outputs_place_is_followed_and_told(kind: str, guard: Guard, tmp_path: Path) -> None:
    save_file(broken(MODELS[kind]), tmp_path / "model.safetensors")
    torch.save(broken(MODELS[kind]), tmp_path / "model.pt")
    for ending in ("safetensors", "pt"):
        link, target = tmp_path / f"out.{ending}", tmp_path / f"far.{ending}"
        link.symlink_to(target)
        report = guard.repair(tmp_path / f"model.{ending}", link)
        assert link.readlink() == target and str(target) in str(report)
        found = load_file(target) if ending == "safetensors" else torch.load(target, weights_only=True)
        assert all(same_bits(tensor, MODELS[kind][name]) for name, tensor in found.items())
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{ending}" for name in ("model", "out", "far") for ending in ("safetensors", "pt")
    }


def test_every_file_that_is_written_over_a_link_leaves_it(tmp_path: Path) -> None:
    for number, write in enumerate(
        [
            lambda path: write_atomically(path, b"new"),
            lambda path: write_state_dict(path, {"w": drawn(3)}),
            lambda path: protect(MODELS["int8"], tiers=PLAIN, budget=0.1).save(path),
        ]
    ):
        link, target = tmp_path / f"link{number}.safetensors", tmp_path / f"target{number}"
        target.write_bytes(b"old")
        link.symlink_to(target.name)
        write(link)
        assert link.is_symlink() and target.read_bytes() != b"old" and not target.is_symlink()


def test_a_link_to_itself_and_one_to_a_device_are_refused(guard: Guard, kind: str, tmp_path: Path) -> None:
    save_file(broken(MODELS[kind]), tmp_path / "model.safetensors")
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    for name, refusal in (("loop", "circle"), ("device", "is a device")):
        with pytest.raises(OutputFailed, match=refusal):
            guard.repair(tmp_path / "model.safetensors", tmp_path / f"{name}.safetensors")
        with pytest.raises(OutputFailed, match=refusal):
            write_atomically(tmp_path / f"{name}.safetensors", b"")
    assert len(list(tmp_path.iterdir())) == 3


def test_other_names_of_a_repaired_file_are_told(guard: Guard, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(broken(MODELS[kind]), path)
    (tmp_path / "other").hardlink_to(path)
    found = path.read_bytes()
    assert f"hard links) of {path} keep what was found" in str(guard.repair(path, in_place=True))
    assert (tmp_path / "other").read_bytes() == found != path.read_bytes()


def test_a_cache_whose_blob_is_gone_gets_it_back(tmp_path: Path) -> None:
    tensors = {"wide": drawn(96, 100), "small": drawn(10, 10)}
    folder = shards_of(tmp_path / "model", tensors)
    guard = protect(folder, budget=0.2, tiers=PLAIN)
    intact = (folder / "part-1.safetensors").read_bytes()
    (tmp_path / "blobs").mkdir()
    (folder / "part-1.safetensors").unlink()
    (folder / "part-1.safetensors").symlink_to("../blobs/gone")
    assert guard.check(folder).verdict == "exact"
    assert not list((tmp_path / "blobs").iterdir())
    assert guard.repair(folder, in_place=True).verdict == "exact"
    assert (tmp_path / "blobs" / "gone").read_bytes() == intact
    assert (folder / "part-1.safetensors").is_symlink() and (folder / INDEX).is_file()
