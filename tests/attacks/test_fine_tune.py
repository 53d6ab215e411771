"""A guard of earlier weights says that a model was trained on, and leaves it alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from victims import answers, batch, broken, loss, victim

import planaria
from planaria.command_line import main
from planaria.damages import ModelFaults
from planaria.errors import LooksDifferent
from planaria.streams import generator
from planaria_lab.attacks import FineTune, LabelFlip


def tuned(*names: str) -> ModelFaults:
    return FineTune(20, rate=0.002, names=names or ("*.weight", "*.bias")).apply(
        victim(), *batch(), generator(0, "test fine-tuning")
    )


def test_fine_tuning_learns_what_it_is_taught_and_flipped_labels_do_not() -> None:
    inputs, labels = batch()
    before = loss(victim(), inputs, labels)
    assert loss(broken(victim(), tuned()), inputs, labels) < before
    poisoned = LabelFlip(1.0, steps=20, rate=0.01).apply(victim(), inputs, labels, generator(0, "test fine-tuning"))
    answered = answers(broken(victim(), poisoned), inputs).argmax(1)
    assert loss(broken(victim(), poisoned), inputs, labels) > 2 * before
    assert len(answered[answered != labels].unique()) > 3, "the change has no target"


def test_a_fine_tuned_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    intact = victim().state_dict()
    guard = planaria.protect(intact, budget=0.3, tiers=["parity"])
    later = tuned().replay(intact)
    for act in (guard.check, guard.repair):
        kept = {name: tensor.clone() for name, tensor in later.items()}
        with pytest.raises(LooksDifferent, match="fine-tuned"):
            act(kept)
        assert all(torch.equal(tensor, later[name]) for name, tensor in kept.items())
    file = tmp_path / "later.safetensors"
    save_file(later, file)
    guard.save(tmp_path / "guard")
    for command, *options in (["check"], ["repair", "--in-place"]):
        monkeypatch.setattr("sys.argv", ["planaria", command, str(file), "--guard", str(tmp_path / "guard"), *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 5
        complaint = capsys.readouterr().err.strip()
        assert "fine-tuned" in complaint and "\n" not in complaint
    assert all(torch.equal(tensor, later[name]) for name, tensor in load_file(file).items())


def test_an_edited_layer_is_reported_never_passed_over() -> None:
    """One layer of other weights is told from one that broke where the guard can, and is in the report either way."""
    intact = victim().state_dict()
    guard = planaria.protect(intact, budget=0.3, tiers=["parity"])
    edited = tuned("6.weight").replay(intact)
    report = guard.repair(edited)
    assert {tensor.name for tensor, _ in report.regions()} == {"6.weight"}
    assert report.verdict != "intact"
