"""Fused CPU kernels for the automaton: many steps forward and backward without materialising features.

One step reads a 3x3 neighbourhood of every channel (identity, two Sobel filters, optionally a Laplacian), runs a
two-layer perceptron on those features in every cell, and adds the result to the channels that are free to move.
Written with convolutions this streams the features and the hidden layer of every cell through memory, some 64 floats
a cell, and autograd keeps them for every step.  Here a cell's features and hidden layer live only in a cache-sized
scratch.

Layout
    A batch (B, C, H, W) becomes C *lines*.  A line strings all rows of all sheets together, one zero after every row
    and one row of zeros after every sheet, between two zero guards, so that a neighbour is a constant offset away, in
    any sheet and at any edge, and zero padding needs no special case.  The line is cut into *runs* of RUN cells, the
    unit of work: every inner loop has a constant trip count.  Runs are dealt to at most TASKS tasks, a split that
    depends on the size of the batch only; what tasks sum, they sum apart and it is added in the order of the tasks, so
    results are the same, bit for bit, for any number of threads.

Cost, for C channels, K = F * C features of F filters, J hidden units and M moving channels, per cell and step
    forward     2 (K J + J M) FLOPs plus about 20 C for the filters: 2.7 k for C = 8, F = 4, J = 32
    backward    2 (3 K J + 2 J M), about 2.6 times as much: features and hidden layer are computed again
    kept        4 C / checkpoint_every bytes, and the fire mask as it was given; plain autograd keeps about
                4 (2 C + K + J), of which the state is a tenth
    transient   4 K bytes a cell, once, for the gradient of the features

The two dense inner loops are written in LLVM's vector types rather than left to the loop vectoriser: only so do their
16 accumulators stay in registers, which is worth about a factor of two.  LLVM maps the vectors to whatever the CPU has.
"""

# What numba compiles has no annotations: its types are found by inference, on the first call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, import-untyped"

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor
from torch.autograd.function import once_differentiable

RUN = 128  # cells in a run: features and hidden layer of a run fill about an L1 cache
TASKS = 64  # most tasks a step is split into
LANES = 16  # floats in a vector, one AVX-512 register
TILE = 4  # rows a dense tile computes at once; also vectors side by side in it: 16 accumulators

# Infinities and NaNs keep their meaning (no "fast"): a diverging hidden channel must not leak through a mask.
_FLAGS = {"contract", "reassoc", "nsz"}
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class Rule(NamedTuple):
    """The two layers, for moving channels only, and their transposes; rows and columns in whole tiles, zero-filled."""

    hidden: Any  # (J, K)
    hidden_bias: Any  # (J,)
    delta: Any  # (M, J)
    delta_bias: Any  # (M,)
    hidden_back: Any  # (K, J)
    delta_back: Any  # (J, M)
    no_bias: Any  # zeros, as many as the longest of all


# --- Vector code -----------------------------------------------------------------------------------------------------


class _Matrix:
    """A float32 matrix in generated code: vectors and scalars at (row, column), columns being contiguous."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self.builder = builder
        array = context.make_array(kind)(context, builder, value)
        self.base = array.data
        self.shape = cgutils.unpack_tuple(builder, array.shape)
        self.pitch = builder.sdiv(cgutils.unpack_tuple(builder, array.strides)[0], ir.IntType(64)(4))

    def at(self, row: Any, column: Any) -> Any:
        return self.builder.gep(self.base, [self.builder.add(self.builder.mul(row, self.pitch), column)])

    def vector_at(self, row: Any, column: Any) -> Any:
        return self.builder.bitcast(self.at(row, column), _VECTOR.as_pointer())

    def vector(self, row: Any, column: Any) -> Any:
        return self.builder.load(self.vector_at(row, column), align=4)

    def put(self, vector: Any, row: Any, column: Any) -> None:
        self.builder.store(vector, self.vector_at(row, column), align=4)


def _index(value: int) -> Any:
    return ir.IntType(64)(value)


def _shuffle(builder: Any, one: Any, other: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _spread(builder: Any, scalar: Any) -> Any:
    seed = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
    return _shuffle(builder, seed, seed, [0] * LANES)


def _accumulate(builder: Any, total: Any, one: Any, other: Any) -> None:
    """total += one * other, fused ("contract") where the CPU can."""
    product = builder.fmul(one, other, flags=["contract"])
    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)


def _lane_sums(builder: Any, vectors: list[Any]) -> Any:
    """One vector whose lane i is the sum of vectors[i]: a tree of pairwise sums, three operations a node."""
    even, odd = range(0, 2 * LANES, 2), range(1, 2 * LANES, 2)
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.fadd(_shuffle(builder, a, b, even), _shuffle(builder, a, b, odd)) for a, b in pairs]
    return vectors[0]


@intrinsic
def _dense_tile(typing: Any, weight: Any, bias: Any, row: Any, inputs: Any, out: Any, floor: Any) -> Any:
    """out[row + r, :RUN] = max(bias[row + r] + weight[row + r] @ inputs[:, :RUN], floor) for r < TILE."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w, x, y = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 3, 4))
        biases = context.make_array(signature.args[1])(context, builder, args[1]).data
        rows = [builder.add(args[2], _index(r)) for r in range(TILE)]
        totals = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(TILE)] for _ in rows]
        lowest = _spread(builder, args[5])
        with cgutils.for_range(builder, _index(RUN // (TILE * LANES))) as block:
            start = builder.mul(block.index, _index(TILE * LANES))
            columns = [builder.add(start, _index(v * LANES)) for v in range(TILE)]
            for r, across in zip(rows, totals, strict=True):
                first = _spread(builder, builder.load(builder.gep(biases, [r])))
                for total in across:
                    builder.store(first, total)
            with cgutils.for_range(builder, w.shape[1]) as inner:
                vectors = [x.vector(inner.index, column) for column in columns]
                for r, across in zip(rows, totals, strict=True):
                    factor = _spread(builder, builder.load(w.at(r, inner.index)))
                    for vector, total in zip(vectors, across, strict=True):
                        _accumulate(builder, total, factor, vector)
            for r, across in zip(rows, totals, strict=True):
                for column, total in zip(columns, across, strict=True):
                    value = builder.load(total)
                    below = builder.fcmp_ordered("<", value, lowest)  # ordered: NaN stays NaN, as in torch
                    y.put(builder.select(below, lowest, value), r, column)
        return context.get_dummy_value()

    return types.void(weight, bias, types.intp, inputs, out, types.float32), generate


@intrinsic
def _outer_tile(typing: Any, left: Any, row: Any, right: Any, column: Any, tiles: Any, place: Any) -> Any:
    """tiles[place, TILE * r + c] += sum over the run of left[row + r] * right[column + c], for r, c < TILE."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, out = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 2, 4))
        rows = [builder.add(args[1], _index(r)) for r in range(TILE)]
        columns = [builder.add(args[3], _index(c)) for c in range(TILE)]
        totals = [[cgutils.alloca_once(builder, _VECTOR) for _ in columns] for _ in rows]
        every_total = [total for across in totals for total in across]
        for total in every_total:
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
        with cgutils.for_range(builder, _index(RUN // LANES)) as block:
            cell = builder.mul(block.index, _index(LANES))
            vectors = [b.vector(c, cell) for c in columns]
            for r, across in zip(rows, totals, strict=True):
                factor = a.vector(r, cell)
                for vector, total in zip(vectors, across, strict=True):
                    _accumulate(builder, total, factor, vector)
        sums = _lane_sums(builder, [builder.load(total) for total in every_total])
        out.put(builder.fadd(out.vector(args[5], _index(0)), sums), args[5], _index(0))
        return context.get_dummy_value()

    return types.void(left, types.intp, right, types.intp, tiles, types.intp), generate


# --- Kernels: pieces on one run --------------------------------------------------------------------------------------


@njit(fastmath=_FLAGS)
def _dense(weight, bias, inputs, out, floor):
    for row in range(0, weight.shape[0], TILE):
        _dense_tile(weight, bias, row, inputs, out, floor)


@njit(fastmath=_FLAGS)
def _outer(left, right, tiles):
    place = 0
    for row in range(0, left.shape[0], TILE):
        for column in range(0, right.shape[0], TILE):
            _outer_tile(left, row, right, column, tiles, place)
            place += 1


@njit(fastmath=_FLAGS)
def _scratch(rows):
    """Zeros (rows, RUN) on a cache line's boundary: a vector that straddles two lines takes twice as long to load."""
    flat = np.zeros(rows * RUN + LANES, np.float32)
    skip = -(flat.ctypes.data // 4) % LANES
    return flat[skip : skip + rows * RUN].reshape(rows, RUN)


@njit(fastmath=_FLAGS, inline="always")
def _rows(line, start, pitch):
    """A run and one cell at either end, between the same in the row above and in the row below."""
    first, last = start - 1, start + RUN + 1
    return line[first - pitch : last - pitch], line[first:last], line[first + pitch : last + pitch]


@njit(fastmath=_FLAGS)
def _perceive(state, start, pitch, laplacian, work, features):
    """Features of a run.  The filters are products of a column and a row: columns first, into work, then rows."""
    channels = state.shape[0]
    smooth, rise = work[0], work[1]
    for c in range(channels):
        up, mid, down = _rows(state[c], start, pitch)
        for x in range(RUN + 2):
            smooth[x] = up[x] + mid[x] + mid[x] + down[x]
            rise[x] = down[x] - up[x]
        for x in range(RUN):
            features[c, x] = mid[x + 1]
        for x in range(RUN):
            features[channels + c, x] = (rise[x] + rise[x + 1] + rise[x + 1] + rise[x + 2]) * np.float32(1 / 8)
            features[2 * channels + c, x] = (smooth[x + 2] - smooth[x]) * np.float32(1 / 8)
        if laplacian:
            for x in range(RUN):
                mean = (smooth[x] + smooth[x + 1] + smooth[x + 1] + smooth[x + 2]) * np.float32(1 / 16)
                features[3 * channels + c, x] = mean - mid[x + 1]


@njit(fastmath=_FLAGS)
def _gather(slopes, start, pitch, laplacian, inside, work, grad):
    """grad += the transposed filters of the features' slopes: a Sobel filter is odd, the Laplacian even."""
    channels = grad.shape[0]
    smooth, rise = work[0], work[1]  # what the row filters [1, 2, 1] and [1, 0, -1] are still to be applied to
    cell = inside[start : start + RUN]
    for c in range(channels):
        out, same = grad[c, start : start + RUN], slopes[c, start : start + RUN]
        up, _, down = _rows(slopes[channels + c], start, pitch)
        for x in range(RUN + 2):
            smooth[x] = (up[x] - down[x]) * np.float32(1 / 8)
        up, mid, down = _rows(slopes[2 * channels + c], start, pitch)
        for x in range(RUN + 2):
            rise[x] = (up[x] + mid[x] + mid[x] + down[x]) * np.float32(1 / 8)
        if laplacian:
            up, mid, down = _rows(slopes[3 * channels + c], start, pitch)
            for x in range(RUN + 2):
                smooth[x] += (up[x] + mid[x] + mid[x] + down[x]) * np.float32(1 / 16)
            for x in range(RUN):
                out[x] -= mid[x + 1]
        for x in range(RUN):
            across = smooth[x] + smooth[x + 1] + smooth[x + 1] + smooth[x + 2] + rise[x] - rise[x + 2]
            out[x] = out[x] + same[x] + across if cell[x] != 0 else np.float32(0)


@njit(fastmath=_FLAGS)
def _move(state, delta, live, gain, fixed, start, moved):
    """Add the change where there is one to add.  A cell that stays is copied: its bits are those of the input."""
    on = live[start : start + RUN]
    known = state[1, start : start + RUN]
    old, new = state[0, start : start + RUN], moved[0, start : start + RUN]
    for x in range(RUN):
        new[x] = old[x] + delta[0, x] * (gain * on[x]) if on[x] != 0 and known[x] == 0 else old[x]
    for c in range(1, state.shape[0]):
        old, new = state[c, start : start + RUN], moved[c, start : start + RUN]
        if c <= fixed:
            for x in range(RUN):
                new[x] = old[x]
        else:
            for x in range(RUN):
                new[x] = old[x] + delta[c - fixed, x] * (gain * on[x]) if on[x] != 0 else old[x]


@njit(fastmath=_FLAGS)
def _delta_slopes(state, grad, live, gain, fixed, start, slopes, total):
    """Gradient of the change of every moving channel, and its sum over the run added to total."""
    on = live[start : start + RUN]
    known = state[1, start : start + RUN]
    for m in range(state.shape[0] - fixed):
        above = grad[m + fixed if m else 0, start : start + RUN]
        for x in range(RUN):
            slopes[m, x] = above[x] * (gain * on[x]) if on[x] != 0 and (m != 0 or known[x] == 0) else np.float32(0)
        total[m] += _sum(slopes[m])


@njit(fastmath=_FLAGS)
def _sum(values):
    total = np.float32(0)
    for x in range(RUN):
        total += values[x]
    return total


@njit(fastmath=_FLAGS)
def _rectify_slopes(hidden, slopes, total):
    for j in range(hidden.shape[0]):
        for x in range(RUN):
            slopes[j, x] = slopes[j, x] if hidden[j, x] > 0 else np.float32(0)
        total[j] += _sum(slopes[j])


# --- Kernels: a whole step -------------------------------------------------------------------------------------------


@njit(parallel=True, cache=True, nogil=True, fastmath=_FLAGS)
def _advance(state, rule, live, gain, fixed, laplacian, pitch, cuts, moved):
    """moved = one step of state.  cuts: where the tasks' cells begin, and the end of the last."""
    for task in prange(len(cuts) - 1):
        features, hidden = _scratch(rule.hidden.shape[1]), _scratch(rule.hidden.shape[0])
        delta, work = _scratch(rule.delta.shape[0]), _scratch(4).reshape(2, 2 * RUN)
        for start in range(cuts[task], cuts[task + 1], RUN):
            _perceive(state, start, pitch, laplacian, work, features)
            _dense(rule.hidden, rule.hidden_bias, features, hidden, np.float32(0))
            _dense(rule.delta, rule.delta_bias, hidden, delta, np.float32(-np.inf))
            _move(state, delta, live, gain, fixed, start, moved)


@njit(parallel=True, cache=True, nogil=True, fastmath=_FLAGS)
def _retreat(state, rule, live, gain, fixed, laplacian, pitch, cuts, inside, grad, slopes, sums):
    """grad at the step's output becomes grad at its input; each task adds to its own sums of the rule's gradient."""
    hidden_tiles, hidden_totals, delta_tiles, delta_totals = sums
    for task in prange(len(cuts) - 1):
        features, hidden = _scratch(rule.hidden.shape[1]), _scratch(rule.hidden.shape[0])
        delta_slopes, hidden_slopes = _scratch(rule.delta.shape[0]), _scratch(rule.hidden.shape[0])
        work = _scratch(4).reshape(2, 2 * RUN)
        for start in range(cuts[task], cuts[task + 1], RUN):
            _perceive(state, start, pitch, laplacian, work, features)
            _dense(rule.hidden, rule.hidden_bias, features, hidden, np.float32(0))
            _delta_slopes(state, grad, live, gain, fixed, start, delta_slopes, delta_totals[task])
            _outer(delta_slopes, hidden, delta_tiles[task])
            _dense(rule.delta_back, rule.no_bias, delta_slopes, hidden_slopes, np.float32(-np.inf))
            _rectify_slopes(hidden, hidden_slopes, hidden_totals[task])
            _outer(hidden_slopes, features, hidden_tiles[task])
            _dense(rule.hidden_back, rule.no_bias, hidden_slopes, slopes[:, start : start + RUN], np.float32(-np.inf))
    for task in prange(len(cuts) - 1):
        work = _scratch(4).reshape(2, 2 * RUN)
        for start in range(cuts[task], cuts[task + 1], RUN):
            _gather(slopes, start, pitch, laplacian, inside, work, grad)


# --- Lines -----------------------------------------------------------------------------------------------------------


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


# --- Many steps ------------------------------------------------------------------------------------------------------


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
        _advance(*self._common(state, step, mask), moved.numpy())

    def start_back(self) -> None:
        hidden, delta = self.rule.hidden.shape, self.rule.delta.shape
        tasks = len(self.cuts) - 1
        self.slopes = self.plan.line.blank(hidden[1])
        shapes = [(hidden[0] * hidden[1] // LANES, LANES), hidden[:1], (delta[0] * delta[1] // LANES, LANES), delta[:1]]
        self.sums = tuple(np.zeros((tasks, *shape), np.float32) for shape in shapes)

    def retreat(self, state: Tensor, step: int, mask: Tensor | None, grad: Tensor) -> None:
        slopes = self.slopes.numpy()
        _retreat(*self._common(state, step, mask), self.inside.numpy(), grad.numpy(), slopes, self.sums)

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
