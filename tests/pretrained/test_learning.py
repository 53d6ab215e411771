"""Learning pretrained rules on a population, and their files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import drawn, mask
from populations import smooth
from safetensors.torch import load, save

from planaria.automaton import Automaton
from planaria.errors import InvalidFile, InvalidInput
from planaria.pretrained import RECIPE, shipped
from planaria_lab.pretrained import PopulationSchedule, fit_population, load_rule, rule_bytes, save_rule

SMALL = PopulationSchedule(surveys=4, grids=6, iterations=3, tensors=1, batch=2, held_out=2)


def test_a_rule_is_learned_saved_and_read_again(tmp_path: Path) -> None:
    kinds = {"one": smooth(6, 8, 8), "other": smooth(6, 8, 8, seed=1)}
    rule = fit_population(kinds, name="test-1", schedule=SMALL, moments={"one": torch.eye(64)})
    again = fit_population(kinds, name="test-1", schedule=SMALL, moments={"one": torch.eye(64)})
    assert rule_bytes(rule) == rule_bytes(again)
    save_rule(rule, tmp_path / "rule.safetensors")
    read = load_rule(tmp_path / "rule.safetensors")
    assert read.name == "test-1" and read.card == rule.card and len(rule_bytes(read)) == len(rule_bytes(rule))
    grids, known = smooth(1, 5, 8, seed=3)[0], mask(5, 8, 8)
    torch.testing.assert_close(read.repaired(grids, known), rule.repaired(grids, known), rtol=0.05, atol=0.05)


def test_a_rule_may_be_larger_and_says_so_in_its_file(tmp_path: Path) -> None:
    recipe = replace(RECIPE, channels=12, hidden=40, steps=5)
    rule = fit_population({"one": smooth(6, 8, 8)}, name="test-1", schedule=SMALL, recipe=recipe)
    save_rule(rule, tmp_path / "rule.safetensors")
    read = load_rule(tmp_path / "rule.safetensors")
    assert read.automaton.recipe == recipe and read.automaton.parameter_count > 2 * Automaton(RECIPE).parameter_count
    grids, known = smooth(1, 5, 8, seed=3)[0], mask(5, 8, 8)
    torch.testing.assert_close(read.repaired(grids, known), rule.repaired(grids, known), rtol=0.05, atol=0.05)
    with pytest.raises(InvalidInput, match="channels, hidden, steps"):
        fit_population({"one": smooth(6, 8, 8)}, name="test-1", schedule=SMALL, recipe=replace(recipe, fire_rate=0.5))


def test_populations_that_teach_nothing_are_refused() -> None:
    good = smooth(5, 6, 8)
    for kinds in ({}, {"few": good[:3]}, {"mixed": [*good, drawn(6, 4, 4)]}, {"broken": [*good, good[0] * torch.nan]}):
        with pytest.raises(InvalidInput):
            fit_population(kinds, name="test-1", schedule=SMALL)
    with pytest.raises(InvalidInput, match="moments"):
        fit_population({"one": good}, name="test-1", schedule=SMALL, moments={"one": torch.eye(3)})
    with pytest.raises(InvalidInput, match="surveys"):
        PopulationSchedule(surveys=0)


def test_files_that_are_no_rule_are_refused(tmp_path: Path) -> None:
    content = rule_bytes(shipped("sheet-1"))
    tensors = load(content)

    def about(**changed: object) -> dict[str, str]:
        return {"rule": json.dumps({"version": "1", "name": "sheet-1", "card": {}} | changed)}

    hostile = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "no version": save(tensors),
        "newer": save(tensors, about(version="2")),
        "no fields": save({name: of for name, of in tensors.items() if name != "prior.fields"}, about()),
        "other shift": save(tensors | {"shift": torch.zeros(2, 2)}, about()),
        "not finite": save(tensors | {"shift": tensors["shift"] * torch.nan}, about()),
        "other automaton": save(tensors | {"automaton.rule.delta_bias": torch.zeros(99)}, about()),
        "card no object": save(tensors, about(card=[1])),
        "no JSON": save(tensors, {"rule": "{"}),
        "of another size": save(tensors, about(size={"hidden": 25})),
        "of no size": save(tensors, about(size={"hidden": 0})),
        "of few channels": save(tensors, about(size={"channels": 1})),
        "immense": save(tensors, about(size={"hidden": 2**40})),
        "of another kind": save(tensors, about(size={"fire_rate": 1})),
        "size no object": save(tensors, about(size=[5])),
    }
    for name, broken in hostile.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(broken)
        with pytest.raises(InvalidFile):
            load_rule(path)
    with pytest.raises(InvalidFile):
        load_rule(tmp_path / "nowhere")
