"""The automaton as a repairer."""

import pytest
import torch
from helpers import drawn, mask, moving, same_bits

from planaria.automaton import DEFAULT, Automaton
from planaria.automaton.normalisation import Normalisation
from planaria.errors import InvalidInput
from planaria.layouts import Flat, Sheet
from planaria.repairers import Record, Regrow
from planaria_lab.reference import REFERENCE

SHEETS = Sheet((4, 5))


@pytest.mark.parametrize("precision", ["single", "half", "byte"])
def test_rubbish_in_missing_cells_never_leaks(precision: str) -> None:
    weight, known = drawn(6, 20), mask(6, 20)
    repairer = Regrow(moving(DEFAULT), SHEETS, precision=precision)
    record = repairer.prepare(weight)
    restored = [
        repairer.restore(torch.where(known, weight, rubbish), known, record)
        for rubbish in (0.0, float("nan"), float("-inf"), 3e38)
    ]
    assert all(same_bits(one, restored[0]) for one in restored[1:])
    assert not same_bits(restored[0], torch.where(known, weight, weight.mean()))


def test_a_new_rule_fills_with_the_mean() -> None:
    weight, known = drawn(6, 20) + 1, mask(6, 20)
    repairer = Regrow(Automaton(DEFAULT), SHEETS)
    filled = repairer.restore(weight, known, repairer.prepare(weight))[~known]
    torch.testing.assert_close(filled, weight.mean().expand_as(filled))


@pytest.mark.parametrize("recipe", [DEFAULT, REFERENCE], ids=lambda recipe: recipe.name)
def test_single_precision_does_what_the_automaton_does(recipe: object) -> None:
    automaton, known = moving(recipe), mask(6, 20)
    weight = drawn(6, 20)
    repairer = Regrow(automaton, SHEETS, precision="single")
    restored = repairer.restore(weight, known, repairer.prepare(weight))
    normalisation = Normalisation.of(weight)
    with torch.no_grad():
        state = automaton.run(automaton.start(SHEETS.to_grid(normalisation.apply(weight)), SHEETS.to_grid(known)))
    expected = normalisation.undo(SHEETS.from_grid(state[:, 0], (6, 20)))
    torch.testing.assert_close(restored[~known], expected[~known])


def test_coarser_rules_restore_nearly_the_same() -> None:
    weight, known = drawn(6, 20), mask(6, 20)
    restored = {}
    for precision in ("single", "half", "byte"):
        repairer = Regrow(moving(DEFAULT, scale=0.02), SHEETS, precision=precision)
        restored[precision] = repairer.restore(weight, known, repairer.prepare(weight))
    assert (restored["half"] - restored["single"]).abs().max() < 0.01
    assert (restored["byte"] - restored["single"]).abs().max() < 0.2
    assert not torch.equal(restored["byte"], restored["half"])


@pytest.mark.parametrize(("precision", "per_parameter", "extra"), [("single", 4, 0), ("half", 2, 0), ("byte", 1, 4)])
def test_the_record_counts_the_rule_and_its_normalisation(precision: str, per_parameter: int, extra: int) -> None:
    automaton = moving(DEFAULT)
    record = Regrow(automaton, SHEETS, precision=precision).prepare(drawn(6, 20))
    assert record.nbytes == per_parameter * automaton.parameter_count + extra * len(automaton.state_dict()) + 16


def test_the_rule_of_the_record_counts_and_not_the_automatons_later_one() -> None:
    weight, known, automaton = drawn(6, 20), mask(6, 20), moving(DEFAULT)
    repairer = Regrow(automaton, SHEETS, precision="single")
    record = repairer.prepare(weight)
    expected = repairer.restore(weight, known, record)
    with torch.no_grad():
        for parameter in automaton.parameters():
            parameter.zero_()
    assert same_bits(repairer.restore(weight, known, record), expected)
    bare = Regrow(Automaton(DEFAULT), SHEETS)
    assert same_bits(bare.restore(weight, known, record), expected)


@pytest.mark.parametrize("scale", [10.0, 1e6])
def test_a_rule_that_explodes_still_answers_inside_the_intact_range(scale: float) -> None:
    weight, known = drawn(6, 20), mask(6, 20)
    repairer = Regrow(moving(DEFAULT, scale=scale), SHEETS, precision="single")
    restored = repairer.restore(weight, known, repairer.prepare(weight))
    assert restored.min() >= weight.min() and restored.max() <= weight.max()


def test_steps_are_those_asked_for() -> None:
    weight, known = drawn(6, 20), mask(6, 20)
    results = {}
    for steps in (None, DEFAULT.steps, 2):
        repairer = Regrow(moving(DEFAULT), SHEETS, steps=steps)
        results[steps] = repairer.restore(weight, known, repairer.prepare(weight))
    assert torch.equal(results[None], results[DEFAULT.steps])
    assert not torch.equal(results[None], results[2])


def test_a_layout_of_other_dimensions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="dimensions=1"):
        Regrow(Automaton(DEFAULT), Sheet((5,)))


def test_an_unknown_precision_is_answered_with_those_that_exist(unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"'double'.*single, half, byte"):
        Regrow(Automaton(DEFAULT), Flat(), precision="double")  # type: ignore[arg-type]


def test_a_weight_that_does_not_fit_the_layout_is_refused_before_anything_is_stored() -> None:
    with pytest.raises(InvalidInput, match="take 20 inputs"):
        Regrow(Automaton(DEFAULT), SHEETS).prepare(drawn(6, 21))


def test_every_record_holds_tensors_alone() -> None:
    record = Regrow(Automaton(DEFAULT), SHEETS).prepare(drawn(6, 20))
    assert isinstance(record, Record)
    assert all(isinstance(tensor, torch.Tensor) and not tensor.requires_grad for tensor in record.tensors.values())
