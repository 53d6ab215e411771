"""Fault lists on disk and on other tensors."""

from pathlib import Path

import pytest
import torch
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from planaria.damages import Erasure, Faults
from planaria.errors import InvalidFile, InvalidInput, OutputFailed
from planaria.streams import generator

METADATA = {"format": "planaria faults 1", "shape": "4,5"}
SOUND = {"index": torch.tensor([1, 4, 19]), "old": torch.ones(3), "new": torch.zeros(3)}


def some_faults() -> Faults:
    return Erasure(0.4, value=float("nan")).apply(drawn(4, 5), generator(0, "damage"))[1]


def written(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = METADATA) -> Path:
    path = tmp_path / "faults.safetensors"
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8], ids=str)
@given(shape=st.lists(st.integers(0, 5), max_size=3).map(tuple), fraction=st.floats(0, 1))
def test_faults_come_back_from_a_file_bit_for_bit(
    dtype: torch.dtype, shape: tuple[int, ...], fraction: float, tmp_path: Path
) -> None:
    weight = (drawn(*shape) * 20).to(dtype)
    if dtype.is_floating_point and weight.numel():
        weight.view(-1)[-1] = float("nan")
    damaged, faults = Erasure(fraction).apply(weight, generator(0, "damage"))
    path = tmp_path / "faults.safetensors"
    faults.save(path)
    loaded = Faults.load(path)
    assert loaded.shape == shape
    for one, other in ((loaded.index, faults.index), (loaded.old, faults.old), (loaded.new, faults.new)):
        assert same_bits(one, other)
    assert same_bits(loaded.undo(damaged), weight)


def test_the_file_that_the_hostile_ones_are_made_from_is_sound(tmp_path: Path) -> None:
    assert torch.equal(Faults.load(written(tmp_path, SOUND)).index, SOUND["index"])


HOSTILE = {
    "descending positions": {"index": torch.tensor([4, 1, 19])},
    "a position twice": {"index": torch.tensor([1, 1, 19])},
    "a position beyond the tensor": {"index": torch.tensor([1, 4, 20])},
    "a negative position": {"index": torch.tensor([-1, 4, 19])},
    "int32 positions": {"index": torch.tensor([1, 4, 19], dtype=torch.int32)},
    "uint64 positions": {"index": torch.tensor([1, 4, 19], dtype=torch.uint64)},
    "floating-point positions": {"index": torch.tensor([1.0, 4.0, 19.0])},
    "positions in two axes": {"index": torch.tensor([[1, 4, 19]])},
    "too few old values": {"old": torch.ones(2)},
    "too many new values": {"new": torch.ones(4)},
    "values in two axes": {"old": torch.ones(3, 1), "new": torch.ones(3, 1)},
    "no dimension at all": {"index": torch.tensor(1), "old": torch.tensor(1.0), "new": torch.tensor(1.0)},
    "old and new of different dtypes": {"old": torch.ones(3, dtype=torch.float64)},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_unsound_list_is_refused(change: dict[str, Tensor], tmp_path: Path, unchecked: None) -> None:
    with pytest.raises(InvalidFile, match=r"faults\.safetensors is not a sound fault list"):
        Faults.load(written(tmp_path, SOUND | change))


@pytest.mark.parametrize("name", ["index", "old", "new"])
def test_a_file_without_one_of_its_tensors_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="is not a fault list"):
        Faults.load(written(tmp_path, {key: value for key, value in SOUND.items() if key != name}))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"shape": "4,5"},
        METADATA | {"format": "planaria faults 2"},
        {"format": "planaria faults 1"},
        METADATA | {"shape": "4;5"},
        METADATA | {"shape": "4,,5"},
        METADATA | {"shape": "4,five"},
        METADATA | {"shape": "-4,-5"},
        METADATA | {"shape": "4.0,5"},
        METADATA | {"shape": ""},
        METADATA | {"shape": "9" * 5000},
    ],
)
def test_wrong_metadata_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="fault list"):
        Faults.load(written(tmp_path, SOUND, metadata))


@pytest.mark.parametrize("content", [b"", b"no", b"\x00" * 64, b"\xff" * 64, b"index,old,new\n1,2,3\n"])
def test_what_is_not_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "faults.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match="is not a fault list"):
        Faults.load(path)


@given(length=st.floats(0, 0.999))
def test_a_file_cut_short_is_refused(length: float, tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content))])
    with pytest.raises(InvalidFile, match="is not a fault list"):
        Faults.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        Faults.load(tmp_path / "nowhere.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "faults.safetensors"
    some_faults().save(path)
    before = path.read_bytes()

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planaria.files.os.fsync", no_space)
    with pytest.raises(OutputFailed, match="No space left"):
        Erasure(1.0).apply(drawn(4, 5), generator(0, "damage"))[1].save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_faults_of_another_shape_or_dtype_are_refused() -> None:
    for wrong in (drawn(5, 4), drawn(4, 5).double(), drawn(20)):
        for write in (some_faults().replay, some_faults().undo):
            with pytest.raises(InvalidInput, match=r"\(4, 5\)"):
                write(wrong)


def test_replay_and_undo_leave_their_input_alone() -> None:
    weight = drawn(4, 5)
    before = weight.clone()
    some_faults().undo(some_faults().replay(weight))
    assert same_bits(weight, before)
