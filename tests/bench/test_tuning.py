"""Masks of a judge are fair to every weight, and tuning never makes a plan worse to it."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planaria_lab.bench.frontier.tuning import LIKED, TRIES, balanced_masks, tuned

SHAPES = {"one": (40, 50), "other": (7,)}


@given(rate=st.floats(0.01, 0.99), seed=st.integers(0, 5), again=st.booleans())
def test_every_weight_is_missing_equally_often_and_masks_are_random(rate: float, seed: int, again: bool) -> None:
    masks = list(balanced_masks(SHAPES, rate, seed=seed, again=again))
    assert {of for of, _ in masks} == {rate}
    for name, shape in SHAPES.items():
        missing = torch.stack([~known[name] for _, known in masks]).sum(0)
        assert missing.shape == shape
        assert int(missing.max() - missing.min()) <= 1
    for _, known in masks:
        share = float((~known["one"]).double().mean())
        assert abs(share - rate) < 5 * (rate * (1 - rate) / 2000) ** 0.5 + 1e-9


def test_masks_differ_by_seed_and_the_second_time_and_all_weights_have_one_mask() -> None:
    first, other, again = (
        next(balanced_masks(SHAPES, 0.5, seed=seed, again=later))[1]["one"]
        for seed, later in ((0, False), (1, False), (0, True))
    )
    assert not torch.equal(first, other) and not torch.equal(first, again)
    for later in (False, True):
        ((rate, known),) = balanced_masks(SHAPES, 1.0, seed=0, again=later)
        assert rate == 1 and not any(mask.any() for mask in known.values())
    rates = [rate for rate, _ in balanced_masks(SHAPES, None, seed=0)]
    assert len(rates) == 2 * len(set(rates)) > 2


@given(st.tuples(*[st.floats(0.02, 50.0)] * 3))
def test_tuning_comes_near_the_stresses_that_the_judge_likes_most(best: tuple[float, ...]) -> None:
    names = dict.fromkeys("abc")
    asked = 0

    def judged(stresses: Mapping[str, float]) -> float:
        nonlocal asked
        asked += 1
        far = [torch.tensor(stresses[name] / ideal).log().abs() for name, ideal in zip(names, best, strict=True)]
        return -float(sum(far))

    plain = dict.fromkeys(names, 1.0)
    liked = tuned(plain, names, dict, judged)
    every = asked == TRIES + 1
    assert 1 <= len(liked) <= LIKED
    assert sorted(map(judged, liked), reverse=True) == list(map(judged, liked))
    asked -= 2 * len(liked)
    found = liked[0]
    assert asked <= TRIES + 1
    assert judged(found) >= judged(plain)
    assert judged(found) > -3 * torch.tensor(2.0).log() or every


def test_tuning_ends_where_nothing_is_to_be_won_and_skips_plans_that_do_not_fit() -> None:
    asked = []
    plain = {"a": 1.0, "b": 1.0}
    assert tuned(plain, plain, dict, lambda plan: asked.append(plan) or 1.0) == [plain] and len(asked) == 1
    assert tuned(plain, plain, lambda _: None, lambda _: 0.5) == [plain]


@pytest.mark.parametrize("highest", [0.0, 0.5])
def test_what_the_judge_likes_no_better_is_left(highest: float) -> None:
    plain = {"a": 1.0, "b": 1.0}
    assert tuned(plain, plain, dict, lambda _: highest)[0] is plain
