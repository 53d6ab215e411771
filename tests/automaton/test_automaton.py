"""Steps and runs: what must hold whatever the rule says."""

from dataclasses import replace

import pytest
import torch
from helpers import drawn, mask, moving, same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.automaton import DEFAULT, Automaton, Recipe, firing_cells
from planaria.errors import InvalidInput
from planaria.pretrained import RECIPE as HINTED
from planaria_lab.reference import REFERENCE

RECIPES = [DEFAULT, REFERENCE, HINTED]
IMPLEMENTATIONS = ["plain", "fused"]
SPACES = {1: (9,), 2: (5, 6), 3: (3, 4, 3)}


def started(automaton: Automaton, weight: Tensor, known: Tensor) -> Tensor:
    """The first state, with a hint where the recipe has a channel for it."""
    return automaton.start(weight, known, drawn(*weight.shape, name="hint") if automaton.recipe.hints else None)


shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)
AWKWARD = [0.0, -0.0, 1e-42, -1e-42, 1e-30, 1e30, -1e30, 3.4e38, float("inf"), float("-inf")]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Grids of any shape with awkward numbers in known cells and worse ones in missing cells."""
    shape = draw(shapes)
    count = int(torch.tensor(shape).prod())
    values = st.sampled_from(AWKWARD) | st.floats(-3, 3, width=32)
    weight = torch.tensor(draw(st.lists(values, min_size=count, max_size=count))).view(shape)
    known = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))).view(shape)
    return torch.where(known, weight, draw(st.sampled_from([float("nan"), float("inf"), 7.0]))), known


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@given(grids=damaged(), steps=st.integers(1, 20), scale=st.sampled_from([0.01, 1.0, 1e6]))
def test_known_cells_keep_every_bit_after_any_number_of_steps(
    recipe: Recipe, grids: tuple[Tensor, Tensor], steps: int, scale: float
) -> None:
    weight, known = grids
    automaton = moving(recipe, dimensions=weight.dim() - 1, scale=scale)
    with torch.no_grad():
        start = started(automaton, weight, known)
        for implementation in ("auto", "plain"):
            end = automaton.run(start, steps=steps, implementation=implementation)
            assert same_bits(end[:, 0][known], weight[known])
            assert same_bits(end[:, 1 : 1 + automaton.fixed], start[:, 1 : 1 + automaton.fixed])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_what_a_missing_cell_holds_never_matters(recipe: Recipe, dimensions: int) -> None:
    automaton = moving(recipe, dimensions=dimensions)
    weight, known = drawn(2, *SPACES[dimensions]), mask(2, *SPACES[dimensions])
    results = [
        automaton.run(started(automaton, torch.where(known, weight, rubbish), known))
        for rubbish in (0.0, 1e30, float("nan"), float("inf"))
    ]
    assert results[0].isfinite().all()
    assert all(same_bits(result, results[0]) for result in results[1:])


@pytest.mark.parametrize("implementation", ["auto", "plain"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_new_rule_is_the_identity(recipe: Recipe, dimensions: int, implementation: str) -> None:
    automaton = Automaton(recipe, dimensions=dimensions)
    state = drawn(2, recipe.channels, *SPACES[dimensions])
    assert torch.equal(automaton.run(state, implementation=implementation), state)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_start_holds_survivors_mask_hint_survey_and_zeros(recipe: Recipe) -> None:
    automaton = Automaton(recipe)
    weight, known = drawn(3, 4, 5), mask(3, 4, 5)
    state = started(automaton, weight, known)
    assert state.shape == (3, recipe.channels, 4, 5) and state.dtype == torch.float32
    expected = drawn(3, 4, 5, name="hint") if recipe.hints else torch.zeros(3, 4, 5)
    assert torch.equal(state[:, 0], torch.where(known, weight, expected)), "a new survey expects 0 everywhere"
    assert torch.equal(state[:, 1], known.float())
    assert bool(state[:, 2 : 1 + automaton.fixed].any()) == (recipe.modes > 0 or recipe.hints > 0)
    assert not state[:, 1 + automaton.fixed :].any()


def test_missing_weights_start_at_the_surveys_posterior_mean() -> None:
    automaton = moving(DEFAULT)
    weight, known = drawn(3, 6, 7), mask(3, 6, 7)
    state = automaton.start(weight, known)
    expected = automaton.survey(torch.where(known, weight, 0.0), known)
    torch.testing.assert_close(state[:, 2 : 1 + automaton.fixed], expected)
    assert torch.equal(state[:, 0], torch.where(known, weight, state[:, automaton.fixed]))
    assert state[:, 0][~known].abs().min() > 0


def test_missing_weights_start_at_the_hint_which_is_a_fixed_channel() -> None:
    automaton = moving(HINTED)
    weight, known, hint = drawn(3, 6, 7), mask(3, 6, 7), drawn(3, 6, 7, name="hint")
    state = automaton.start(weight, known, hint)
    assert automaton.fixed == 2
    assert same_bits(state[:, 2], hint)
    assert same_bits(state[:, 0], torch.where(known, weight, hint))
    assert not torch.equal(automaton.run(state)[:, 0], state[:, 0]), "this rule moves missing cells"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_known_cells_rest_where_the_recipe_says_so(implementation: str) -> None:
    known = mask(2, 6, 6)
    for rest in (True, False):
        automaton = moving(replace(REFERENCE, known_cells_rest=rest, fire_rate=1.0))
        with torch.no_grad():
            start = automaton.start(drawn(2, 6, 6), known)
            changed = (automaton.run(start, implementation=implementation) != start).any(1)
        assert changed[~known].all()
        assert bool(changed[known].any()) is not rest


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 1, 9), (1, 20, 31)])
def test_plain_and_fused_agree_forward_and_backward(recipe: Recipe, shape: tuple[int, ...], checkpoint: bool) -> None:
    results = [_ends_and_gradients(recipe, shape, implementation, checkpoint) for implementation in IMPLEMENTATIONS]
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=2e-4, atol=2e-5 * max(1.0, float(plain.abs().max())))


@pytest.mark.parametrize("steps", [1, 2, 7, 12])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_checkpointed_gradients_equal_kept_ones(recipe: Recipe, implementation: str, steps: int) -> None:
    kept, recomputed = (
        _ends_and_gradients(recipe, (2, 6, 7), implementation, checkpoint, steps) for checkpoint in (False, True)
    )
    assert torch.equal(kept[0], recomputed[0])
    for one, other in zip(kept, recomputed, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def _ends_and_gradients(
    recipe: Recipe, shape: tuple[int, ...], implementation: str, checkpoint: bool, steps: int | None = None
) -> list[Tensor]:
    automaton = moving(recipe)
    weight, known = drawn(*shape), mask(*shape)
    state = started(automaton, weight, known).requires_grad_()
    end = automaton.run(state, steps=steps, implementation=implementation, checkpoint=checkpoint)
    (end * drawn(*end.shape, name="direction")).sum().backward()
    gradients = [parameter.grad for parameter in (state, *automaton.parameters())]
    assert all(gradient is not None for gradient in gradients)
    return [end.detach(), *gradients]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_run_is_its_steps_one_after_the_other(recipe: Recipe, dimensions: int) -> None:
    automaton = moving(recipe, dimensions=dimensions)
    with torch.no_grad():
        state = started(automaton, drawn(2, *SPACES[dimensions]), mask(2, *SPACES[dimensions]))
        end = automaton.run(state, steps=6, seed=5, implementation="plain")
        for index in range(6):
            state = automaton.step(state, index=index, seed=5)
    assert torch.equal(end, state)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_cells_that_do_not_fire_keep_their_state(implementation: str) -> None:
    automaton = moving(replace(REFERENCE, fire_rate=0.3))
    with torch.no_grad():
        start = automaton.start(drawn(2, 9, 9), torch.zeros(2, 9, 9, dtype=torch.bool))
        moved = (automaton.run(start, steps=1, seed=4, implementation=implementation) != start).any(1)
    assert torch.equal(moved, firing_cells((2, 9, 9), rate=0.3, seed=4, step=0))
    assert moved.any() and not moved.all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_seed_of_a_run_decides_who_fires_and_the_automatons_own_is_the_default(implementation: str) -> None:
    automaton = moving(REFERENCE, seed=3)
    start = automaton.start(drawn(2, 6, 6), mask(2, 6, 6))
    ends = {seed: automaton.run(start, seed=seed, implementation=implementation) for seed in (None, 3, 4)}
    assert torch.equal(ends[None], ends[3])
    assert not torch.equal(ends[3], ends[4])


def test_cooling_scales_each_step_by_its_index() -> None:
    automaton = moving(replace(DEFAULT, cooling=0.5))
    with torch.no_grad():
        start = automaton.start(drawn(1, 5, 5), mask(1, 5, 5))
        changes = [automaton.step(start, index=at) - start for at in (0, 1, 3)]
    torch.testing.assert_close(changes[1], changes[0] / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(changes[2], changes[0] / 8, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", ["auto", "plain"])
def test_a_run_leaves_its_input_alone(implementation: str) -> None:
    automaton = moving(DEFAULT)
    start = automaton.start(drawn(1, 5, 5), mask(1, 5, 5))
    before = start.clone()
    automaton.run(start, implementation=implementation)
    assert same_bits(start, before)


def test_fixed_channels_answered_for_or_not_make_the_same_automaton() -> None:
    """`outputs_fixed` only adds parameters that the clamp discards."""
    compact, talkative = moving(replace(DEFAULT, name="compact")), Automaton(replace(DEFAULT, outputs_fixed=True))
    fixed = compact.fixed
    with torch.no_grad():
        talkative.rule.hidden_weight.copy_(compact.rule.hidden_weight)
        talkative.rule.hidden_bias.copy_(compact.rule.hidden_bias)
        for wide, narrow in (
            (talkative.rule.delta_weight, compact.rule.delta_weight),
            (talkative.rule.delta_bias, compact.rule.delta_bias),
        ):
            wide.copy_(torch.cat([narrow[:1], torch.full_like(wide[:fixed], 9.0), narrow[1:]]))
        start = compact.start(drawn(2, 5, 6), mask(2, 5, 6))
        for implementation in IMPLEMENTATIONS:
            ends = [one.run(start, implementation=implementation) for one in (compact, talkative)]
            torch.testing.assert_close(ends[1], ends[0])


def test_a_weight_and_mask_that_do_not_fit_are_refused(unchecked: None) -> None:
    automaton = Automaton(DEFAULT)
    with pytest.raises(InvalidInput, match=r"\(1, 2, 3\).*\(1, 3, 2\)"):
        automaton.start(torch.zeros(1, 2, 3), torch.ones(1, 3, 2, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="2 spatial axes"):
        automaton.start(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))


def test_a_hint_and_its_channel_come_together_and_in_the_weights_shape(unchecked: None) -> None:
    weight, known = drawn(1, 2, 3), mask(1, 2, 3)
    with pytest.raises(InvalidInput, match="'frozen' has 1 hint channels, and no hint was given"):
        Automaton(HINTED).start(weight, known)
    with pytest.raises(InvalidInput, match="'default' has 0 hint channels, and a hint was given"):
        Automaton(DEFAULT).start(weight, known, weight)
    with pytest.raises(InvalidInput, match=r"\(1, 2, 3\) and its hint \(1, 3, 2\)"):
        Automaton(HINTED).start(weight, known, drawn(1, 3, 2))


def test_a_state_step_count_or_implementation_that_does_not_fit_is_refused(unchecked: None) -> None:
    automaton = Automaton(DEFAULT)
    state = torch.zeros(1, DEFAULT.channels, 3, 3)
    for steps in (0, -2):
        with pytest.raises(InvalidInput, match=f"not {steps}"):
            automaton.run(state, steps=steps)
    for wrong in (torch.zeros(1, 3, 3, 3), torch.zeros(1, DEFAULT.channels, 3)):
        with pytest.raises(InvalidInput, match=r"start\(\)"):
            automaton.run(wrong)
    with pytest.raises(InvalidInput, match="'fast'"):
        automaton.run(state, implementation="fast")  # type: ignore[arg-type]


def test_fused_is_refused_where_the_kernels_do_not_run() -> None:
    automaton = Automaton(DEFAULT, dimensions=1)
    with pytest.raises(InvalidInput, match='implementation="auto"'):
        automaton.run(torch.zeros(1, DEFAULT.channels, 5), implementation="fused")
