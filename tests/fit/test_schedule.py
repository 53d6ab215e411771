"""Settings of a fit."""

from dataclasses import replace

import pytest

from planaria.automaton import DEFAULT
from planaria.errors import InvalidInput
from planaria.fit import Schedule
from planaria_lab.reference import REFERENCE, schedule_of


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("rates", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 0.5), (0.5, float("nan"))]),
        ("lengths", [(0, 3), (4, 3)]),
        ("output_share", [-0.1, 1.1, float("nan")]),
        ("learning_rate", [0.0, -1.0, float("nan")]),
        *[(name, [0, -1]) for name in ("iterations", "batch", "check_every", "patience", "long_rollout")],
    ],
)
def test_settings_outside_their_range_are_refused_by_name(setting: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InvalidInput, match=rf"{setting} .*not ") as refused:
            Schedule(**{setting: value})
        assert str(value) in str(refused.value)


@pytest.mark.parametrize("settings", [{"rates": (1.0, 1.0)}, {"lengths": (1, 1)}, {"output_share": 0.0}, {"batch": 1}])
def test_the_ends_of_the_ranges_are_legal(settings: dict[str, object]) -> None:
    assert Schedule(**settings) == replace(Schedule(), **settings)


def test_the_reference_recipe_is_fitted_as_the_talk_fits_it() -> None:
    schedule = schedule_of(REFERENCE)
    assert (schedule.batch, schedule.output_share, schedule.warm_start) == (1, 0.0, False)
    assert schedule.lengths == (12, 12)


def test_any_other_recipe_trains_on_rollouts_of_its_own_length() -> None:
    other = replace(DEFAULT, name="other", steps=7)
    assert schedule_of(other) == Schedule.of(other) == Schedule(lengths=(7, 7))
    assert Schedule.of(DEFAULT).lengths == (DEFAULT.steps, DEFAULT.steps)
