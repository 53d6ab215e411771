"""One door: which kind of checkpoint a model is, and what is refused at it."""

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import all_bytes, as_bytes, shards, small
from torch import nn

from planaria.checkpoints import SafetensorsFile, ShardedFolder, StateDict, open_checkpoint, write_state_dict
from planaria.errors import InvalidFile, InvalidInput


def test_every_kind_of_model_opens_as_its_kind(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("model.safetensors", "model.pt", "model.pth", "model.bin"):
        write_state_dict(tmp_path / name, small())
    module = nn.Module()
    for name, value in small().items():
        module.register_buffer(name.replace(".", "_"), value)
    for model, kind in [
        (module, StateDict),
        (small(), StateDict),
        (OrderedDict(small()), StateDict),
        (tmp_path / "model.safetensors", SafetensorsFile),
        (str(tmp_path / "model.safetensors"), SafetensorsFile),
        (tmp_path, SafetensorsFile),
        (shards(tmp_path / "shards"), ShardedFolder),
        (tmp_path / "model.pt", StateDict),
        (tmp_path / "model.pth", StateDict),
        (tmp_path / "model.bin", StateDict),
    ]:
        with open_checkpoint(model) as checkpoint:
            assert type(checkpoint) is kind
            expected = {
                name.replace(".", "_") if model is module else name: own for name, own in as_bytes(small()).items()
            }
            assert all_bytes(checkpoint) == expected


def test_a_loaded_file_is_written_in_memory_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_state_dict(path, small())
    before = path.read_bytes()
    with open_checkpoint(path, writable=True) as checkpoint:
        checkpoint.write("steps", 0, np.zeros(8, np.uint8))
        assert not checkpoint.read("steps").any()
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.onnx", "folder", "dangling.safetensors"])
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "dangling.safetensors").symlink_to("nothing")
    with pytest.raises(FileNotFoundError, match=name):
        open_checkpoint(tmp_path / name)


def test_a_folder_without_a_model_is_refused_by_the_file_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.pt"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for headers in (None, {"model.safetensors": b""}):
        with pytest.raises(InvalidFile, match="device or pipe"):
            open_checkpoint(tmp_path / name, headers=headers)


def test_a_folder_in_a_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(InvalidFile, match="is a folder"):
        open_checkpoint(tmp_path)


def test_a_link_to_a_model_is_followed(tmp_path: Path) -> None:
    write_state_dict(tmp_path / "blob.safetensors", small())
    (tmp_path / "model.safetensors").symlink_to("blob.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert all_bytes(checkpoint) == as_bytes(small())


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ({"state_dict": small(), "epoch": 3}, 'holds a dict at .state_dict. .*"state_dict"'),
        (small() | {"epoch": 3}, "holds a int at 'epoch'"),
        ({1: torch.zeros(1)}, "'1'"),
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
    ],
)
def test_a_loaded_file_of_anything_but_named_tensors_is_refused(state: object, refusal: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InvalidFile, match=refusal):
        open_checkpoint(tmp_path / "model.pt")


class Trap:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_file_that_runs_code_when_loaded_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "model.pt")
    with pytest.raises(InvalidFile, match="weights_only"):
        open_checkpoint(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x80\x02}"])
def test_a_file_that_torch_cannot_load_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InvalidFile, match=r"model\.pt") as caught:
        open_checkpoint(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"model\.onnx"):
        open_checkpoint(tmp_path / "model.onnx")


@pytest.mark.parametrize("model", [None, 3, [torch.zeros(1)], torch.zeros(1), b"model.safetensors"])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(InvalidInput, match="module, a dictionary"):
        open_checkpoint(model)  # type: ignore[arg-type]
