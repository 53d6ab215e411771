"""An automaton whose parts were changed runs as they say: fused kernels, which hold their own, leave it to PyTorch."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import drawn, mask, moving, same_bits
from torch import Tensor, nn
from torch.nn.utils import parametrize

from planaria.automaton import DEFAULT, Automaton, Perception, Recipe, Rule
from planaria.errors import InvalidInput
from planaria_lab.reference import REFERENCE

Change = Callable[[Automaton], object]


class Louder(Perception):
    def forward(self, state: Tensor) -> Tensor:
        return 2 * super().forward(state)


class Softer(Rule):
    def forward(self, perceived: Tensor) -> Tensor:
        return 0.5 * super().forward(perceived)


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Backwards(Automaton):
    def step(self, state: Tensor, *, index: int = 0, seed: int | None = None) -> Tensor:
        return 2 * state - super().step(state, index=index, seed=seed)


def _scale_a_filter(automaton: Automaton) -> None:
    automaton.perception.filters[1] *= 1.5


def _nudge_one_tap(automaton: Automaton) -> None:
    automaton.perception.filters[-1, 0, 0] += 1e-3


def _replace_filters(automaton: Automaton) -> None:
    automaton.perception.filters = automaton.perception.filters.flip(0)


def _subclass_perception(automaton: Automaton) -> None:
    automaton.perception = Louder(2, laplacian=automaton.recipe.laplacian)


def _patch_perception(automaton: Automaton) -> None:
    seen = automaton.perception.forward
    automaton.perception.forward = lambda state: -seen(state)  # type: ignore[method-assign]


def _hook_perception(automaton: Automaton) -> None:
    automaton.perception.register_forward_hook(lambda module, given, seen: 0.5 * seen)


def _hook_rule(automaton: Automaton) -> None:
    automaton.rule.register_forward_pre_hook(lambda module, given: (given[0].relu(),))


def _subclass_rule(automaton: Automaton) -> None:
    automaton.rule.__class__ = Softer


def _parametrise_rule(automaton: Automaton) -> None:
    parametrize.register_parametrization(automaton.rule, "delta_weight", Twice())


def _subclass_automaton(automaton: Automaton) -> None:
    automaton.__class__ = Backwards


CHANGES: list[Change] = [
    _scale_a_filter,
    _nudge_one_tap,
    _replace_filters,
    _subclass_perception,
    _patch_perception,
    _hook_perception,
    _hook_rule,
    _subclass_rule,
    _parametrise_rule,
    _subclass_automaton,
]
RECIPES = [DEFAULT, REFERENCE, replace(DEFAULT, name="resting", known_cells_rest=True, laplacian=False, modes=0)]
SHAPES = [(1, 5, 6), (3, 9, 2), (2, 17, 16)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("recipe", "shape"), list(zip(RECIPES, SHAPES, strict=True)), ids=lambda one: str(one)[:20])
def test_what_was_changed_is_not_ignored(change: Change, recipe: Recipe, shape: tuple[int, ...]) -> None:
    automaton = moving(recipe, scale=0.3)
    with torch.no_grad():
        start = automaton.start(drawn(*shape), mask(*shape))
        before = automaton.run(start)
        change(automaton)
        plain, auto = (automaton.run(start, implementation=way) for way in ("plain", "auto"))
    assert same_bits(auto, plain)
    assert not torch.allclose(auto, before, atol=1e-5, rtol=1e-5)
    with pytest.raises(InvalidInput, match='implementation="auto"'):
        automaton.run(start, implementation="fused")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_an_unchanged_automaton_still_takes_the_fused_kernels(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    automaton = moving(recipe)
    monkeypatch.setattr(automaton.rule, "_dense", lambda *_: pytest.fail("this is the plain implementation"))
    with torch.no_grad():
        automaton.run(automaton.start(drawn(2, 5, 6), mask(2, 5, 6)))


@pytest.mark.parametrize("laplacian", [True, False])
def test_filters_that_are_learned_get_their_gradient(laplacian: bool) -> None:
    automaton = moving(replace(DEFAULT, laplacian=laplacian))
    automaton.perception.filters.requires_grad_()
    automaton.run(automaton.start(drawn(2, 5, 6), mask(2, 5, 6)))[:, 0].square().sum().backward()
    assert automaton.perception.filters.grad is not None and automaton.perception.filters.grad.any()


@pytest.mark.parametrize("known", [-1.0, 0.5, float("nan")])
def test_every_implementation_calls_the_same_cells_known(known: float) -> None:
    automaton = moving(DEFAULT)
    state = drawn(1, DEFAULT.channels, 5, 6)
    state[:, 1] = torch.where(mask(1, 5, 6), known, 0.0)
    kept = state[:, 1] != 0
    with torch.no_grad():
        plain, fused = (automaton.run(state, steps=1, implementation=way)[:, 0] for way in ("plain", "fused"))
    assert same_bits(plain[kept], state[:, 0][kept]) and same_bits(fused[kept], plain[kept])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_rule_of_another_type_than_the_state_is_refused(dtype: torch.dtype) -> None:
    automaton = moving(DEFAULT)
    start = automaton.start(drawn(2, 5, 6), mask(2, 5, 6))
    automaton.to(dtype)
    for way in ("auto", "plain", "fused"):
        with pytest.raises(InvalidInput, match=f"state is torch.float32 and the rule {dtype}"):
            automaton.run(start, implementation=way)
