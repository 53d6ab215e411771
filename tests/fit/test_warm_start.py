"""The rule that smooths before it has learned anything."""

from dataclasses import replace

import pytest
import torch
from helpers import drawn, mask, same_bits, smooth_sheets

from planaria.automaton import DEFAULT, Automaton, Recipe
from planaria.fit import Schedule, fit_rule
from planaria.fit.warm_start import GATE, LEAK, MOMENTUM, PULL, SMOOTHING, can_warm_start, warm_start
from planaria.layouts import Sheet
from planaria.pretrained import RECIPE as HINTED
from planaria.streams import generator
from planaria_lab.reference import REFERENCE

POSSIBLE = [DEFAULT, replace(DEFAULT, modes=0), replace(DEFAULT, channels=6), replace(DEFAULT, hidden=8)]
POSSIBLE += [HINTED]
IMPOSSIBLE = [
    REFERENCE,
    replace(DEFAULT, laplacian=False),
    replace(DEFAULT, outputs_fixed=True),
    replace(DEFAULT, channels=5),
    replace(DEFAULT, hidden=7),
]


@pytest.mark.parametrize("recipe", POSSIBLE)
def test_it_is_possible_with_all_its_parts(recipe: Recipe) -> None:
    assert can_warm_start(Automaton(recipe))


@pytest.mark.parametrize("recipe", IMPOSSIBLE)
def test_it_is_impossible_without_one_of_them(recipe: Recipe) -> None:
    assert not can_warm_start(Automaton(recipe))


@pytest.mark.parametrize(
    ("recipe", "asked", "touched"), [(DEFAULT, True, True), (DEFAULT, False, False), (IMPOSSIBLE[1], True, False)]
)
def test_a_fit_starts_warm_where_asked_and_possible_alone(recipe: Recipe, asked: bool, touched: bool) -> None:
    """At a learning rate of nearly nothing the fitted rule is the one it started at."""
    schedule = Schedule(iterations=1, learning_rate=1e-30, lengths=(1, 1), long_rollout=1, warm_start=asked)
    fitted = fit_rule(smooth_sheets(4, 5, 5), layout=Sheet((5, 5)), recipe=recipe, schedule=schedule).automaton
    new = Automaton(recipe)
    assert same_bits(fitted.rule.hidden_weight.detach(), new.rule.hidden_weight.detach()) is not touched
    assert bool(fitted.rule.delta_weight.any()) is touched


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("recipe", POSSIBLE)
def test_the_automaton_runs_the_iteration_that_is_written_down(recipe: Recipe, dimensions: int) -> None:
    space = (5, 4, 6)[:dimensions]
    automaton = Automaton(replace(recipe, cooling=1.0), dimensions=dimensions)
    warm_start(automaton)
    # The iteration's own terms; the random rest of the first layer, which training starts from, is taken out.
    _without_the_random_part(automaton)
    if automaton.survey:
        automaton.survey.fields.normal_(0, 0.3, generator=generator(0, "fields"))
    weight = torch.randn(2, *space, generator=generator(0, "warm start"))
    known = mask(2, *space)
    with torch.no_grad():
        state = automaton.start(weight, known, drawn(*weight.shape, name="hint") if recipe.hints else None)
        w = state[:, 0].clone()
        m = state[:, automaton.fixed] if automaton.fixed > 1 else torch.zeros_like(w)
        assert bool(m.any()) == bool(automaton.survey or recipe.hints)
        u, v = torch.zeros_like(w), torch.zeros_like(w)
        for index in range(6):
            laplacian = automaton.perception(u[:, None])[:, -1]
            r = SMOOTHING * laplacian - LEAK * u + PULL * known * (w - m - u)
            new_u, new_v = u + MOMENTUM * v + r, MOMENTUM * v + r
            w, u, v = torch.where(known, w, m + u), new_u, new_v
            state = automaton.step(state, index=index)
            for channel, expected in ((0, w), (1 + automaton.fixed, u), (2 + automaton.fixed, v)):
                torch.testing.assert_close(state[:, channel], expected, rtol=1e-4, atol=1e-4)


def _without_the_random_part(automaton: Automaton) -> None:
    """The random numbers of the first eight units, a tenth of the initial ones, are subtracted again."""
    random = Automaton(automaton.recipe, dimensions=automaton.dimensions).rule.hidden_weight
    with torch.no_grad():
        automaton.rule.hidden_weight[:8] -= 0.1 * random[:8]
        assert automaton.rule.hidden_weight.abs().max() <= GATE


def test_the_other_units_keep_their_values_and_have_no_effect() -> None:
    automaton, new = Automaton(DEFAULT), Automaton(DEFAULT)
    warm_start(automaton)
    assert same_bits(automaton.rule.hidden_weight[8:].detach(), new.rule.hidden_weight[8:].detach())
    assert not automaton.rule.delta_weight[:, 8:].any()
