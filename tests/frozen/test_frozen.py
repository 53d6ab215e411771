"""Frozen rules: the prior, the file, the shipped rule, and learning one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import drawn, mask, same_bits
from safetensors.torch import load, save

from planaria.automaton import Automaton
from planaria.errors import InvalidFile, InvalidInput
from planaria.fit.population import PopulationSchedule, fit_population, learned_prior
from planaria.frozen import RECIPE, FrozenRule, Prior, shipped
from planaria.layouts import Sheet
from planaria.repairers import Kriging, Record, RegrowFrozen, SurvivorKriging, ZeroFill
from planaria.streams import generator

SMALL = PopulationSchedule(surveys=4, grids=6, iterations=3, tensors=1, batch=2, held_out=2)


def smooth(networks: int, grids: int, side: int, seed: int = 0) -> list[torch.Tensor]:
    """Grids whose neighbours are alike."""
    waves = torch.stack([torch.cos(torch.pi / side * (torch.arange(side) + 0.5) * wave) for wave in range(3)])
    mixed = drawn(networks, grids, 3, 3, seed=seed, name="mixture")
    return list(torch.einsum("ngab,ax,by->ngxy", mixed, waves, waves) + 0.1 * drawn(networks, grids, side, side))


@pytest.fixture(scope="module")
def prior() -> Prior:
    return learned_prior({"waves": smooth(8, 10, 8)})


def test_the_mean_is_that_of_the_gaussian(prior: Prior) -> None:
    grids, known = smooth(1, 12, 8, seed=5)[0], mask(12, 8, 8, share=0.6)
    found = prior.surveyed(grids, known)
    covariance, _ = prior._adapted(grids, known)
    flat, there = grids.flatten(1), known.flatten(1)
    noise = 1e-3 * covariance.diagonal().mean() * torch.eye(64)
    for values, seen, mean in zip(flat, there, found.mean.flatten(1), strict=True):
        among = (covariance + noise)[seen][:, seen].double()
        expected = covariance[~seen][:, seen].double() @ torch.linalg.solve(among, values[seen].double())
        torch.testing.assert_close(mean[~seen].double(), expected, rtol=1e-3, atol=1e-3)
        assert same_bits(mean[seen], values[seen])


def test_leaving_one_out_is_hiding_it(prior: Prior) -> None:
    grids, known = smooth(1, 12, 8, seed=6)[0], mask(12, 8, 8, share=0.7)
    predicted = prior.left_one_out(grids, known)
    covariance, _ = prior._adapted(grids, known)
    noise = 1e-3 * covariance.diagonal().mean() * torch.eye(64)
    seen = known[3].flatten()
    cell = int(seen.nonzero()[4])
    others = seen.clone()
    others[cell] = False
    among = (covariance + noise)[others][:, others].double()
    expected = covariance[cell, others].double() @ torch.linalg.solve(among, grids[3].flatten()[others].double())
    torch.testing.assert_close(predicted[3].flatten()[cell].double(), expected, rtol=1e-2, atol=1e-2)


def test_a_taught_kind_repairs_better_than_an_unknown_one(prior: Prior) -> None:
    grids, known = smooth(1, 30, 8, seed=7)[0], mask(30, 8, 8, share=0.2)

    def error(of: Prior) -> float:
        return float((of.surveyed(grids, known).mean - grids)[~known].square().mean())

    assert error(prior) < error(prior.without(0)) < float(grids[~known].square().mean())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_kinds_that_nobody_taught_are_repaired_as_kriging_from_survivors_does(prior: Prior, share: float) -> None:
    """Waves across, of which the prior knows none; 3 % for what is estimated on fewer cells."""
    phases = 6.28 * torch.rand(48, 1, 1, generator=generator(0, "phases"))
    grids = torch.cos(2.4 * torch.arange(8) + phases).expand(48, 8, 8) + 0.3 * drawn(48, 8, 8)
    known = mask(48, 8, 8, share=share)
    layout = Sheet((8, 8))

    def error(repaired: torch.Tensor) -> float:
        return float((repaired.view(48, 8, 8) - grids)[~known].square().mean())

    flat, there = grids.flatten(1), known.flatten(1)
    kriged = error(SurvivorKriging(layout).restore(flat, there, Record()))
    assert error(prior.surveyed(grids, known).mean) < 1.03 * kriged < error(torch.zeros(48, 64))


def test_what_survivors_tell_lies_between_0_and_1(prior: Prior) -> None:
    for share in (0.0, 0.5, 1.0):
        told = prior.surveyed(smooth(1, 3, 8)[0], mask(3, 8, 8, share=share)).told
        assert ((told >= 0) & (told <= 1)).all()


def test_grids_that_no_prior_is_for_are_refused(prior: Prior) -> None:
    for space in ((33, 32), (0, 4), (4,)):
        with pytest.raises(InvalidInput, match="1,024"):
            prior.covariances(space)
    with pytest.raises(InvalidInput, match="no prior"):
        Prior(torch.zeros(1, 2, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(InvalidInput, match="negative"):
        Prior(torch.zeros(1, 2, 4, 4), -torch.ones(1, 4, 4))


def test_a_rule_is_learned_saved_and_read_again(tmp_path: Path) -> None:
    kinds = {"one": smooth(6, 8, 8), "other": smooth(6, 8, 8, seed=1)}
    rule = fit_population(kinds, name="test-1", schedule=SMALL, moments={"one": torch.eye(64)})
    again = fit_population(kinds, name="test-1", schedule=SMALL, moments={"one": torch.eye(64)})
    assert rule.to_bytes() == again.to_bytes()
    rule.save(tmp_path / "rule.safetensors")
    read = FrozenRule.load(tmp_path / "rule.safetensors")
    assert read.name == "test-1" and read.card == rule.card and read.nbytes == rule.nbytes
    grids, known = smooth(1, 5, 8, seed=3)[0], mask(5, 8, 8)
    torch.testing.assert_close(read.repaired(grids, known), rule.repaired(grids, known), rtol=0.05, atol=0.05)


def test_a_rule_may_be_larger_and_says_so_in_its_file(tmp_path: Path) -> None:
    recipe = replace(RECIPE, channels=12, hidden=40, steps=5)
    rule = fit_population({"one": smooth(6, 8, 8)}, name="test-1", schedule=SMALL, recipe=recipe)
    rule.save(tmp_path / "rule.safetensors")
    read = FrozenRule.load(tmp_path / "rule.safetensors")
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
    content = shipped("sheet-1").to_bytes()
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
            FrozenRule.load(path)
    with pytest.raises(InvalidFile):
        FrozenRule.load(tmp_path / "nowhere")


def test_the_shipped_rule_beats_what_stores_and_what_stores_nothing() -> None:
    """On network A, which it has never seen: kriging with its own covariance, and zeros."""
    from planaria_lab.bench import tinymlp

    weight = tinymlp.shipped("A").fc1.weight.detach()
    known = mask(*weight.shape, share=0.1, seed=4)
    layout = Sheet((28, 28))

    def error(repairer: RegrowFrozen | Kriging | ZeroFill) -> float:
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        return float((restored - weight)[~known].square().mean())

    frozen = RegrowFrozen(shipped("sheet-1"), layout)
    assert error(frozen) < 0.85 * error(Kriging(layout)) < error(ZeroFill())
    assert frozen.prepare(weight).nbytes == 0


def test_rules_that_are_not_there_and_layouts_of_other_axes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="sheet-1"):
        shipped("sheet-0")
    with pytest.raises(InvalidInput, match="axes"):
        RegrowFrozen(shipped("sheet-1"), Sheet((4,)))
