"""Guards that earlier versions wrote are read for ever. `benchmarks/make_golden_guards.py` made them."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from models import KEY, PLAIN, struck
from safetensors.torch import load_file

from planaria.guard import Guard, protect

GOLDEN = Path(__file__).parent / "golden"
KEYS = {
    "v1-plain": None,
    "v1-keyed": KEY,
    "v1-rule": None,
    "v2-memory": None,
    "v2-ladder": None,
    "v3-plain": None,
    "v1-frozen": None,
    "v3-memory": KEY,
    "v4-plain": None,
    "v5-stripe": None,
}
every = pytest.mark.parametrize("name", KEYS)


@pytest.fixture
def model(name: str, tmp_path: Path) -> Path:
    """A copy of the golden model, with its guard."""
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name)) / "model.safetensors"


def loaded(model: Path) -> Guard:
    return Guard.load(model.with_name("guard"), key=KEYS[model.parent.name])


def test_every_golden_guard_is_tested_and_small() -> None:
    assert {folder.name for folder in GOLDEN.iterdir()} == KEYS.keys()
    for folder in GOLDEN.iterdir():
        assert {path.name for path in folder.iterdir()} == {"guard", "model.safetensors"}
        assert all(path.stat().st_size < 40_000 for path in folder.iterdir())


@every
def test_it_is_read_written_alike_and_finds_its_model_intact(model: Path) -> None:
    guard = loaded(model)
    assert guard.manifest.version == int(model.parent.name[1]) and guard.manifest.parity is not None
    assert guard.mended == 0 and guard.lost == ()
    assert guard.to_bytes() == model.with_name("guard").read_bytes()
    assert guard.check(model).verdict == "intact"
    assert guard.check(load_file(model)).verdict == "intact"


@every
def test_it_restores_its_model_to_the_byte(model: Path) -> None:
    intact = model.read_bytes()
    spoilt = struck(intact, slice(0, 100))
    places = np.arange(2000, len(intact), 113)
    model.write_bytes(struck(spoilt, places))
    report = loaded(model).repair(model, in_place=True)
    assert report.verdict == "exact" and report.header_damaged and model.read_bytes() == intact


@every
def test_it_mends_itself(model: Path) -> None:
    content = model.with_name("guard").read_bytes()
    places = np.arange(5, len(content), 150)
    guard = Guard.from_bytes(struck(content, places), key=KEYS[model.parent.name])
    assert guard.to_bytes() == content and guard.mended == len(places)


@pytest.mark.parametrize("name", ["v1-rule", "v1-frozen"])
def test_its_rule_regrows_most_of_what_no_code_can(model: Path) -> None:
    guard, intact = loaded(model), load_file(model)
    assert [guard.entries[rule.tensor].name for rule in guard.manifest.rules] == ["filters"]
    damaged = {name: tensor.clone() for name, tensor in intact.items()}
    lost = torch.arange(damaged["filters"].numel()).view(damaged["filters"].shape) % 3 == 0
    damaged["filters"][lost] = 0.0
    report = guard.repair(damaged, known={"filters": ~lost})
    error = (damaged["filters"] - intact["filters"])[lost].square().mean()
    assert report.verdict == "estimated" and error < 0.2 * intact["filters"][lost].square().mean()


@pytest.mark.parametrize(("name", "most"), [("v2-memory", 0.4), ("v2-ladder", 0.95)])  # few of its columns are covered
def test_its_copy_is_exact_and_its_memory_tells_of_a_model_that_is_gone(name: str, most: float, model: Path) -> None:
    guard, intact = loaded(model), load_file(model)
    damaged = {name: torch.zeros_like(tensor) for name, tensor in intact.items()}
    report = guard.repair(damaged)
    methods = {tensor.name: tensor.method for tensor in report.tensors}
    assert all(torch.equal(damaged[name], intact[name]) for name in ("scale", "steps"))
    assert methods["half"] == "refinement" and methods["filters"] == (
        "sketch" if name == "v2-memory" else "refinement, sketch"
    )
    for of in ("filters", "half"):
        error = (damaged[of] - intact[of]).float().square().mean()
        assert error < most * intact[of].float().square().mean()


@pytest.mark.parametrize("name", ["v5-stripe"])
def test_its_tier_that_is_not_in_the_format_is_named_and_kept(model: Path) -> None:
    guard = loaded(model)
    assert guard.unknown == ("stripe",) and guard.tier_bytes()["stripe"] > 0
    assert not guard.manifest.compact  # version 5 says so itself


@pytest.mark.parametrize("name", ["v4-plain"])
def test_it_knows_which_small_tensors_held_values_that_are_no_numbers(model: Path) -> None:
    guard, intact = loaded(model), load_file(model)
    names = [guard.entries[index].name for index in guard.manifest.not_finite]
    assert names == ["mask"] and guard.statistics(guard.manifest.not_finite[0]) is None
    damaged = {name: torch.full_like(tensor, 6e4) for name, tensor in intact.items() if tensor.is_floating_point()}
    damaged = intact | damaged | {"mask": intact["mask"].clone()}
    damaged["mask"][0, 1] = torch.nan  # no more tells what it was
    found = damaged["mask"].clone()
    report = guard.repair(damaged, force=True)
    assert torch.equal(damaged["mask"].view(torch.int32), found.view(torch.int32))
    assert "1 tensor held values that are no numbers before" in " ".join(report.notes)


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng packs the headers into other bytes")
@pytest.mark.parametrize("name", ["v1-plain"])
def test_today_its_model_has_the_same_guard(model: Path) -> None:
    guard = protect(model, budget=0.25, tiers=PLAIN, key=KEYS[model.parent.name])
    assert guard.to_bytes() == model.with_name("guard").read_bytes()
