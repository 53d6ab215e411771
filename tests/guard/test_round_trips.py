"""Protect, save, load, check, break and repair: every type and every form that a model can have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, examples, same_bits
from hypothesis import given
from hypothesis import strategies as st
from models import KEY, PLAIN, bytes_of, copied, gaussian, random_bits, random_bytes, same, scattered, struck, write
from torch import Tensor, nn

from planaria.checkpoints import open_checkpoint, write_state_dict
from planaria.checkpoints.header import INDEX
from planaria.checkpoints.state_dict import DTYPES
from planaria.damages import WholeWeight
from planaria.errors import OtherModel, VerificationFailed
from planaria.guard import Guard, protect
from planaria.guard import repair as repairing
from planaria.streams import generator


def guarded(
    model: nn.Module | dict[str, Tensor] | Path, folder: Path, *, budget: float = 0.3, key: bytes | None = None
) -> Guard:
    """A guard that went to disk and came back, of a model that it finds intact."""
    protect(model, budget=budget, tiers=PLAIN, key=key).save(folder / "guard")
    guard = Guard.load(folder / "guard", key=key)
    assert guard.check(model).verdict == "intact"
    return guard


def in_the_tensors(content: bytes, count: int, *, seed: int = 0) -> bytes:
    """A safetensors file with other bytes at random places of its tensors."""
    start = 8 + int.from_bytes(content[:8], "little")
    return struck(content, start + scattered(count, len(content) - start, seed=seed), seed=seed)


def restores(guard: Guard, model: Path, damaged: bytes, *, verdict: str = "exact") -> None:
    """Sees that the damaged file is restored to the byte, in place and into another."""
    intact, output = model.read_bytes(), model.with_name("output.safetensors")
    assert damaged != intact
    model.write_bytes(damaged)
    assert guard.check(model).exit_code == 1 and model.read_bytes() == damaged
    assert guard.repair(model, output).verdict == verdict
    assert output.read_bytes() == intact and model.read_bytes() == damaged
    assert guard.repair(model, in_place=True).exit_code == 0 and model.read_bytes() == intact
    assert guard.repair(model, in_place=True).verdict == "intact" and model.read_bytes() == intact
    output.unlink()


# --- Types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.get)
def test_every_type_is_restored_in_a_file_and_in_memory(dtype: torch.dtype, tmp_path: Path) -> None:
    rows = 6_000 // (40 * dtype.itemsize) | 1  # an odd number of them
    tensors = {name: random_bits(dtype, *shape) for name, shape in {"a": (rows, 40), "b": (0, 4), "c": (3,)}.items()}
    model = tmp_path / "model.safetensors"
    write_state_dict(model, tensors)
    guard = guarded(model, tmp_path)
    restores(guard, model, in_the_tensors(model.read_bytes(), 20))
    damaged = copied(tensors)
    damaged["a"].view(torch.uint8)[:9, :3] ^= 85
    assert not same(damaged, tensors)
    assert guard.repair(damaged).verdict == "exact" and same(damaged, tensors)


def of_few_bits(dtype: str, folder: Path) -> Path:
    """A file of a type that torch does not have."""
    nbytes = 20_000 * int(dtype[1]) // 8
    header = json.dumps({"weight": {"dtype": dtype, "shape": [200, 100], "data_offsets": [0, nbytes]}}).encode()
    model = folder / "model.safetensors"
    model.write_bytes(len(header).to_bytes(8, "little") + header + random_bytes(nbytes).tobytes())
    return model


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F6_E3M2", "F4"])
def test_types_of_fewer_than_eight_bits_are_restored_in_a_file(dtype: str, tmp_path: Path) -> None:
    model = of_few_bits(dtype, tmp_path)
    guard = guarded(model, tmp_path)
    restores(guard, model, in_the_tensors(model.read_bytes(), 20))


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F4"])
def test_a_mask_of_weights_of_fewer_than_eight_bits_is_taken(dtype: str, tmp_path: Path) -> None:
    model = of_few_bits(dtype, tmp_path)
    guard = guarded(model, tmp_path)
    model.write_bytes(in_the_tensors(model.read_bytes(), 8000))
    assert guard.check(model, known={"weight": torch.zeros(200, 100, dtype=torch.bool)}).exit_code == 2


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protected")
    guarded(write(folder, gaussian()), folder, budget=0.12)
    return folder


@pytest.fixture
def model(protected: Path, tmp_path: Path) -> Path:
    """A model in a folder of its own, with its guard."""
    return Path(shutil.copytree(protected, tmp_path / "own")) / "model.safetensors"


def guard_of(model: Path) -> Guard:
    return Guard.load(model.with_name("guard"))


DATA = {name: len(content) for name, content in bytes_of(gaussian()).items()}


@examples(12)
@given(
    kind=st.sampled_from(["bytes", "bits", "run", "zeros", "tail", "longer", "header", "length"]),
    seed=st.integers(0, 999),
)
def test_damage_within_the_budget_is_restored_to_the_byte(
    kind: str, seed: int, protected: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = Path(shutil.copytree(protected, tmp_path_factory.mktemp("own") / "own")) / "model.safetensors"
    content = model.read_bytes()
    start = len(content) - sum(DATA.values())
    place = start + seed * (len(content) - start - 4096) // 1000
    flipped = bytearray(content)
    flipped[place] ^= 1 << seed % 8
    damaged = {
        "bytes": in_the_tensors(content, 600, seed=seed),
        "bits": bytes(flipped),
        "run": struck(content, slice(place, place + 3500), seed=seed),
        "zeros": content[:place] + bytes(3500) + content[place + 3500 :],
        "tail": content[: len(content) - 1 - 4 * seed],
        "longer": content + random_bytes(1 + seed).tobytes(),
        "header": random_bytes(start, seed=seed).tobytes() + in_the_tensors(content, 300, seed=seed)[start:],
        "length": bytes(8) + content[8:],
    }[kind]
    header_only = kind in ("longer", "length")
    restores(guard_of(model), model, damaged)
    model.write_bytes(damaged)
    report = guard_of(model).check(model)
    assert report.header_damaged == (kind in ("tail", "longer", "header", "length"))
    assert any(tensor.regions for tensor in report.tensors) != header_only


@examples(25)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_header_is_restored(
    place: float, bit: int, protected: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = Path(shutil.copytree(protected, tmp_path_factory.mktemp("own") / "own")) / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[int(place * (len(content) - sum(DATA.values())))] ^= 1 << bit
    restores(guard_of(model), model, bytes(content))


def test_a_check_leaves_every_file_as_it_is(model: Path) -> None:
    model.write_bytes(in_the_tensors(model.read_bytes(), 5000))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in model.parent.iterdir()}
    assert guard_of(model).check(model).exit_code == 2
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in model.parent.iterdir()} == before


@pytest.mark.parametrize("length", [50, 40_000])  # restored exactly, and past the strength
@pytest.mark.parametrize("name", [None, "output.safetensors"])
def test_a_repair_that_does_not_verify_leaves_every_file_as_it_is(
    length: int, name: str | None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.write_bytes(struck(model.read_bytes(), slice(2000, 2000 + length)))
    before = {path: path.read_bytes() for path in model.parent.iterdir()}
    monkeypatch.setattr(repairing, "damaged_tiles", lambda guard, overlay, within: np.ones(guard.layout.tiles, bool))
    with pytest.raises(VerificationFailed):
        guard_of(model).repair(model, name and model.with_name(name), in_place=not name)
    assert {path: path.read_bytes() for path in model.parent.iterdir()} == before


def test_a_file_and_memory_are_repaired_alike_past_the_strength(model: Path) -> None:
    damaged = WholeWeight(0.2).apply_to_model(gaussian(), generator(0, "damage")).replay(gaussian())
    write(model.parent, damaged)
    in_file, in_memory = guard_of(model).repair(model, in_place=True), guard_of(model).repair(damaged)
    assert in_file.tensors and in_file.verdict == in_memory.verdict == "lost"
    with open_checkpoint(model) as checkpoint:
        mine = bytes_of(damaged)
        assert all(np.array_equal(checkpoint.read(name), mine[name]) for name in mine)


def test_another_models_file_is_refused_and_stays(model: Path, tmp_path: Path) -> None:
    other = write(tmp_path, {"weight": drawn(30, 40)})
    content = other.read_bytes()
    with pytest.raises(OtherModel):
        guard_of(model).repair(other, force=True, in_place=True)
    assert other.read_bytes() == content


def test_a_guard_with_a_key_repairs_too(tmp_path: Path) -> None:
    model = write(tmp_path, gaussian())
    guard = guarded(model, tmp_path, budget=0.04, key=KEY)
    restores(guard, model, in_the_tensors(model.read_bytes(), 50))
    assert guard.check(model).keyed


# --- Forms -----------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """An embedding whose weights are the output's too, a transposed parameter, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 30)
        self.output = nn.Linear(30, 40)
        self.output.weight = self.embedding.weight
        self.transposed = nn.Parameter(drawn(25, 50).t())
        self.register_buffer("running", drawn(20, seed=1))
        self.register_buffer("steps", torch.tensor(7))


def test_tied_and_transposed_weights_of_a_module_are_restored_where_they_are(tmp_path: Path) -> None:
    module = Tied()
    parameters = list(module.parameters())
    intact = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    guard = guarded(module, tmp_path)
    assert guard.manifest.aliases == {"output.weight": "embedding.weight"}
    assert guard.protected_bytes == sum(t.nbytes for t in intact.values()) - module.output.weight.nbytes
    with torch.no_grad():
        module.output.weight[3:5, 7:12] = torch.nan
        module.transposed[4, :3] = 1e9
        module.get_buffer("steps").add_(1)
    assert guard.check(module).verdict == "exact"
    assert guard.repair(module).verdict == "exact"
    assert all(same_bits(tensor, intact[name]) for name, tensor in module.state_dict().items())
    assert all(one is other for one, other in zip(module.parameters(), parameters, strict=True))
    assert module.output.weight is module.embedding.weight and not module.transposed.is_contiguous()


def shards(folder: Path) -> dict[str, bytes]:
    """A model in two shards, with its configuration; its files."""
    folder.mkdir()
    tensors = gaussian()
    parts = {"b.safetensors": ["wide.weight", "steps"], "a.safetensors": ["half", "codes", "nothing", "double"]}
    for file, names in parts.items():
        write_state_dict(folder / file, {name: tensors[name] for name in names})
    weight_map = {name: file for file, names in parts.items() for name in names}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text("{}")
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("in_place", [True, False])
def test_every_file_of_a_folder_of_shards_is_restored_to_the_byte(in_place: bool, tmp_path: Path) -> None:
    folder, output = tmp_path / "model", tmp_path / "output"
    intact = shards(folder)
    guard = guarded(folder, tmp_path, budget=0.15)
    spoil(folder / "a.safetensors", lambda content: bytes(40) + in_the_tensors(content, 99)[40:])
    spoil(folder / "b.safetensors", lambda content: in_the_tensors(content, 300)[:-1000])
    (folder / INDEX).unlink()
    damaged = contents(folder)
    assert guard.check(folder).exit_code == 1 and contents(folder) == damaged
    report = guard.repair(folder, None if in_place else output, in_place=in_place)
    assert report.verdict == "exact" and report.header_damaged and report.exit_code == 0
    assert contents(folder if in_place else output) == intact
    assert contents(folder) == (intact if in_place else damaged)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["guard", "model", *([] if in_place else ["output"])]
    )


def test_a_pickled_state_dict_is_restored(tmp_path: Path) -> None:
    tensors = gaussian()
    write_state_dict(tmp_path / "model.pt", tensors)
    guard = guarded(tmp_path / "model.pt", tmp_path, budget=0.12)
    damaged = WholeWeight(count=200).apply_to_model(tensors, generator(0, "damage")).replay(tensors)
    write_state_dict(tmp_path / "model.pt", damaged)
    before = (tmp_path / "model.pt").read_bytes()
    assert guard.check(tmp_path / "model.pt").verdict == "exact" and (tmp_path / "model.pt").read_bytes() == before
    guard.repair(tmp_path / "model.pt", tmp_path / "output.pt")
    assert same(torch.load(tmp_path / "output.pt"), tensors) and (tmp_path / "model.pt").read_bytes() == before
    guard.repair(tmp_path / "model.pt", in_place=True)
    assert same(torch.load(tmp_path / "model.pt"), tensors)


def archive(tensors: dict[str, Tensor], folder: Path) -> Path:
    write_state_dict(folder / "model.pt", tensors)
    return folder / "model.pt"


Model = Path | dict[str, Tensor]
Form = Callable[[dict[str, Tensor], Path], Model]
FORMS: dict[str, Form] = {
    "memory": lambda tensors, folder: copied(tensors),
    "file": lambda tensors, folder: write(folder, tensors),
    "archive": archive,
    "folder": lambda tensors, folder: write(folder, tensors).parent,
}


@pytest.mark.parametrize("made", FORMS)
@pytest.mark.parametrize("used", FORMS)
def test_a_guard_of_one_form_repairs_every_other(made: str, used: str, tmp_path: Path) -> None:
    tensors = gaussian()
    (tmp_path / "made").mkdir()
    (tmp_path / "used").mkdir()
    guard = guarded(FORMS[made](tensors, tmp_path / "made"), tmp_path, budget=0.12)
    damaged = WholeWeight(count=200).apply_to_model(tensors, generator(0, "damage")).replay(tensors)
    model = FORMS[used](damaged, tmp_path / "used")
    assert guard.repair(model, in_place=True).verdict == "exact"
    with open_checkpoint(model) as checkpoint:
        mine = bytes_of(tensors)
        assert all(np.array_equal(checkpoint.read(name), mine[name]) for name in mine)
