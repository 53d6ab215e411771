"""Learning a rule."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import drawn, mask, same_bits, smooth_sheets

from planaria.automaton import DEFAULT, Recipe
from planaria.errors import InvalidInput
from planaria.fit import Fit, Schedule, fit_rule, second_moments
from planaria.layouts import Flat, Layout, Sheet
from planaria.pretrained import RECIPE as HINTED
from planaria.repairers import Regrow
from planaria.streams import generator
from planaria_lab import datasets
from planaria_lab.reference import REFERENCE
from planaria_lab.repairers import MeanFill

SHORT = Schedule(iterations=5, lengths=(3, 5), check_every=2, long_rollout=1)
RECIPES = pytest.mark.parametrize("recipe", [DEFAULT, REFERENCE], ids=lambda recipe: recipe.name)


def short_fit(recipe: Recipe = DEFAULT, *, seed: int = 0, schedule: Schedule = SHORT) -> Fit:
    return fit_rule(smooth_sheets(6, 5, 5), layout=Sheet((5, 5)), recipe=recipe, seed=seed, schedule=schedule)


@RECIPES
def test_the_same_seed_fits_the_same_rule_bit_for_bit(recipe: Recipe) -> None:
    first, second = short_fit(recipe), short_fit(recipe)
    for name, parameter in first.automaton.state_dict().items():
        assert same_bits(parameter, second.automaton.state_dict()[name])
    assert (first.losses, first.held_out) == (second.losses, second.held_out)


def test_another_seed_fits_another_rule() -> None:
    assert short_fit(seed=0).losses != short_fit(seed=1).losses


def test_global_random_numbers_are_neither_used_nor_touched() -> None:
    before = torch.get_rng_state()
    short_fit()
    assert torch.equal(torch.get_rng_state(), before)


def test_iterations_and_looks_are_kept_and_told() -> None:
    told: list[tuple[int, int, float]] = []
    fit = fit_rule(
        smooth_sheets(6, 5, 5),
        layout=Sheet((5, 5)),
        schedule=SHORT,
        on_iteration=lambda *told_now: told.append(told_now),
    )
    assert told == [(number, 5, loss) for number, loss in enumerate(fit.losses, 1)]
    assert [iteration for iteration, _ in fit.held_out] == [0, 2, 4, 5]
    assert fit.seconds > 0
    assert all(math.isfinite(loss) for loss in fit.losses)


def test_a_fit_without_improvement_stops_early_and_keeps_the_best_rule() -> None:
    """A learning rate far too large makes everything worse than the start."""
    schedule = replace(SHORT, iterations=50, check_every=1, patience=3, learning_rate=100.0)
    fit = short_fit(schedule=schedule)
    best = min(range(len(fit.held_out)), key=lambda look: fit.held_out[look][1])
    assert len(fit.losses) == fit.held_out[best][0] + 3 < 50
    unmoved = short_fit(schedule=replace(schedule, learning_rate=1e-30))
    assert best == 0
    assert same_bits(fit.automaton.rule.delta_weight, unmoved.automaton.rule.delta_weight)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(Flat(), (6, 8)), (Sheet((8,)), (6, 8)), (Sheet((2, 2, 2)), (6, 8)), (Sheet((2, 4)), (1, 8))],
)
@RECIPES
def test_rules_are_fitted_in_one_two_and_three_dimensions(
    recipe: Recipe, layout: Layout, shape: tuple[int, int]
) -> None:
    moments = second_moments(drawn(20, shape[1]))
    schedule = replace(SHORT, iterations=2)
    fit = fit_rule(drawn(*shape), layout=layout, recipe=recipe, schedule=schedule, moments=moments)
    assert fit.automaton.dimensions == layout.dimensions
    assert len(fit.losses) == 2 and all(math.isfinite(loss) for loss in fit.losses)


@pytest.mark.parametrize("weight", [torch.full((4, 25), 0.3), torch.zeros(1, 25)], ids=["constant", "zero"])
def test_a_constant_weight_is_fitted_with_nothing_to_learn(weight: torch.Tensor) -> None:
    fit = fit_rule(weight, layout=Sheet((5, 5)), schedule=replace(SHORT, warm_start=False))
    assert fit.losses == [0.0] * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_floating_point_weight_is_taken_and_left_alone(dtype: torch.dtype) -> None:
    weight = smooth_sheets(6, 5, 5).to(dtype)
    before = weight.clone()
    fit = fit_rule(weight, layout=Sheet((5, 5)), schedule=SHORT)
    assert fit.automaton.rule.delta_weight.dtype == torch.float32
    assert same_bits(weight, before)


def test_the_fitted_rule_regrows_smooth_sheets_better_than_it_did_at_the_start() -> None:
    weight, layout = smooth_sheets(24, 8, 8), Sheet((8, 8))
    # Without survey and warm start, so that whatever is achieved has been learned step by step.
    schedule = Schedule(iterations=300, learning_rate=1e-2, check_every=100, warm_start=False, lengths=(8, 8))
    fit = fit_rule(weight, layout=layout, recipe=replace(DEFAULT, modes=0, hidden=26), schedule=schedule)
    assert min(loss for _, loss in fit.held_out) < 0.8 * fit.held_out[0][1]
    known = mask(24, 64, share=0.5, seed=9)
    errors = []
    for repairer in (Regrow(fit.automaton, layout), MeanFill()):
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        errors.append(float((restored - weight)[~known].square().mean()))
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.slow
def test_the_first_layer_of_a_network_trained_on_digits_is_regrown_better_than_by_its_mean() -> None:
    digits = datasets.digits()
    inputs = digits.train_images.float().flatten(1)
    inputs = (inputs - inputs.mean()) / inputs.std()
    source = generator(0, "digits")
    first = (torch.randn(24, inputs.shape[1], generator=source) * 0.02).requires_grad_()
    second = (torch.randn(10, 24, generator=source) * 0.2).requires_grad_()
    adam = torch.optim.Adam([first, second], lr=3e-3, weight_decay=1e-3)
    for _ in range(150):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(torch.relu(inputs @ first.T) @ second.T, digits.train_labels).backward()
        adam.step()
    weight, side = first.detach(), math.isqrt(inputs.shape[1])
    layout = Sheet((side, side))
    schedule = Schedule(iterations=60, check_every=20, lengths=(8, 8))
    fit = fit_rule(weight, layout=layout, schedule=schedule, moments=second_moments(inputs))
    assert min(loss for _, loss in fit.held_out) < fit.held_out[0][1]
    known = mask(*weight.shape, share=0.5, seed=9)
    errors = []
    for repairer in (Regrow(fit.automaton, layout), MeanFill()):
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        errors.append(float((restored - weight)[~known].square().mean()))
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (torch.zeros(0, 25), r"non-empty.*\(0, 25\)"),
        (torch.full((2, 25), float("nan")), "50 values that are not finite"),
        (torch.full((2, 25), float("inf")), "50 values that are not finite"),
        (torch.ones(2, 25, dtype=torch.int8), "floating-point.*torch.int8"),
        (torch.zeros(2, 24), "take 25 inputs"),
        (torch.zeros(25), "2 dimensions"),
    ],
)
def test_a_weight_that_cannot_be_fitted_is_refused(weight: torch.Tensor, told: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=told):
        fit_rule(weight, layout=Sheet((5, 5)), schedule=SHORT)


@pytest.mark.parametrize("shape", [(24, 24), (25, 24), (25,)])
def test_moments_of_other_inputs_are_refused(shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"\(25, 25\), not "):
        fit_rule(drawn(2, 25), layout=Sheet((5, 5)), schedule=SHORT, moments=torch.zeros(shape))


def test_a_recipe_that_starts_from_a_hint_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no hint was given"):
        fit_rule(drawn(2, 25), layout=Sheet((5, 5)), recipe=HINTED, schedule=SHORT)
