"""`planaria damage`: what its commands break is what the classes of `planaria.damages` break."""

import re
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest
import torch
from helpers import same_bits
from safetensors.torch import load_file, save_file
from test_damage_contract import FOR_MODELS, MEMBERS, same_model_faults

from planaria import command_line
from planaria.checkpoints import open_checkpoint
from planaria.damages import BitFlip, Damage, ModelFaults, OnTensors
from planaria.streams import generator

DAMAGES = [member.damage for member in MEMBERS.values() if not isinstance(member.damage, OnTensors)]
DAMAGES += [*FOR_MODELS, BitFlip(count=9, bits=(3, 30))]
NAMES = ("one", "t*")


def command(damage: Damage) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(damage).__name__).lower()


@pytest.fixture
def planaria(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `planaria damage ARGUMENTS` in this process, and answers with what it says."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["planaria", "damage", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            command_line.main()
        said = capsys.readouterr()
        assert stopped.value.code == 0, said.err
        return re.sub(r"\x1b\[[\d;]*m", "", said.out)  # colours, where help is forced to have them

    return run


@pytest.mark.parametrize("damage", DAMAGES, ids=repr)
def test_every_damage_has_a_command_that_does_what_it_does(
    damage: Damage, tmp_path: Path, planaria: Callable[..., str]
) -> None:
    dtypes = {"one": torch.float32, "two": torch.float32, "scale": torch.float64, "steps": torch.int64}
    tensors = {name: (90 * torch.rand(9, 8, generator=generator(0, name))).to(of) for name, of in dtypes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    settings = {name: getattr(damage, name) for name in signature(type(damage)).parameters}
    options = []
    for name, value in settings.items():
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            options += [f"--{name.replace('_', '-')}", text]
    chosen = [word for name in NAMES for word in ("--tensors", name)]
    outputs = ("-o", tmp_path / "broken.safetensors", "--faults", tmp_path / "faults")
    planaria(command(damage), tmp_path / "model.safetensors", *options, *chosen, *outputs, "--seed", "3")

    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        stored = {name: tensors[name] for name in checkpoint.entries}  # damages draw in this order
    expected = OnTensors(damage, names=NAMES).apply_to_model(stored, generator(3, "damage"))
    faults, broken = ModelFaults.load(tmp_path / "faults"), load_file(tmp_path / "broken.safetensors")
    assert same_model_faults(ModelFaults({name: faults.tensors[name] for name in expected.tensors}), expected)
    assert all(same_bits(broken[name], weight) for name, weight in expected.replay(tensors).items())
    assert not all(same_bits(broken[name], tensors[name]) for name in ("one", "two"))

    planaria("replay", tmp_path / "model.safetensors", tmp_path / "faults", "-o", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "broken.safetensors").read_bytes()


@pytest.mark.parametrize("damage", {command(damage): damage for damage in DAMAGES}.values(), ids=command)
def test_help_has_a_line_for_every_damage_and_a_word_on_its_every_option(
    damage: Damage, planaria: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    summary = sys.modules[type(damage).__module__].__doc__
    assert re.search(rf"^\W*{command(damage)} +{re.escape(summary)}", planaria("--help"), re.M)
    monkeypatch.setenv("COLUMNS", "200")
    said = planaria(command(damage), "--help")
    assert " ".join(type(damage).__doc__.split()[:9]) in " ".join(said.split()) and "Raises" not in said
    for name in signature(type(damage)).parameters:
        assert re.search(rf"--{name.replace('_', '-')} +\S+ +[A-Z0-9\"]", said), name
