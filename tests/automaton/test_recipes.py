"""Recipes and their sizes."""

from dataclasses import replace

import pytest

from planaria.automaton import DEFAULT, Automaton, Recipe
from planaria.errors import InvalidInput
from planaria.pretrained import RECIPE as HINTED
from planaria_lab.reference import REFERENCE


def test_the_reference_recipe_has_the_parameters_of_the_talk() -> None:
    assert Automaton(REFERENCE).parameter_count == 1064
    assert (REFERENCE.channels, REFERENCE.hidden, REFERENCE.steps, REFERENCE.fire_rate) == (8, 32, 12, 0.5)


def test_the_default_recipe_stays_small() -> None:
    assert Automaton(DEFAULT).parameter_count <= 1100


def test_the_default_recipe_is_found_by_its_name() -> None:
    assert Recipe.named(DEFAULT.name) is DEFAULT


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(InvalidInput, match=r"'talk'.*'default'"):
        Recipe.named("talk")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("fire_rate", value) for value in (0, -0.5, 1.5, float("nan"))],
        *[("cooling", value) for value in (0, -1, 1.01, float("nan"))],
        *[("modes", -1), ("frequencies", 0), ("hints", -1), ("hints", 1), ("hints", 2)],
        ("steps", 0),
    ],
)
def test_settings_outside_their_range_are_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=setting.removesuffix("ies").removesuffix("s")):
        replace(DEFAULT, **{setting: value})


@pytest.mark.parametrize(("recipe", "needed"), [(REFERENCE, 3), (DEFAULT, 5), (HINTED, 4)])
def test_a_recipe_needs_room_for_the_weight_the_fixed_and_a_hidden_channel(recipe: Recipe, needed: int) -> None:
    """The class asks for room for a hidden channel: its docstring refuses a recipe with the fixed ones alone."""
    with pytest.raises(InvalidInput, match="channels"):
        Automaton(replace(recipe, channels=needed - 1))
    assert Automaton(replace(recipe, channels=needed)).recipe.channels == needed
