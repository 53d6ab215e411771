"""The experiment itself."""

import json
import math

import pytest
import torch
from helpers import drawn, mask, moving, same_bits

from planaria.automaton import DEFAULT
from planaria.errors import InvalidInput
from planaria.fit import Fit
from planaria.repairers import Regrow
from planaria_lab.bench import repair_table, tinymlp
from planaria_lab.bench.experiment import Experiment
from planaria_lab.reference import REFERENCE


def test_r2_is_one_for_the_truth_and_zero_for_the_missing_weights_mean() -> None:
    intact, known = drawn(6, 7), mask(6, 7)
    guess = torch.where(known, intact, intact[~known].mean())
    assert repair_table.missing_r2(intact, intact, known) == 1
    assert repair_table.missing_r2(intact, guess, known) == pytest.approx(0, abs=1e-6)
    assert repair_table.missing_r2(intact, -9 * intact, known) < 0
    assert repair_table.missing_r2(intact, torch.where(known, 1e9, intact), known) == 1


def test_every_method_faces_the_same_stored_faults() -> None:
    weight = drawn(20, 30)
    first, second = (repair_table.stored_faults(weight, rate=0.3, mask=1, seed=0) for _ in range(2))
    assert torch.equal(first.index, second.index) and len(first.index) == 180
    for other in ({"rate": 0.3, "mask": 2, "seed": 0}, {"rate": 0.3, "mask": 1, "seed": 1}):
        assert not torch.equal(repair_table.stored_faults(weight, **other).index, first.index)


def test_the_default_recipe_comes_with_its_variations() -> None:
    fits = [Fit(moving(DEFAULT), [], [], 0.0)] * 2
    rows = repair_table.fitted_repairers(DEFAULT, fits)
    assert list(rows) == [
        "default recipe",
        "default recipe, single precision",
        "default recipe, 8-bit rule",
        "default recipe, 10 x steps",
    ]
    assert [len(repairers) for repairers in rows.values()] == [2, 2, 2, 1]  # the slow rollouts are of one fit
    assert all(isinstance(repairers[0], Regrow) for repairers in rows.values())
    assert list(repair_table.fitted_repairers(REFERENCE, [Fit(moving(REFERENCE), [], [], 0.0)])) == ["reference recipe"]


def test_without_recipes_the_closed_forms_are_measured_alone_and_on_the_same_masks() -> None:
    experiment = Experiment(networks=("A",), rates=(0.9,), masks=1, fits=1, seed=0)
    result, fits = repair_table.run(experiment, progress=lambda *told: None, recipes=())
    assert fits == {"A": {}}
    rows = {row["method"]: row for row in json.loads(json.dumps(result, allow_nan=False))["networks"]["A"]["rows"]}
    assert rows.keys() == repair_table.closed_form_repairers().keys()
    weight = tinymlp.shipped("A").fc1.weight.detach()
    faults = repair_table.stored_faults(weight, rate=0.9, mask=0, seed=0)
    zeroed = torch.where(faults.known, weight, 0.0)
    r2 = rows["zero"]["rates"]["0.9"]["r2"]
    assert r2["mean"] == pytest.approx(repair_table.missing_r2(weight, zeroed, faults.known), abs=1e-4)
    assert r2["interval"] is None
    assert same_bits(weight, tinymlp.shipped("A").fc1.weight.detach())


def test_a_rate_that_leaves_nothing_missing_is_refused_before_anything_is_fitted() -> None:
    """1e-6 of 50,176 weights rounds to none of them."""
    experiment = Experiment(networks=("A",), rates=(0.5, 1e-6), masks=1, fits=1, seed=0)
    with pytest.raises(InvalidInput, match="erases none"):
        repair_table.run(experiment, progress=lambda *told: None, recipes=())


def test_a_loss_that_left_the_finite_range_is_stored_as_none() -> None:
    fit = Fit(moving(DEFAULT), [0.5, 0.25], [(0, 1.0), (2, math.inf)], 1.0)
    stored = repair_table._fit_summary(fit)
    assert [loss for _, loss in stored["held_out"]] == [1.0, None]
    assert stored["iterations"] == 2 and stored["parameters"] == fit.automaton.parameter_count
    json.dumps(stored, allow_nan=False)


def test_a_fit_whose_training_loss_left_the_finite_range_can_be_stored_too() -> None:
    json.dumps(repair_table._fit_summary(Fit(moving(DEFAULT), [0.5, math.nan], [(0, 1.0)], 1.0)), allow_nan=False)
