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
    unit of work: every inner loop has a constant trip count.  Runs are dealt to at most 64 tasks, a split that
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

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

RUN = 128  # cells in a run: features and hidden layer of a run fill about an L1 cache
LANES = 16  # floats in a vector, one AVX-512 register
TILE = 4  # rows a dense tile computes at once; also vectors side by side in it: 16 accumulators

# Infinities and NaNs keep their meaning (no "fast"): a diverging hidden channel must not leak through a mask.
_FLAGS = {"contract", "reassoc", "nsz"}
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
# What a kernel calls is compiled into it. Else the process that compiles would call the function as it was compiled by
# itself, and those that load the kernel from numba's cache as it was compiled within: two codes, which round otherwise.
_inlined = njit(fastmath=_FLAGS, forceinline=True)


class Rule(NamedTuple):  # its name is in numba's caches, which outlive an upgrade
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


def _shuffle(builder: Any, left: Any, right: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _spread(builder: Any, scalar: Any) -> Any:
    seed = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
    return _shuffle(builder, seed, seed, [0] * LANES)


def _accumulate(builder: Any, total: Any, left: Any, right: Any) -> None:
    """total += one * other, fused ("contract") where the CPU can."""
    product = builder.fmul(left, right, flags=["contract"])
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


@_inlined
def _dense(weight, bias, inputs, out, floor):
    for row in range(0, weight.shape[0], TILE):
        _dense_tile(weight, bias, row, inputs, out, floor)


@_inlined
def _outer(left, right, tiles):
    place = 0
    for row in range(0, left.shape[0], TILE):
        for column in range(0, right.shape[0], TILE):
            _outer_tile(left, row, right, column, tiles, place)
            place += 1


@_inlined
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


@_inlined
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


@_inlined
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


@_inlined
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


@_inlined
def _delta_slopes(state, grad, live, gain, fixed, start, slopes, total):
    """Gradient of the change of every moving channel, and its sum over the run added to total."""
    on = live[start : start + RUN]
    known = state[1, start : start + RUN]
    for m in range(state.shape[0] - fixed):
        above = grad[m + fixed if m else 0, start : start + RUN]
        for x in range(RUN):
            slopes[m, x] = above[x] * (gain * on[x]) if on[x] != 0 and (m != 0 or known[x] == 0) else np.float32(0)
        total[m] += _sum(slopes[m])


@_inlined
def _sum(values):
    total = np.float32(0)
    for x in range(RUN):
        total += values[x]
    return total


@njit(fastmath=_FLAGS)  # inlined, its sums would round otherwise than they always have
def _rectify_slopes(hidden, slopes, total):
    for j in range(hidden.shape[0]):
        for x in range(RUN):
            slopes[j, x] = slopes[j, x] if hidden[j, x] > 0 else np.float32(0)
        total[j] += _sum(slopes[j])


# --- Kernels: a whole step -------------------------------------------------------------------------------------------


@njit(parallel=True, cache=True, nogil=True, fastmath=_FLAGS)
def advance(state, rule, live, gain, fixed, laplacian, pitch, cuts, moved):
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
def retreat(state, rule, live, gain, fixed, laplacian, pitch, cuts, inside, grad, slopes, sums):
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
