"""The fused kernels against the same automaton written with torch's convolutions, and against themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers import examples
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from planaria.automaton.fused import run, supports


@dataclass(frozen=True)
class Case:
    batch: int = 2
    channels: int = 8
    height: int = 7
    width: int = 5
    hidden: int = 26
    fixed: int = 1
    laplacian: bool = True
    gains: tuple[float, ...] = (1.0, 0.5, 0.0, 2.0)
    fire: torch.dtype | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.height, self.width

    def tensors(self) -> list[Tensor]:
        """State, both layers, and a direction to take the gradient in; scales that keep the state near 1."""
        source = torch.Generator().manual_seed(self.seed)
        features = self.channels * (4 if self.laplacian else 3)
        shapes = [self.shape, (self.hidden, features), (self.hidden,), (self.channels, self.hidden), (self.channels,)]
        scales = [1.0, features**-0.5, 0.3, 0.5 * self.hidden**-0.5, 0.1]
        tensors = [torch.randn(s, generator=source) * scale for s, scale in zip(shapes, scales, strict=True)]
        tensors[0][:, 1] = (tensors[0][:, 1] > 0).float()
        return [*tensors, torch.randn(self.shape, generator=source)]

    def masks(self) -> Callable[[int], Tensor] | None:
        if self.fire is None:
            return None
        source = torch.Generator().manual_seed(self.seed + 1)
        cells = (len(self.gains), self.batch, self.height, self.width)
        masks = (torch.rand(cells, generator=source) < 0.6).to(self.fire)
        return masks.__getitem__


def plain(case: Case, state: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """The definition, read off: correlate with every filter, two layers, clamp."""
    smooth, diff, one = (torch.tensor(row, dtype=state.dtype) for row in ([1.0, 2, 1], [-1.0, 0, 1], [0.0, 1, 0]))
    identity = torch.outer(one, one)
    filters = [identity, torch.outer(diff, smooth) / 8, torch.outer(smooth, diff) / 8]
    if case.laplacian:
        filters.append(torch.outer(smooth, smooth) / 16 - identity)
    fire = case.masks()
    for step, gain in enumerate(case.gains):
        columns = state.reshape(-1, 1, case.height, case.width)
        maps = [functional.conv2d(columns, f[None, None], padding=1).view_as(state) for f in filters]
        hidden = torch.relu(functional.conv2d(torch.cat(maps, 1), w1[:, :, None, None], b1))
        delta = functional.conv2d(hidden, w2[:, :, None, None], b2) * gain
        if fire:
            delta = delta * fire(step)[:, None].to(state.dtype)
        weight = torch.where(state[:, 1] == 0, state[:, 0] + delta[:, 0], state[:, 0])
        moved = state[:, case.fixed + 1 :] + delta[:, case.fixed + 1 :]
        state = torch.cat([weight[:, None], state[:, 1 : case.fixed + 1], moved], 1)
    return state


def fused(case: Case, state: Tensor, *rule: Tensor, every: int = 1) -> Tensor:
    names = ("hidden_weight", "hidden_bias", "delta_weight", "delta_bias")
    return run(
        state,
        **dict(zip(names, rule, strict=True)),
        fixed=case.fixed,
        laplacian=case.laplacian,
        gains=case.gains,
        fire=case.masks(),
        checkpoint_every=every,
    )


def with_gradients(run: Callable[..., Tensor], case: Case, tensors: list[Tensor], **options: int) -> list[Tensor]:
    """Final state, and the gradients of the state and of the rule's four tensors."""
    *leaves, direction = (tensor.detach() for tensor in tensors)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    final = run(case, *leaves, **options)
    return [final.detach(), *torch.autograd.grad((final * direction).sum(), leaves, allow_unused=True)]


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32))


def assert_agrees(case: Case) -> None:
    """With the definition in double precision: final state, and all gradients."""
    wanted = with_gradients(plain, case, [tensor.double() for tensor in case.tensors()])
    for got, want in zip(with_gradients(fused, case, case.tensors()), wanted, strict=True):
        scale = max(float(want.abs().max()), 1e-3)
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * scale)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2), (13, 11), (28, 28), (3, 300)])
@pytest.mark.parametrize("laplacian", [False, True])
def test_shapes(height: int, width: int, laplacian: bool) -> None:
    assert_agrees(Case(height=height, width=width, laplacian=laplacian, fire=torch.bool))


@pytest.mark.parametrize("channels", [3, 6, 8, 10])
@pytest.mark.parametrize("hidden", [1, 7, 26, 32])
@pytest.mark.parametrize("fixed", [1, 3])
def test_sizes_of_the_rule(channels: int, hidden: int, fixed: int) -> None:
    assert_agrees(Case(channels=channels, hidden=hidden, fixed=min(fixed, channels - 1)))


def case_strategy() -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        batch=st.integers(1, 4),
        channels=st.sampled_from([3, 6, 8, 10]),
        height=st.integers(1, 17),
        width=st.integers(1, 17),
        hidden=st.integers(1, 33),
        fixed=st.integers(1, 2),
        laplacian=st.booleans(),
        gains=st.lists(st.sampled_from([0.0, 0.25, 1.0, 1.5]), min_size=1, max_size=5).map(tuple),
        fire=st.sampled_from([None, torch.bool, torch.uint8, torch.float32]),
        seed=st.integers(0, 2**20),
    )


@examples(40)
@given(case=case_strategy())
@example(case=Case(batch=1, channels=3, height=1, width=1, hidden=1, fixed=2, laplacian=False, gains=(1.0,)))
def test_any_case(case: Case) -> None:
    assert_agrees(case)


@pytest.mark.parametrize("every", [2, 3, 6, 7, 100])
@pytest.mark.parametrize("fire", [None, torch.bool])
def test_checkpoints_change_no_bit(every: int, fire: torch.dtype | None) -> None:
    case = Case(gains=(1.0, 0.5, 2.0, 1.0, 0.25, 1.0, 1.0), fire=fire)
    whole = with_gradients(fused, case, case.tensors())
    sparse = with_gradients(fused, case, case.tensors(), every=every)
    assert all(same_bits(one, other) for one, other in zip(whole, sparse, strict=True))


@pytest.mark.parametrize("case", [Case(), Case(batch=20, height=28, width=28), Case(batch=1, height=150, width=70)])
def test_threads_change_no_bit(case: Case) -> None:
    results = []
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        results.append(with_gradients(fused, case, case.tensors()))
    for other in results[1:]:
        assert all(same_bits(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.slow
def test_the_process_that_compiles_answers_as_those_that_load_what_it_compiled(tmp_path: Path) -> None:
    code = """
import hashlib, torch
from planaria.automaton import DEFAULT, Automaton
from planaria.streams import generator
automaton = Automaton(DEFAULT)
with torch.no_grad():
    automaton.rule.delta_weight.normal_(0, 0.05, generator=generator(0, "rule"))
    weight = torch.randn(5, 9, 11, generator=generator(0, "weight"))
    end = automaton.run(automaton.start(weight, weight > 0), implementation="fused")
print(hashlib.sha256(end.numpy().tobytes()).hexdigest())
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, later = (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=300)
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbc")) and first.stdout == later.stdout


def test_with_and_without_gradients_agree() -> None:
    case = Case(fire=torch.uint8)
    *tensors, _ = case.tensors()
    bare = fused(case, *tensors)
    assert not bare.requires_grad
    assert same_bits(bare, with_gradients(fused, case, case.tensors())[0])
    with torch.no_grad():
        assert same_bits(bare, fused(case, *(tensor.requires_grad_() for tensor in tensors)))


def test_a_sheet_does_not_see_its_neighbours() -> None:
    case = Case(batch=5, height=6, width=9)
    state, *rule = case.tensors()[:-1]
    alone = [fused(replace(case, batch=1), sheet[None], *rule) for sheet in state]
    assert same_bits(fused(case, state, *rule), torch.cat(alone))


@pytest.mark.parametrize("fixed", [1, 3])
def test_known_weights_and_fixed_channels_keep_their_bits(fixed: int) -> None:
    case = Case(fixed=fixed, batch=3, height=12, width=12)
    state, *rule = case.tensors()[:-1]
    known = state[:, 1] == 1
    state[:, 0][known] *= torch.tensor([1e-42, -0.0, 1e30]).repeat(int(known.sum()))[: int(known.sum())]
    final = fused(case, state, *rule)
    assert same_bits(final[:, 0][known], state[:, 0][known])
    assert same_bits(final[:, 1 : fixed + 1], state[:, 1 : fixed + 1])
    assert not torch.equal(final[:, 0][~known], state[:, 0][~known])


def test_known_weights_survive_a_rule_that_diverges() -> None:
    case = Case()
    state, *rule = case.tensors()[:-1]
    known = state[:, 1] == 1
    for poison in (float("nan"), float("inf")):
        rule[1] = torch.full_like(rule[1], poison)
        final = fused(case, state, *rule)
        assert same_bits(final[:, 0][known], state[:, 0][known])
        assert not final[:, 0][~known].isfinite().any()


def test_cells_that_do_not_fire_stay() -> None:
    case = Case(gains=(1.0,), fire=torch.bool)
    fire = case.masks()
    assert fire is not None
    state, *rule = case.tensors()[:-1]
    rest = ~fire(0)[:, None].expand_as(state)
    assert same_bits(fused(case, state, *rule)[rest], state[rest])


def test_arguments_need_not_be_contiguous() -> None:
    case = Case(height=8, width=6, fire=torch.bool)
    tensors = case.tensors()
    strided = [tensor.transpose(-1, -2).contiguous().transpose(-1, -2) if tensor.dim() > 1 else
               torch.stack([tensor, tensor], 1)[:, 0] for tensor in tensors]  # fmt: skip
    assert not any(tensor.is_contiguous() for tensor in strided)
    for one, other in zip(with_gradients(fused, case, tensors), with_gradients(fused, case, strided), strict=True):
        assert same_bits(one, other)


def test_the_input_is_left_alone_and_shares_no_memory() -> None:
    case = Case(batch=1, gains=())
    state, *rule = case.tensors()[:-1]
    before = state.clone()
    final = fused(case, state, *rule)
    assert torch.equal(final, before)
    assert torch.equal(with_gradients(fused, case, case.tensors())[1], case.tensors()[-1])
    final.zero_()
    assert torch.equal(state, before)
    fused(Case(batch=1), state, *rule)
    assert torch.equal(state, before)


def test_gradients_only_where_wanted() -> None:
    case = Case()
    *tensors, direction = case.tensors()
    full = with_gradients(fused, case, [*tensors, direction])
    tensors[3].requires_grad_()
    fused(case, *tensors).backward(direction)
    assert tensors[3].grad is not None and same_bits(tensors[3].grad, full[4])
    assert all(tensor.grad is None for i, tensor in enumerate(tensors) if i != 3)


def test_rows_of_fixed_channels_do_not_matter() -> None:
    case = Case(fixed=3)
    state, w1, b1, w2, b2, direction = case.tensors()
    full = with_gradients(fused, case, [state, w1, b1, w2, b2, direction])
    assert full[4][1:4].count_nonzero() == full[5][1:4].count_nonzero() == 0
    w2[1:4], b2[1:4] = float("nan"), 7.0
    again = with_gradients(fused, case, [state, w1, b1, w2, b2, direction])
    assert all(same_bits(one, other) for one, other in zip(full, again, strict=True))


def test_a_mask_changed_before_the_way_back_is_an_error() -> None:
    case = Case(gains=(1.0,))
    state, *rule = case.tensors()[:-1]
    mask = torch.ones(case.batch, case.height, case.width)
    names = ("hidden_weight", "hidden_bias", "delta_weight", "delta_bias")
    final = run(state.requires_grad_(), **dict(zip(names, rule, strict=True)), fixed=1, laplacian=True,
                        gains=[1.0], fire=lambda step: mask)  # fmt: skip
    mask.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        final.sum().backward()


def test_supports() -> None:
    assert supports(torch.zeros(1, 3, 1, 1))
    assert not supports(torch.zeros(1, 3, 1, 1, dtype=torch.float64))
    assert not supports(torch.zeros(0, 3, 1, 1))
    assert not supports(torch.zeros(3, 1, 1))
    assert not supports(torch.zeros(1, 3, 1, 1, device="meta"))


@pytest.mark.parametrize("wrong", [{"fixed": 0}, {"fixed": 8}, {"laplacian": False}, {"checkpoint_every": 0}])
def test_refuses_nonsense(wrong: dict[str, int]) -> None:
    state, w1, b1, w2, b2, _ = Case().tensors()
    options: dict[str, int] = {"fixed": 1, "laplacian": True, "checkpoint_every": 1, **wrong}
    with pytest.raises(ValueError, match="channels"):
        run(state, hidden_weight=w1, hidden_bias=b1, delta_weight=w2, delta_bias=b2, gains=[1.0], **options)
