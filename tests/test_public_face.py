"""What `import planaria` offers."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import drawn, mask, smooth_sheets
from safetensors.torch import load_file, save_file

import planaria
from planaria.errors import InvalidInput
from planaria.records import Record
from planaria_lab.repairers import ZeroFill

PLAIN = ("digest", "parity")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"weight": drawn(60, 70), "bias": drawn(60)}, path)
    return path


def spoilt(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    broken = path.with_name("broken.safetensors")
    broken.write_bytes(content)
    return broken


def test_every_package_is_there_after_the_import_and_none_before() -> None:
    names = [module.name for module in pkgutil.iter_modules(planaria.__path__)]
    code = f"""
import sys
import planaria
assert not {{name for name in sys.modules if name.startswith(("planaria.", "torch", "numpy"))}}
for name in {names}:
    assert getattr(planaria, name).__name__ == f"planaria.{{name}}"
for name in planaria.__all__:
    assert getattr(planaria, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    with pytest.raises(AttributeError, match="no attribute 'regrowth'"):
        planaria.regrowth  # noqa: B018


def test_a_guard_file_serves_in_the_place_of_a_guard(model: Path, tmp_path: Path) -> None:
    key = planaria.new_key()
    guard = planaria.protect(model, budget="20%", tiers="digest,parity", key=key)
    guard.save(tmp_path / "guard")
    broken, output = spoilt(model), tmp_path / "repaired.safetensors"
    assert planaria.load(tmp_path / "guard", key=key) == guard
    assert planaria.check(broken, tmp_path / "guard", key=key).exit_code == 1
    assert planaria.repair(broken, tmp_path / "guard", output, key=key).verdict == "exact"
    assert output.read_bytes() == model.read_bytes() != broken.read_bytes()
    assert planaria.repair(broken, guard, in_place=True).verdict == "exact"
    assert broken.read_bytes() == model.read_bytes()
    assert planaria.repair(load_file(model), guard).verdict == "intact"
    assert len({planaria.new_key() for _ in range(10)}) == 10


def test_no_file_is_written_over_unasked(model: Path) -> None:
    guard = planaria.protect(model, budget=0.2, tiers=PLAIN)
    broken = spoilt(model)
    before = broken.read_bytes()
    for more in ({}, {"output": model.with_name("out.safetensors"), "in_place": True}):
        with pytest.raises(InvalidInput, match="Give output or in_place=True"):
            guard.repair(broken, **more)
    assert broken.read_bytes() == before and not model.with_name("out.safetensors").exists()


@pytest.mark.parametrize(("tiers", "parity"), [("parity", True), ("digest, parity", True), ("digest", False)])
def test_tiers_may_be_named_in_one_text(tiers: str, parity: bool, model: Path) -> None:
    assert (planaria.protect(model, budget=0.2, tiers=tiers).manifest.parity is not None) == parity
    with pytest.raises(InvalidInput, match=r"Unknown tiers \['paritty'\]"):
        planaria.protect(model, tiers="digest,paritty")


@pytest.mark.parametrize("name", ["budget", "expect"])
def test_a_share_out_of_range_is_refused_by_the_name_of_its_argument(name: str, model: Path) -> None:
    for value in (0, 1.5, "2 %%", "200%"):
        with pytest.raises(InvalidInput, match=f"^{name} is a share"):
            planaria.protect(model, **{name: value})


def test_guards_are_told_apart_by_what_they_hold(model: Path) -> None:
    guard = planaria.protect(model, budget=0.2, tiers=PLAIN)
    again = planaria.protect(model, budget="20%", tiers=PLAIN)
    other = planaria.protect(model, budget=0.1, tiers=PLAIN)
    keyed = planaria.protect(model, budget=0.2, tiers=PLAIN, key=bytes(32))
    assert guard == again and hash(guard) == hash(again) and len({guard, again, other, keyed}) == 3
    assert guard != other and guard != "guard"
    assert repr(guard) == f"<Guard of 2 tensors, 17,040 bytes: digest, parity; {guard.size:,} bytes>"
    assert repr(keyed).endswith(" bytes, keyed>") and keyed.key.hex() not in repr(keyed)


def test_a_layer_is_regrown_from_its_survivors_alone() -> None:
    weight = smooth_sheets(40, 12, 14)
    known = mask(40, 168, share=0.3)
    damaged = torch.where(known, weight, torch.nan)
    regrown = planaria.regrow(damaged, known, space=(12, 14))
    assert torch.equal(regrown[known], weight[known]) and regrown.isfinite().all()
    zeros = ZeroFill().restore(damaged, known, Record())
    assert (regrown - weight).square().sum() < 0.3 * (zeros - weight).square().sum()


@pytest.mark.parametrize("shape", [(20, 3, 9, 9), (30, 2, 5, 5), (10, 64), (7, 1, 3, 3)])
def test_the_grid_of_a_kernel_or_a_square_is_found(shape: tuple[int, ...]) -> None:
    weight, known = drawn(*shape), mask(*shape)
    regrown = planaria.regrow(weight, known)
    assert regrown.shape == weight.shape and torch.equal(regrown[known], weight[known])


@pytest.mark.parametrize(
    ("shape", "space"), [((30,), None), ((30, 50), None), ((30, 50), (5, 9)), ((30, 50), (25, 2)), ((8, 4, 1, 1), None)]
)
def test_inputs_that_make_no_grid_are_refused(shape: tuple[int, ...], space: tuple[int, int] | None) -> None:
    with pytest.raises(InvalidInput):
        planaria.regrow(drawn(*shape), mask(*shape), space=space)
