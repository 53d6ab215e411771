"""The commands that protect, break, check and repair, as a user meets them."""

import json
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, examples, same_bits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from planaria import __version__, command_line
from planaria.checkpoints import open_checkpoint, write_state_dict
from planaria.damages import ModelFaults, Run
from planaria.errors import InvalidInput
from planaria.guard import Guard, Region, Report, TensorReport, container, protect
from planaria.guard import repair as repairing
from planaria.guard.damage_map import COLOURS, draw_damage_map
from planaria.guard.manifest import RuleShape
from planaria.guard.report import VERDICTS
from planaria.guard.tiers import ParityTier
from planaria.shares import share_of
from planaria.streams import generator

TENSORS = {
    "encoder.weight": drawn(128, 96),
    "decoder.weight": drawn(96, 128, seed=1),
    "half": drawn(100, 60, seed=2).bfloat16(),
    "codes": (40 * drawn(60, 50, seed=3)).to(torch.int8),
    "scale": drawn(9, seed=4),
}
FEW = ("damage", "bit-flip", "--count", "5")  # within what the parity corrects
MANY = ("damage", "whole-weight", "--rate", "0.1")  # beyond it
PLAIN = ("--tiers", "digest,parity", "--budget", "4%")


class Outcome:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    def failed_with(self, code: int) -> bool:
        one_line = self.err.count("\n") == 1 and self.err.startswith("planaria: ") and "Traceback" not in self.err
        return self.code == code and one_line and self.out == ""


Planaria = Callable[..., Outcome]


@pytest.fixture
def planaria(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Planaria:
    """Runs `planaria ARGUMENTS` in this process."""
    monkeypatch.delenv("PLANARIA_KEY", raising=False)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["planaria", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            command_line.main()
        said = capsys.readouterr()
        return Outcome(stopped.value.code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protected")
    save_file(TENSORS, folder / "model.safetensors")
    save_file({name: tensor for name, tensor in TENSORS.items() if name != "scale"}, folder / "other.safetensors")
    save_file(
        {name: (1.02 * tensor).to(tensor.dtype) for name, tensor in TENSORS.items()}, folder / "tuned.safetensors"
    )
    protect(folder / "model.safetensors", budget=0.04, tiers=("digest", "parity")).save(folder / "guard")
    return folder


@pytest.fixture
def folder(protected: Path, tmp_path: Path) -> Path:
    """A folder of its own with a model, its guard, another model and a fine-tuned one."""
    return Path(shutil.copytree(protected, tmp_path / "folder"))


def arguments(
    command: str | tuple[str, ...], folder: Path, *more: str | Path, model: str = "model.safetensors"
) -> list[str]:
    guard = ["--guard", folder / "guard"] if command in ("check", "repair") else []
    words = [command] if isinstance(command, str) else command
    return [str(part) for part in (*words, folder / model, *guard, *more)]


def state(folder: Path) -> dict[str, object]:
    """All that could change about the files in a folder, and its own time."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.is_file() and path.read_bytes())
        for path in (folder, *sorted(folder.rglob("*")))
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_intact_model_is_exit_code_zero(folder: Path, planaria: Planaria) -> None:
    outcome = planaria(*arguments("check", folder))
    assert (outcome.code, outcome.out, outcome.err) == (0, "intact\n", "")


def test_damage_that_parity_corrects_is_exit_code_one_and_repaired_to_the_same_bytes(
    folder: Path, planaria: Planaria
) -> None:
    assert planaria(*arguments(FEW, folder, "-o", folder / "broken.safetensors")).code == 0
    assert (folder / "broken.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    found = planaria(*arguments("check", folder, model="broken.safetensors"))
    assert found.code == 1 and "can be restored bit for bit" in found.out
    repair = planaria(*arguments("repair", folder, "-o", folder / "mended.safetensors", model="broken.safetensors"))
    assert repair.code == 0 and "mended.safetensors" in repair.err
    assert (folder / "mended.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_damage_beyond_parity_is_exit_code_two_checked_and_repaired(folder: Path, planaria: Planaria) -> None:
    assert planaria(*arguments(MANY, folder, "-o", folder / "broken.safetensors")).code == 0
    checked = planaria(*arguments("check", folder, "--json", model="broken.safetensors"))
    repaired = planaria(
        *arguments("repair", folder, "--json", "-o", folder / "m.safetensors", model="broken.safetensors")
    )
    assert checked.code == repaired.code == 2
    told, done = json.loads(checked.out), json.loads(repaired.out)
    assert told["tiles"] == done["tiles"] and told["tiles"]["estimated"] > 0
    assert planaria(*arguments("check", folder, model="m.safetensors")).code == 2  # what is estimated stays unproven


@pytest.mark.parametrize("way", [("--in-place",), ("-o", "mended.safetensors")])
def test_a_repair_that_does_not_verify_is_exit_code_seven_and_writes_nothing(
    way: tuple[str, ...], folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    planaria(*arguments(FEW, folder, "-o", folder / "broken.safetensors"))
    monkeypatch.setattr(repairing, "damaged_tiles", lambda guard, overlay, within: np.ones(guard.layout.tiles, bool))
    monkeypatch.chdir(folder)
    before = contents(folder)
    assert planaria(*arguments("repair", folder, *way, model="broken.safetensors")).failed_with(7)
    assert contents(folder) == before


@pytest.mark.parametrize("command", [("check",), ("repair", "--in-place"), ("repair", "--dry-run")])
@pytest.mark.parametrize("model", ["other.safetensors", "tuned.safetensors"])
def test_another_model_is_exit_code_five(
    command: tuple[str, ...], model: str, folder: Path, planaria: Planaria
) -> None:
    before = contents(folder)
    assert planaria(*arguments(command[0], folder, *command[1:], model=model)).failed_with(5)
    assert contents(folder) == before


def test_a_model_that_looks_different_is_diagnosed_by_force(folder: Path, planaria: Planaria) -> None:
    assert planaria(*arguments("check", folder, "--force", model="tuned.safetensors")).code == 2


def newer(content: bytes) -> bytes:
    arrays = dict(Guard.from_bytes(content).arrays)
    manifest = json.loads(arrays["manifest"].tobytes()) | {"version": 99}
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    return container.pack(arrays, key=None)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda content: content[: len(content) // 2], "guard"),
        (lambda content: b"", "guard"),
        (lambda content: b"not a guard at all", "guard"),
        (lambda content: bytes(len(content)), "guard"),
        (newer, "Install a newer planaria"),
    ],
)
def test_what_is_no_guard_is_exit_code_four(
    changed: Callable[[bytes], bytes], told: str, folder: Path, planaria: Planaria
) -> None:
    guard = folder / "guard"
    guard.write_bytes(changed(guard.read_bytes()))
    before = contents(folder)
    for command in (["inspect", guard], arguments("check", folder), arguments("repair", folder, "--in-place")):
        outcome = planaria(*command)
        assert outcome.failed_with(4)
        assert told in outcome.err and str(guard) in outcome.err
    assert contents(folder) == before


def test_a_model_in_the_guards_place_is_exit_code_four(folder: Path, planaria: Planaria) -> None:
    assert planaria("inspect", folder / "model.safetensors").failed_with(4)


@pytest.mark.parametrize("command", [(), ("damage",)])
def test_without_arguments_the_help_is_all_that_is_said(command: tuple[str, ...], planaria: Planaria) -> None:
    said = planaria(*command)
    assert said.code == 3 and "Usage: planaria" in said.out and said.err == ""


@pytest.mark.parametrize(
    "command",
    [
        ["protect", "missing.safetensors", "-o", "new"],
        ["protect", "guard.safetensors", "-o", "new"],  # a folder
        ["protect", "text.safetensors", "-o", "new"],
        ["protect", "model.safetensors", "-o", "missing/new"],
        ["protect", "model.safetensors", "-o", "new", "--key-file", "missing"],
        ["key", "-o", "missing/key"],
        ["check", "missing.safetensors", "--guard", "guard"],
        ["check", "model.safetensors", "--guard", "missing"],
        ["check", "model.safetensors", "--guard", "guard", "--map", "missing/map.png"],
        ["check", "model.safetensors", "--guard", "guard", "--known", "missing"],
        ["check", "model.safetensors", "--guard", "guard", "--known", "text.safetensors"],
        ["check", "model.safetensors", "--guard", "guard", "--known", "model.safetensors"],
        ["repair", "model.safetensors", "--guard", "guard", "-o", "missing/m.safetensors"],
        ["repair", "missing.safetensors", "--guard", "guard", "--in-place"],
        [*FEW, "missing.safetensors", "-o", "d.safetensors"],
        [*FEW, "text.safetensors", "-o", "d.safetensors"],
        [*FEW, "model.safetensors", "-o", "missing/d.safetensors"],
        ["damage", "replay", "model.safetensors", "missing", "-o", "d.safetensors"],
        ["damage", "replay", "model.safetensors", "model.safetensors", "-o", "d.safetensors"],
        ["inspect", "missing"],
    ],
    ids=" ".join,
)
def test_input_or_output_that_fails_is_exit_code_six(
    command: list[str], folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "text.safetensors").write_text("no tensors here")
    (folder / "guard.safetensors").mkdir()
    monkeypatch.chdir(folder)
    before = contents(folder)
    assert planaria(*command).failed_with(6)
    assert contents(folder) == before


KEEPS = ["-o", "m.safetensors"]


@pytest.mark.parametrize(
    "command",
    [
        ["protect", "model.safetensors"],
        ["protect", "model.gguf", "-o", "new"],
        ["protect", "model.safetensors", "-o", "new", "--tiers", "digest,magic"],
        ["protect", "model.safetensors", "-o", "new", *PLAIN, "--budget", "0.1%"],
        *(["protect", "model.safetensors", "-o", "new", "--budget", text] for text in ("0", "-1%", "2", "101%", "nan")),
        *(["protect", "model.safetensors", "-o", "new", "--budget", text] for text in ("", "%", "two", "2%%", "inf")),
        *(["protect", "model.safetensors", "-o", "new", *PLAIN, "--expect", text] for text in ("0", "2", "some")),
        ["protect", "model.safetensors", "-o", "new", *PLAIN, "--calibration", "model.safetensors"],
        ["check", "model.safetensors"],
        ["repair", "model.safetensors", "--guard", "guard"],
        ["repair", "model.safetensors", "--guard", "guard", "--in-place", "--dry-run"],
        ["repair", "model.safetensors", "--guard", "guard", "--in-place", *KEEPS],
        ["repair", "model.safetensors", "--guard", "guard", "--dry-run", *KEEPS],
        ["repair", "model.safetensors", "--guard", "guard", "-o", "m.pt"],
        ["damage", "model.safetensors", *KEEPS],
        ["damage", "bit-flip", "model.safetensors", *KEEPS],
        ["damage", "meteor", "model.safetensors", *KEEPS, "--rate", "0.1"],
        ["damage", "run", "model.safetensors", *KEEPS, "--rate", "0.1"],
        ["damage", "run", "model.safetensors", *KEEPS],
        ["damage", "run", "model.safetensors", *KEEPS, "--bytes", "0"],
        ["damage", "erasure", "model.safetensors", *KEEPS, "--count", "3"],
        ["damage", "erasure", "model.safetensors", *KEEPS, "--pattern", "row"],
        ["damage", "erasure", "model.safetensors", *KEEPS, "--fraction", "0.1", "--pattern", "stripe"],
        ["damage", "whole-weight", "model.safetensors", *KEEPS, "--rate", "0.1", "--bits", "all"],
        ["damage", "whole-weight", "model.safetensors", *KEEPS, "--rate", "1.5"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "0.1", "--count", "3"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "0.1", "--bits", "lucky"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "0.1", "--bits", "sign"],  # of int8
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "0.1", "--bits", "3,,4"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "0.1", "--bits", "99"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "0.1", "--direction", "up"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--rate", "nan"],
        ["damage", "bit-flip", "model.safetensors", *KEEPS, "--count", "999999999"],
        ["damage", "burst-flip", "model.safetensors", *KEEPS, "--rate", "0.1"],
        ["damage", "stuck-at", "model.safetensors", *KEEPS, "--rate", "0.1", "--value", "0.5"],
        ["damage", "stuck-at", "model.safetensors", *KEEPS, "--rate", "0.1", "--value", "2"],
        ["damage", "drift", "model.safetensors", *KEEPS],
        ["damage", "drift", "model.safetensors", *KEEPS, "--seconds", "60"],  # of int8
        ["damage", "non-finite", "model.safetensors", *KEEPS, "--rate", "0.1"],  # of int8
        ["damage", "swapped-tensors", "model.safetensors", *KEEPS],  # all shapes differ
        [*FEW, "model.safetensors", *KEEPS, "--tensors", "*.bias"],
        ["damage", "replay", "model.safetensors", *KEEPS],
        ["damage", "replay", "model.safetensors", "faults", *KEEPS, "--tensors", "*"],
        ["damage", "replay", "model.safetensors", "faults", *KEEPS, "--seed", "3"],
        [*FEW, "model.safetensors", "-o", "m.pt"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_three_and_writes_nothing(
    command: list[str], folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model.gguf")
    monkeypatch.chdir(folder)
    before = contents(folder)
    assert planaria(*command).failed_with(3)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        ["protect", "model.safetensors", "-o", "model.safetensors", *PLAIN],
        ["protect", "model.safetensors", "-o", "link", *PLAIN],
        ["protect", ".", "-o", "model.safetensors", *PLAIN],
        ["repair", "model.safetensors", "--guard", "guard", "-o", "model.safetensors"],
        ["repair", "model.safetensors", "--guard", "guard", "-o", "guard"],
        ["repair", "model.safetensors", "--guard", "guard", "-o", "m.safetensors", "--map", "m.safetensors"],
        ["check", "model.safetensors", "--guard", "guard", "--map", "model.safetensors"],
        ["check", "model.safetensors", "--guard", "guard", "--map", "guard"],
        ["check", ".", "--guard", "guard", "--map", "model.safetensors"],
        ["protect", "model.safetensors", "-o", "key", "--key-file", "key", *PLAIN],
        [*FEW, "model.safetensors", "-o", "model.safetensors"],
        [*FEW, "model.safetensors", "-o", "./sub/../model.safetensors"],
        [*FEW, "model.safetensors", "-o", "d.safetensors", "--faults", "model.safetensors"],
        [*FEW, "model.safetensors", "-o", "d.safetensors", "--faults", "d.safetensors"],
        ["damage", "replay", "model.safetensors", "guard", "-o", "guard"],
    ],
    ids=" ".join,
)
def test_no_output_replaces_what_is_read(
    command: list[str], folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    (folder / "link").hardlink_to(folder / "model.safetensors")
    (folder / "key").write_text("5ec7" * 16)
    monkeypatch.chdir(folder)
    before = contents(folder)
    assert planaria(*command).failed_with(3)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", [FEW, MANY])
@pytest.mark.parametrize("command", ["check", "repair"])
def test_checks_and_dry_runs_write_nothing_and_agree(
    command: str, kind: tuple[str, ...], folder: Path, planaria: Planaria
) -> None:
    planaria(*arguments(kind, folder, "-o", folder / "broken.safetensors"))
    way = ["--dry-run"] if command == "repair" else []
    folder.chmod(0o555)
    before = state(folder)
    outcome = planaria(*arguments(command, folder, *way, model="broken.safetensors"))
    after = state(folder)
    folder.chmod(0o755)
    assert after == before
    assert outcome.code == (1 if kind == FEW else 2)
    assert "check" not in outcome.err and "wrote" not in outcome.err


def test_a_repair_in_place_restores_the_file_and_leaves_an_intact_one(folder: Path, planaria: Planaria) -> None:
    intact = (folder / "model.safetensors").read_bytes()
    planaria(*arguments(FEW, folder, "-o", folder / "broken.safetensors"))
    assert planaria(*arguments("repair", folder, "--in-place", model="broken.safetensors")).code == 0
    assert (folder / "broken.safetensors").read_bytes() == intact
    before = state(folder / "model.safetensors")
    assert planaria(*arguments("repair", folder, "--in-place")).code == 0
    assert state(folder / "model.safetensors") == before


def saved_as(form: str, folder: Path) -> Path:
    if form == "folder":
        model = folder / "sharded"
        model.mkdir()
        weight_map = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(TENSORS)}
        for shard in set(weight_map.values()):
            save_file({name: tensor for name, tensor in TENSORS.items() if weight_map[name] == shard}, model / shard)
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        (model / "config.json").write_text("{}")
        return model
    write_state_dict(folder / f"model.{form}", TENSORS)
    return folder / f"model.{form}"


def tensors_of(model: Path) -> dict[str, bytes]:
    with open_checkpoint(model) as checkpoint:
        return {name: checkpoint.read(name).tobytes() for name in checkpoint.entries}


@pytest.mark.parametrize("form", ["safetensors", "pt", "folder"])
def test_every_form_of_model_is_broken_and_repaired_in_its_own_form(
    form: str, tmp_path: Path, planaria: Planaria
) -> None:
    model = saved_as(form, tmp_path)
    broken, mended, guard = (tmp_path / f"{name}{model.suffix}" for name in ("broken", "mended", "guard"))
    before = tensors_of(model)
    assert planaria("protect", model, "-o", guard, *PLAIN).code == 0
    assert planaria(*FEW, model, "-o", broken).code == 0
    assert tensors_of(model) == before != tensors_of(broken)
    assert planaria("check", broken, "--guard", guard).code == 1
    assert planaria("repair", broken, "--guard", guard, "-o", mended).code == 0
    assert tensors_of(mended) == before
    assert planaria("repair", broken, "--guard", guard, "--in-place").code == 0
    assert tensors_of(broken) == before
    if form == "folder":
        assert contents(mended) == contents(model)


@pytest.mark.parametrize(
    "kind",
    [
        ("bit-flip", "--rate", "0.001"),
        ("bit-flip", "--count", "40", "--bits", "msb"),
        ("whole-weight", "--count", "7"),
        ("run", "--bytes", "700"),
        ("erasure", "--fraction", "0.2", "--pattern", "block"),
    ],
)
def test_faults_replay_to_the_same_file_and_undo_to_the_intact_one(
    kind: tuple[str, ...], folder: Path, planaria: Planaria
) -> None:
    broken, again, faults = folder / "broken.safetensors", folder / "again.safetensors", folder / "faults"
    outcome = planaria(*arguments(("damage", *kind), folder, "-o", broken, "--faults", faults))
    assert outcome.code == 0
    damaged, listed = load_file(broken), ModelFaults.load(faults)
    changed = sum(differing(damaged[name], tensor) for name, tensor in TENSORS.items())
    assert outcome.out.startswith(f"{changed:,} weights changed") and changed > 0
    assert planaria(*arguments(("damage", "replay"), folder, faults, "-o", again)).code == 0
    assert again.read_bytes() == broken.read_bytes()
    undone = listed.undo(damaged)
    assert all(same_bits(undone[name], tensor) for name, tensor in TENSORS.items())


def differing(one: Tensor, other: Tensor) -> int:
    """Weights with different bits."""
    rows = (tensor.view(torch.uint8).view(tensor.numel(), -1) for tensor in (one, other))
    return int(torch.ne(*rows).any(1).sum())


def test_the_seed_decides_what_breaks(folder: Path, planaria: Planaria) -> None:
    outputs = []
    for seed in ("0", "0", "1"):
        assert planaria(*arguments(FEW, folder, "-o", folder / "d.safetensors", "--seed", seed)).code == 0
        outputs.append((folder / "d.safetensors").read_bytes())
    assert outputs[0] == outputs[1] != outputs[2]


def test_faults_of_another_model_are_refused(folder: Path, planaria: Planaria) -> None:
    other = arguments(FEW, folder, "-o", folder / "d.safetensors", "--faults", folder / "faults")
    assert planaria(*other).code == 0
    before = contents(folder)
    replay = (folder / "faults", "-o", folder / "e.safetensors")
    assert planaria(*arguments(("damage", "replay"), folder, *replay, model="other.safetensors")).failed_with(3)
    assert contents(folder) == before


@pytest.fixture(scope="module", params=[128, 800])
def of_size(request: pytest.FixtureRequest) -> tuple[dict[str, Tensor], Guard]:
    """Models whose runs are bounded by unknown symbols, and by tiles known to be damaged."""
    side = request.param
    tensors = {"one": drawn(side, side // 2), "other": drawn(side - 1, side // 2 - 1).bfloat16()}
    return tensors, protect(tensors, budget=0.02 if side > 500 else 0.05, tiers=("digest", "parity"))


@examples(5)
@given(seed=st.integers(0, 10**6))
def test_a_lost_run_of_the_promised_length_is_restored(seed: int, of_size: tuple[dict[str, Tensor], Guard]) -> None:
    tensors, guard = of_size
    strength = ParityTier().describe(guard)["parity"]
    assert strength is not None
    by_unknown = 2 * strength["unknown"] * strength["codewords"] - 1
    assert (strength["run_bytes"] > by_unknown) is (guard.protected_bytes > 10**6)
    lost = Run(strength["run_bytes"]).apply_to_model(tensors, generator(seed, "damage")).replay(tensors)
    assert guard.check(lost).verdict == "exact"


def test_weights_known_to_be_good_stay_and_both_forms_of_mask_agree(folder: Path, planaria: Planaria) -> None:
    broken, faults, mask = folder / "broken.safetensors", folder / "faults", folder / "mask"
    planaria(*arguments(MANY, folder, "-o", broken, "--faults", faults))
    known = ModelFaults.load(faults).known
    save_file(known, mask)
    outputs = []
    for given_as in (faults, mask):
        output = folder / f"by_{given_as.name}.safetensors"
        way = ("--known", given_as, "-o", output)
        assert planaria(*arguments("repair", folder, *way, model=broken.name)).code == 2
        outputs.append(output.read_bytes())
        mended = load_file(output)
        assert all(same_bits(mended[name][known[name]], tensor[known[name]]) for name, tensor in TENSORS.items())
    assert outputs[0] == outputs[1]
    save_file({name: ~good for name, good in known.items()}, mask)
    for given_as in (faults, mask):  # a list of faults says itself which weights are faulty
        output = folder / f"faulty_by_{given_as.name}.safetensors"
        way = ("--faulty", given_as, "-o", output)
        assert planaria(*arguments("repair", folder, *way, model=broken.name)).code == 2
        assert output.read_bytes() == outputs[0]
    assert planaria(*arguments("check", folder, "--known", mask, "--faulty", mask, model=broken.name)).failed_with(3)
    upside_down = planaria(*arguments("repair", folder, "--in-place", "--known", mask))
    assert upside_down.failed_with(3) and "--faulty" in upside_down.err
    save_file({"scale": torch.ones(3, dtype=torch.bool)}, mask)
    assert planaria(*arguments("check", folder, "--known", mask)).failed_with(3)


def test_json_is_all_that_is_on_stdout(folder: Path, planaria: Planaria) -> None:
    planaria(*arguments(MANY, folder, "-o", folder / "broken.safetensors"))
    guard = folder / "new"
    made = planaria(*arguments("protect", folder, "-o", guard, *PLAIN, "--json"))
    seen = planaria("inspect", guard, "--json")
    assert json.loads(made.out).keys() == json.loads(seen.out).keys() | {"model"}
    told = json.loads(seen.out)
    assert sum(told["tiers"].values()) == told["bytes"] == guard.stat().st_size <= 0.04 * told["model_bytes"]
    assert {tensor["name"] for tensor in told["tensors"]} == set(TENSORS) == set(told["reasons"])
    assert told["model_bytes"] == sum(tensor.nbytes for tensor in TENSORS.values())
    for way in ([], ["--map", folder / "map.png"]):
        report = json.loads(planaria(*arguments("check", folder, *way, "--json", model="broken.safetensors")).out)
        assert report["model"].endswith("broken.safetensors") and report["guard"].endswith("guard")
        assert report["exit_code"] == 2 and report["tensors"]


def test_protecting_again_gives_the_same_guard_and_tables_of_all_of_it(folder: Path, planaria: Planaria) -> None:
    outcome = planaria(*arguments("protect", folder, "-o", folder / "again", *PLAIN))
    assert outcome.code == 0
    assert (folder / "again").read_bytes() == (folder / "guard").read_bytes()
    listed = [line.split(" | ")[0][2:] for line in outcome.out.splitlines() if "| no: " in line]
    assert set(listed) == set(TENSORS)
    assert [TENSORS[name].nbytes for name in listed] == sorted((one.nbytes for one in TENSORS.values()), reverse=True)
    assert "not attackers" in outcome.out and "Parity corrects" in outcome.out and "of its own" in outcome.out
    assert planaria("inspect", folder / "again").out == outcome.out


def test_memory_is_planned_for_what_is_expected_told_and_explained(folder: Path, planaria: Planaria) -> None:
    save_file({"decoder.weight": drawn(300, 128, seed=9)}, folder / "inputs.safetensors")
    way = ("--budget", "8%", "--expect", "30%", "--tiers", "digest,copy,parity,sketch,refinement")
    given = ("--calibration", folder / "inputs.safetensors", "--explain")
    outcome = planaria(*arguments("protect", folder, "-o", folder / "new", *way, *given))
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert all(any(line.startswith("- ") and name in line for line in lines) for name in TENSORS if name != "codes")
    assert "Copies of 1 tensors" in outcome.out and "Refinement of" in outcome.out and "| copy |" in outcome.out
    told = json.loads(planaria("inspect", folder / "new", "--json").out)
    assert told["copied"] == ["scale"] and told["memory"]["strengths"][0] >= 0.3 and told["version"] == 2
    assert told["tiers"]["refinement"] > 0 and set(told["memory"]["tensors"]) <= set(TENSORS)
    assert planaria(*arguments("protect", folder, "-o", folder / "same", *way, *given, "--json")).code == 0
    assert (folder / "same").read_bytes() == (folder / "new").read_bytes()


def test_only_the_largest_tensors_are_listed_unless_all_are_asked_for(tmp_path: Path, planaria: Planaria) -> None:
    model, guard = tmp_path / "m.safetensors", tmp_path / "guard"
    save_file({f"layer {number}": drawn(100 + number, 10) for number in range(25)}, model)
    few = planaria("protect", model, "-o", guard, *PLAIN).out
    everything = planaria("inspect", guard, "--all").out
    assert few.count("| layer") == 20 and "| layer 4 |" not in few and "and 5 more" in few
    assert everything.count("| layer") == 25 and "more: --all" not in everything


def test_rules_and_their_held_out_errors_are_told(protected: Path, tmp_path: Path, planaria: Planaria) -> None:
    guard = Guard.load(protected / "guard")
    errors = {"rates": (0.1, 0.9), "errors": (0.25, 0.75), "tile_error": 1.5}
    rule = RuleShape(tensor=1, recipe="default", precision="half", space=(), **errors)
    manifest = replace(guard.manifest, rules=(rule,), reasons={"too small": [0, 2, 99]})
    arrays = {**guard.arrays, "manifest": manifest.encode(), "rule.1": np.zeros(8, np.uint8)}
    (tmp_path / "guard").write_bytes(container.pack(arrays, key=None))
    names = [entry.name for entry in guard.entries]
    lines = planaria("inspect", tmp_path / "guard").out.splitlines()
    told = {name: line for line in lines for name in names if line.startswith(f"| {name} |")}
    assert told[names[1]].endswith("| 0.25 at 10%, 0.75 at 90%, 1.5 in lost tiles |")
    assert told[names[0]].endswith("| no: too small |") and told[names[3]].endswith("| no |")
    outcome = json.loads(planaria("inspect", tmp_path / "guard", "--json").out)
    assert [rule["tensor"] for rule in outcome["rules"]] == [names[1]]
    assert outcome["reasons"] == {names[0]: "too small", names[2]: "too small"}


def test_a_broken_byte_of_the_guard_is_mended_and_told(folder: Path, planaria: Planaria) -> None:
    guard = folder / "guard"
    content = bytearray(guard.read_bytes())
    content[len(content) // 2] ^= 255
    guard.write_bytes(content)
    assert json.loads(planaria("inspect", guard, "--json").out)["mended"] == 1
    assert "Of its own bytes 1 were broken" in planaria("inspect", guard).out
    for command in (("check",), ("repair", "--in-place")):
        outcome = planaria(*arguments(command[0], folder, *command[1:]))
        assert outcome.code == 0 and "mended 1 bytes" in outcome.out
        assert f"`planaria mend {guard}`" in outcome.err.splitlines()[0]
    assert guard.read_bytes() == content


@pytest.mark.parametrize("broken", [0, 1, 30])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_guard_is_mended_to_the_byte(
    broken: int, keyed: bool, elsewhere: bool, folder: Path, planaria: Planaria
) -> None:
    guard, key = folder / "guard", []
    if keyed:
        planaria("key", "-o", folder / "key")
        key = ["--key-file", folder / "key"]
        planaria(*arguments("protect", folder, "-o", guard, *PLAIN, *key))
    intact = guard.read_bytes()
    content = bytearray(intact)
    for place in range(7, 7 + 101 * broken, 101):
        content[place] ^= 90
    guard.write_bytes(content)
    output = folder / "mended" if elsewhere else guard
    before = state(folder)
    outcome = planaria("mend", guard, *key, *(["-o", output] if elsewhere else []))
    assert outcome.code == 0 and output.read_bytes() == intact
    if broken:
        assert outcome.out == f"{broken} bytes mended\n" and outcome.err == f"wrote {output}\n"
    elif not elsewhere:
        assert outcome.err == "nothing to do\n" and state(folder) == before
    assert guard.read_bytes() == (content if elsewhere else intact)
    assert planaria("mend", output, *key).err == "nothing to do\n"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_guard_beyond_mending_is_exit_code_four_and_stays(elsewhere: bool, folder: Path, planaria: Planaria) -> None:
    guard = folder / "guard"
    content = bytearray(guard.read_bytes())
    parity = Guard.from_bytes(bytes(content)).arrays["parity"].tobytes()
    at = content.index(parity)
    content[at : at + len(parity)] = bytes(len(parity))
    guard.write_bytes(content)
    before = state(folder)
    outcome = planaria("mend", guard, *(["-o", folder / "mended"] if elsewhere else []))
    assert outcome.failed_with(4) and "parity" in outcome.err and "another copy" in outcome.err
    assert state(folder) == before
    checked = planaria(*arguments("check", folder))
    assert checked.code == 0 and "use another copy" in checked.err


def test_a_mended_guard_replaces_nothing_that_is_used(folder: Path, planaria: Planaria) -> None:
    planaria("key", "-o", folder / "key")
    before = contents(folder)
    for output in ("guard", "key"):
        way = ("-o", folder / output, "--key-file", folder / "key")
        assert planaria("mend", folder / "guard", *way).failed_with(3)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", [FEW, MANY, ("damage", "truncated-file", "--kept", "0.5")], ids=lambda kind: kind[1])
def test_a_quick_check_is_exit_code_two_whatever_a_repair_could_do(
    kind: tuple[str, ...], folder: Path, planaria: Planaria
) -> None:
    assert planaria(*arguments("check", folder, "--quick")).out == "intact\n"
    planaria(*arguments(kind, folder, "-o", folder / "broken.safetensors"))
    before = contents(folder)
    outcome = planaria(*arguments("check", folder, "--quick", model="broken.safetensors"))
    assert outcome.code == 2 and "not examined further" in outcome.out
    told = json.loads(planaria(*arguments("check", folder, "--quick", "--json", model="broken.safetensors")).out)
    assert told["verdict"] == "damaged" and told["exit_code"] == 2
    assert {name for name, count in told["tiles"].items() if count} <= {"intact", "damaged"}
    assert contents(folder) == before
    assert planaria(*arguments("check", folder, "--quick", model="tuned.safetensors")).code == 2
    assert planaria(*arguments("check", folder, "--quick", model="other.safetensors")).failed_with(5)
    save_file({"scale": torch.ones(9, dtype=torch.bool)}, folder / "mask")
    assert planaria(*arguments("check", folder, "--quick", "--known", folder / "mask")).failed_with(3)


def test_a_key_is_fresh_private_and_never_overwritten(tmp_path: Path, planaria: Planaria) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert planaria("key", "-o", one).code == planaria("key", "-o", other).code == 0
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    content = one.read_text()
    assert len(bytes.fromhex(content)) == 32 and content != other.read_text()
    again = planaria("key", "-o", one)
    assert again.failed_with(3) and one.read_text() == content
    assert content.strip() not in again.err


def test_a_guard_with_a_key_answers_to_that_key_alone(
    folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    planaria("key", "-o", folder / "key")
    planaria("key", "-o", folder / "wrong")
    right, wrong = (folder / name for name in ("key", "wrong"))
    made = planaria(*arguments("protect", folder, "-o", folder / "guard", *PLAIN, "--key-file", right))
    assert made.code == 0 and "detects attackers too" in made.out
    assert planaria(*arguments("check", folder)).failed_with(3)
    assert planaria(*arguments("check", folder, "--key-file", wrong)).failed_with(4)
    assert planaria("inspect", folder / "guard").failed_with(3)
    assert planaria("inspect", folder / "guard", "--key-file", right).code == 0
    monkeypatch.setenv("PLANARIA_KEY", right.read_text())
    assert planaria(*arguments("check", folder)).code == 0
    assert planaria(*arguments("check", folder, "--key-file", wrong)).failed_with(4)
    monkeypatch.setenv("PLANARIA_KEY", wrong.read_text())
    assert planaria(*arguments("check", folder)).failed_with(4)
    assert planaria(*arguments("check", folder, "--key-file", right)).code == 0


@pytest.mark.parametrize("way", ["--key-file", "PLANARIA_KEY"])
@pytest.mark.parametrize("command", [("check",), ("repair", "--in-place"), ("inspect",), ("mend",)])
def test_a_guard_without_a_key_in_the_place_of_a_keyed_one_is_exit_code_four(
    command: tuple[str, ...], way: str, folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    planaria("key", "-o", folder / "key")
    if way == "PLANARIA_KEY":
        monkeypatch.setenv(way, (folder / "key").read_text())
    key = [way, folder / "key"] if way == "--key-file" else []
    before = contents(folder)
    of_model = command[0] in ("check", "repair")
    given = arguments(command[0], folder, *command[1:]) if of_model else [*command, folder / "guard"]
    outcome = planaria(*given, *key)
    assert outcome.failed_with(4)
    assert "without a key" in outcome.err and str(folder / "guard") in outcome.err
    assert contents(folder) == before


@pytest.mark.parametrize("content", ["", "5ec7e7", "5ec7e7" * 11, "5ec7e7" * 10 + "zzzz", "5ec7 7e" * 9, "\xff" * 32])
def test_a_malformed_key_is_wrong_usage_and_not_repeated(
    content: str, folder: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "key").write_bytes(content.encode("latin-1"))
    by_file = planaria(*arguments("check", folder, "--key-file", folder / "key"))
    monkeypatch.setenv("PLANARIA_KEY", content)
    by_variable = planaria(*arguments("check", folder))
    for outcome in (by_file, by_variable):
        assert outcome.failed_with(3)
        assert "64 hex characters" in outcome.err and "5ec7" not in outcome.err


@given(st.floats(1e-6, 100))
def test_a_percentage_and_its_fraction_are_one_budget(percent: float) -> None:
    assert share_of(f"{percent}%", "budget") == pytest.approx(share_of(f"{percent / 100}", "budget"))


@given(st.text(max_size=6))
def test_a_budget_is_a_share_or_refused(text: str) -> None:
    try:
        share = share_of(text, "budget")
    except InvalidInput:
        return
    assert 0 < share <= 1


@pytest.mark.parametrize("value", [0, -0.1, 1.5, float("nan"), None, "", "%", "two", "0%", "101%", [0.1]])
def test_what_is_no_share_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^budget is a share, as 2% or 0\.02"):
        share_of(value, "budget")  # type: ignore[arg-type]


def test_the_version_and_the_commands_to_complete_are_printed(
    planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planaria("--version").out == f"planaria {__version__}\n"
    monkeypatch.setenv("_PLANARIA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "planaria re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert planaria().out.split() == ["repair"]


def test_every_exit_code_is_in_the_help(planaria: Planaria) -> None:
    lines = [line.split() for line in planaria("--help").out.splitlines()]
    assert {str(code) for code in range(8)} <= {line[0] for line in lines if line}
    assert {code for code, _ in command_line.EXIT_CODES} == {3, 4, 5, 6, 7}


@pytest.mark.parametrize("terminal", [True, False])
def test_names_in_files_cannot_steer_the_terminal_or_break_the_table(
    terminal: bool, tmp_path: Path, planaria: Planaria, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, guard = tmp_path / "m.safetensors", tmp_path / "guard"
    save_file({"a\x1b[2J|b\n[red]": drawn(64, 64), "$c$": drawn(64, 64)}, model)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "300")
    outcomes = [planaria("protect", model, "-o", guard, *PLAIN, "--budget", "10%")]
    planaria(*MANY, model, "-o", tmp_path / "d.safetensors")
    outcomes.append(planaria("check", tmp_path / "d.safetensors", "--guard", guard, "--map", tmp_path / "map.png"))
    assert [outcome.code for outcome in outcomes] == [0, 2]
    for outcome in outcomes:
        assert "\x1b[2J" not in outcome.out + outcome.err
        assert ("| --- |" in outcome.out) is not terminal
        (row,) = (line for line in outcome.out.splitlines() if "b?[red]" in line)
        if not terminal:
            assert row.startswith("| a?[2J\\|b?[red] | ")
    assert (tmp_path / "map.png").stat().st_size > 0


def report_of(*tensors: tuple[int, tuple[tuple[int, str], ...]]) -> Report:
    """A report of tensors of so many tiles, each with its damaged ones."""
    return Report(
        action="check",
        tile=64,
        tensors=tuple(
            TensorReport(
                name=f"tensor {number}",
                dtype="U8",
                shape=(64 * tiles,),
                nbytes=64 * tiles,
                tiles=tiles,
                regions=tuple(Region(start=64 * at, stop=64 * at + 64, verdict=verdict) for at, verdict in damaged),
            )
            for number, (tiles, damaged) in enumerate(tensors)
        ),
    )


def coloured(path: Path) -> dict[str, int]:
    """Pixels of each verdict's colour above the legend; of all but the intact grey, which letters have too."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))[:-60]
    of = {verdict: [int(COLOURS[verdict][at : at + 2], 16) for at in (1, 3, 5)] for verdict in VERDICTS[1:]}
    return {verdict: int((pixels == colour).all(2).sum()) for verdict, colour in of.items()}


@pytest.mark.parametrize("verdict", VERDICTS[1:])
def test_one_bad_tile_among_a_million_shows_in_its_colour(verdict: str, tmp_path: Path) -> None:
    draw_damage_map(report_of((10**6, ((654_321, verdict),)), (0, ())), tmp_path / "map.png")
    assert {name for name, pixels in coloured(tmp_path / "map.png").items() if pixels} == {verdict}


def test_the_worst_verdict_of_a_column_wins(tmp_path: Path) -> None:
    damaged = tuple((at, VERDICTS[1 + at % 6]) for at in range(6000))
    draw_damage_map(report_of((6000, damaged)), tmp_path / "map.png")
    assert {name for name, pixels in coloured(tmp_path / "map.png").items() if pixels} == {"damaged"}


def test_a_picture_of_a_hundred_damaged_tensors_is_no_larger_than_of_forty(tmp_path: Path) -> None:
    sizes = []
    for count in (40, 103):
        draw_damage_map(report_of(*[(50, ((7, "exact"), (20, "lost")))] * count), tmp_path / "map.png")
        with Image.open(tmp_path / "map.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1] and sizes[0][1] > 800


def test_an_empty_tensor_is_no_obstacle_to_damage(tmp_path: Path, planaria: Planaria) -> None:
    save_file({"none": torch.zeros(0, 3), "some": torch.ones(4)}, tmp_path / "model.safetensors")
    broken = tmp_path / "broken.safetensors"
    assert planaria(*arguments(FEW, tmp_path, "-o", broken)).code == 0
    assert load_file(broken)["none"].shape == (0, 3) and not load_file(broken)["some"].equal(torch.ones(4))
