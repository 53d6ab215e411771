"""Runs of the automaton on fused kernels: batches as lines, and many steps as one node of autograd's graph.

How lines are laid out, and what a step costs, is said in `kernels.py`.
"""

# What numba compiles has no types, and torch's autograd functions none of theirs.
# mypy: disable-error-code="no-untyped-call, call-arg, attr-defined"

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from planaria.automaton.kernels import LANES, RUN, TILE, Rule, advance, retreat

TASKS = 64  # most tasks a step is split into


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


@dataclass(frozen=True)
class Line:
    """Where the cells of a batch lie on the line."""

    batch: int
    height: int
    width: int

    @property
    def pitch(self) -> int:
        """From a cell to the one below."""
        return self.width + 1

    @property
    def cells(self) -> int:
        """Cells and the zeros between them."""
        return self.batch * (self.height + 1) * self.pitch

    @property
    def first(self) -> int:
        """Length of the guard in front; whole vectors, so that runs are aligned."""
        return _whole(self.pitch + 1, LANES)

    @property
    def last(self) -> int:
        """Where the guard behind begins; the last run may reach past the cells, into zeros."""
        return self.first + _whole(self.cells, RUN)

    @property
    def length(self) -> int:
        """An odd number of cache lines, lest the channels of a cell compete for one set of the cache."""
        lines = _whole(self.last + self.pitch + 1, LANES) // LANES
        return (lines | 1) * LANES

    def cuts(self) -> np.ndarray[Any, Any]:
        """Where the cells of each task begin, and where those of the last one end."""
        runs = (self.last - self.first) // RUN
        tasks = min(runs, TASKS)
        return self.first + RUN * (np.arange(tasks + 1) * runs // tasks)

    def blank(self, *shape: int) -> Tensor:
        """Lines with zero guards; what lies between them is for the caller to write."""
        lines = torch.empty(*shape, self.length, dtype=torch.float32)
        lines[..., : self.first] = 0
        lines[..., self.last :] = 0
        return lines

    def sheets(self, lines: Tensor) -> Tensor:
        """View of lines (C, length) as (B, C, H, W)."""
        body = lines[..., self.first : self.first + self.cells]
        body = body.view(-1, self.batch, self.height + 1, self.pitch)
        return body[:, :, : self.height, : self.width].transpose(0, 1)

    def fold(self, sheets: Tensor) -> Tensor:
        """Lines (C, length) of sheets (B, C, H, W)."""
        lines = torch.zeros(sheets.shape[1], self.length, dtype=torch.float32)
        self.sheets(lines).copy_(sheets)
        return lines


def _tiled(matrix: Tensor) -> Tensor:
    """A copy with zeros up to whole tiles, in every dimension."""
    tiled = torch.zeros([_whole(size, TILE) for size in matrix.shape], dtype=torch.float32)
    tiled[tuple(slice(size) for size in matrix.shape)] = matrix
    return tiled


def _total(sums: np.ndarray[Any, Any]) -> Tensor:
    """Sum over tasks, in their order and in double precision."""
    return torch.from_numpy(sums.sum(axis=0, dtype=np.float64).astype(np.float32))


def _untiled(sums: np.ndarray[Any, Any], rows: int, columns: int) -> Tensor:
    """Matrix (rows, columns) from the tiles that the tasks summed."""
    across = _whole(columns, TILE) // TILE
    tiles = _total(sums).view(-1, across, TILE, TILE)
    return tiles.transpose(1, 2).reshape(-1, across * TILE)[:rows, :columns].contiguous()


@dataclass(frozen=True)
class _Plan:
    """All about a call that is not a tensor to differentiate."""

    line: Line
    fixed: int
    laplacian: bool
    gains: tuple[float, ...]
    fire: Callable[[int], Tensor | None] | None
    every: int


class _Stepper:
    """Takes steps forward and backward on lines, for one rule."""

    def __init__(self, plan: _Plan, rule: Sequence[Tensor]) -> None:
        hidden, hidden_bias, delta, delta_bias = (tensor.detach() for tensor in rule)
        moving = torch.tensor([0, *range(plan.fixed + 1, delta.shape[0])])
        tiled = [_tiled(t) for t in (hidden, hidden_bias, delta[moving], delta_bias[moving], hidden.T, delta[moving].T)]
        no_bias = torch.zeros(max(tiled[0].shape), dtype=torch.float32)
        self.plan, self.moving, self.channels, self.shape = plan, moving, delta.shape[0], tuple(hidden.shape)
        self.rule = Rule(*(t.numpy() for t in (*tiled, no_bias)))
        self.cuts = plan.line.cuts()
        self.inside = plan.line.fold(torch.ones(plan.line.batch, 1, plan.line.height, plan.line.width))[0]

    def _common(self, state: Tensor, step: int, mask: Tensor | None) -> tuple[Any, ...]:
        plan = self.plan
        live = self.inside if mask is None else plan.line.fold(mask.unsqueeze(1))[0]
        gain = np.float32(plan.gains[step])
        numbers = (gain, plan.fixed, plan.laplacian, plan.line.pitch, self.cuts)
        return (state.numpy(), self.rule, live.numpy(), *numbers)

    def advance(self, state: Tensor, step: int, mask: Tensor | None, moved: Tensor) -> None:
        advance(*self._common(state, step, mask), moved.numpy())

    def start_back(self) -> None:
        hidden, delta = self.rule.hidden.shape, self.rule.delta.shape
        tasks = len(self.cuts) - 1
        self.slopes = self.plan.line.blank(hidden[1])
        shapes = [(hidden[0] * hidden[1] // LANES, LANES), hidden[:1], (delta[0] * delta[1] // LANES, LANES), delta[:1]]
        self.sums = tuple(np.zeros((tasks, *shape), np.float32) for shape in shapes)

    def retreat(self, state: Tensor, step: int, mask: Tensor | None, grad: Tensor) -> None:
        slopes = self.slopes.numpy()
        retreat(*self._common(state, step, mask), self.inside.numpy(), grad.numpy(), slopes, self.sums)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the rule as it was given: the delta layer's rows of fixed channels have none."""
        units, features = self.shape
        hidden, hidden_bias, delta, delta_bias = self.sums
        rows = len(self.moving)
        delta_full = torch.zeros(self.channels, units, dtype=torch.float32)
        delta_full[self.moving] = _untiled(delta, rows, units)
        delta_bias_full = torch.zeros(self.channels, dtype=torch.float32)
        delta_bias_full[self.moving] = _total(delta_bias)[:rows]
        return _untiled(hidden, units, features), _total(hidden_bias)[:units], delta_full, delta_bias_full


@contextmanager
def _threads() -> Iterator[None]:
    """As many threads as torch would use."""
    threads = torch.get_num_threads()
    before = numba.get_num_threads()  # the first call launches numba's threads and overwrites torch's number
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    try:
        yield
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(threads)


class _Trajectory(torch.autograd.Function):
    """All steps as one node of the graph."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, state: Tensor, *rule: Tensor) -> Tensor:
        ctx.plan = plan
        final, kept, masks = _play(plan, state, rule, keep=True)
        ctx.steps_kept = len(kept)
        ctx.save_for_backward(*rule, *kept, *masks)
        return final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        rule, kept, masks = saved[:4], saved[4 : 4 + ctx.steps_kept], saved[4 + ctx.steps_kept :]
        gradients = _rewind(ctx.plan, rule, kept, masks, grad)
        wanted = ctx.needs_input_grad[1:]
        return (None, *(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)))


def _play(
    plan: _Plan, state: Tensor, rule: Sequence[Tensor], *, keep: bool
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The final state; to go back, also every `every`-th state from the first, as lines, and the fire masks."""
    stepper = _Stepper(plan, rule)
    current = plan.line.fold(state.detach())
    kept: list[Tensor] = []
    masks: list[Tensor] = []
    spare: list[Tensor] = []
    with _threads():
        for step in range(len(plan.gains)):
            mask = plan.fire(step) if plan.fire else None
            moved = spare.pop() if spare else plan.line.blank(len(current))
            stepper.advance(current, step, mask, moved)
            (kept if keep and step % plan.every == 0 else spare).append(current)
            if keep and mask is not None:
                masks.append(mask)
            current = moved
    return plan.line.sheets(current).contiguous(), kept, masks


def _rewind(
    plan: _Plan, rule: Sequence[Tensor], kept: Sequence[Tensor], masks: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the initial state and of the rule's four tensors."""
    stepper = _Stepper(plan, rule)
    stepper.start_back()
    slope = plan.line.fold(grad)
    steps = len(plan.gains)
    mask_of = dict(enumerate(masks))
    between = [plan.line.blank(grad.shape[1]) for _ in range(min(plan.every, steps) - 1)]
    with _threads():
        for begin in reversed(range(0, steps, plan.every)):
            states = [kept[begin // plan.every], *between]
            end = min(begin + plan.every, steps)
            for step in range(begin, end - 1):
                stepper.advance(states[step - begin], step, mask_of.get(step), states[step - begin + 1])
            for step in reversed(range(begin, end)):
                stepper.retreat(states[step - begin], step, mask_of.get(step), slope)
    return (plan.line.sheets(slope).contiguous(), *stepper.gradients())


def supports(state: Tensor) -> bool:
    """Whether run can take this state."""
    return state.device.type == "cpu" and state.dtype == torch.float32 and state.dim() == 4 and state.numel() > 0


def run(
    state: Tensor,
    *,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    delta_weight: Tensor,
    delta_bias: Tensor,
    fixed: int,
    laplacian: bool,
    gains: Sequence[float],
    fire: Callable[[int], Tensor | None] | None = None,
    checkpoint_every: int = 1,
) -> Tensor:
    """State (B, C, H, W) after len(gains) steps.

    Channel 0 is the weight, which stays where channel 1, known, is not 0; channels 1 to `fixed` never change.
    hidden_weight (J, F * C) takes features filter by filter: identity, vertical and horizontal Sobel, Laplacian.
    delta_weight (C, J) and delta_bias (C,) have a row for every channel; those of fixed channels are ignored.
    gains scale the change, step by step; so does the mask fire(step) (B, H, W), which is kept for the way back and
    must not be written to until then.  checkpoint_every saves memory for up to one more forward pass.
    """
    rule = (hidden_weight, hidden_bias, delta_weight, delta_bias)
    if not supports(state):
        raise ValueError(f"need a non-empty float32 state of 4 dimensions on the CPU, got {state.dtype} {state.shape}")
    batch, channels, height, width = state.shape
    filters = 4 if laplacian else 3
    if not 1 <= fixed < channels or checkpoint_every < 1:
        raise ValueError(f"fixed={fixed} of {channels} channels, checkpoint_every={checkpoint_every}")
    if hidden_weight.shape[1] != filters * channels or delta_weight.shape != (channels, len(hidden_weight)):
        raise ValueError(f"layers {tuple(hidden_weight.shape)}, {tuple(delta_weight.shape)} for {channels} channels")
    line = Line(batch, height, width)
    plan = _Plan(line, fixed, laplacian, tuple(float(gain) for gain in gains), fire, checkpoint_every)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (state, *rule)):
        final: Tensor = _Trajectory.apply(plan, state, *rule)
        return final
    return _play(plan, state, rule, keep=False)[0]
