"""CPU kernels of the window code: check bits, and banded elimination over GF(2).

Data are 64 positions a word, position i in bit i % 64 of word i // 64. Check j of m covers the words from `_window` on,
each under the mask `mixed`.
"""

# What numba compiles has no annotations: its types are found by inference, on the first call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, assignment, import-untyped"
# mypy: disallow-untyped-decorators=False

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from planaria.splitmix import STEP, lowest, mixed

_ONE, _SIXTY_FOUR = np.uint64(1), np.uint64(64)
_GROUP = 4  # words added at once: a 256-bit vector


@njit
def _seed(check, word):
    return ((np.uint64(check) << np.uint64(32)) + np.uint64(word + 1)) * STEP


@njit
def _parity(word):
    for shift in (32, 16, 8, 4, 2, 1):
        word ^= word >> np.uint64(shift)
    return np.uint8(word & np.uint64(1))


@njit
def _window(check, checks, words, width):
    """First word of a check's window, and the word after its last: clipped to the data."""
    stop = 1 + width // 4 + (2 * check + 1) * (words + width // 2) // (2 * checks)
    return max(0, stop - width), min(stop, words)


@njit(nogil=True, cache=True)
def encode(data, width, checks):
    """XORs onto `checks` (uint8, one bit each) the check bits of `data` (uint64 words), `width` words a window."""
    for j in range(len(checks)):
        start, stop = _window(j, len(checks), len(data), width)
        total, seed = np.uint64(0), _seed(j, 0)
        for w in range(start, stop):
            total ^= data[w] & mixed(seed + np.uint64(w) * STEP)
        checks[j] ^= _parity(total)


@intrinsic
def _add_group(typing: Any, row: Any, rows: Any, index: Any, place: Any) -> Any:
    """row[place : place + _GROUP] ^= rows[index, place : place + _GROUP].

    In LLVM's vector types: the compiler does not know that row is none of rows, and would add word by word.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, rows = (context.make_array(signature.args[k])(context, builder, args[k]) for k in range(2))
        words = builder.extract_value(row.shape, 0)
        start = builder.add(builder.mul(args[2], words), args[3])

        def at(base: Any, place: Any) -> Any:
            return builder.bitcast(builder.gep(base, [place]), ir.VectorType(ir.IntType(64), _GROUP).as_pointer())

        target = at(row.data, args[3])
        total = builder.xor(builder.load(target, align=8), builder.load(at(rows.data, start), align=8))
        builder.store(total, target, align=8)
        return context.get_dummy_value()

    return types.void(row, rows, index, place), generate


@njit
def _add(row, rows, index):
    for place in range(0, len(row), _GROUP):
        _add_group(row, rows, np.int64(index), np.int64(place))


# --- Decoding --------------------------------------------------------------------------------------------------------


@njit
def _ring(before, checks, width):
    """Words a row needs: the most that the columns of a window touch, rounded up to whole groups of _GROUP."""
    most = 1
    for j in range(checks):
        start, stop = _window(j, checks, len(before) - 1, width)
        if before[stop] > before[start]:
            most = max(most, (before[stop] - 1) // 64 - before[start] // 64 + 1)
    return -(-most // _GROUP) * _GROUP


@njit
def _moves(mask, moves):
    """Which bits go right by 1, 2, 4 .. 32 to bring those under a mask together (Warren, Hacker's Delight, 7-4)."""
    right = ~mask << _ONE
    for i in range(6):
        odd = right
        for k in range(6):
            odd ^= odd << (_ONE << np.uint64(k))
        moves[i] = odd & mask
        mask = mask ^ moves[i] | moves[i] >> (_ONE << np.uint64(i))
        right &= ~odd


@njit
def _gather(check, start, stop, data, erased, moves, before, row):
    """Sets `row` to the coefficients of a check at the unknown bits; returns what known bits add to it."""
    row[:] = 0
    total, seed = np.uint64(0), _seed(check, 0)
    for w in range(start, stop):
        word = mixed(seed + np.uint64(w) * STEP)
        total ^= word & data[w]
        word &= erased[w]
        for i in range(6):
            moved = word & moves[w, i]
            word = word ^ moved | moved >> (_ONE << np.uint64(i))
        q, shift = (before[w] >> 6) % len(row), np.uint64(before[w] & 63)
        row[q] |= word << shift
        if shift != 0:
            row[q + 1 if q + 1 < len(row) else 0] |= word >> (_SIXTY_FOUR - shift)
    return _parity(total)


@njit
def _reduce(row, parity, low, high, rows, parities, pivots):
    """Adds pivots to a row until its first column has none. Returns that column, or -1, and the parity that is left."""
    for t in range(low >> 6, (high + 63) >> 6):
        q = t % len(row)
        word = row[q]
        while word != 0:
            column = 64 * t + np.int64(lowest(word))
            pivot = pivots[column]
            if pivot < 0:
                return column, parity
            word ^= rows[pivot, q]  # is row[q], sooner
            _add(row, rows, pivot)
            parity ^= parities[pivot]
    return -1, parity


@njit
def _substitute(rows, parities, pivots, values, solved):
    """Fills values and solved from the last column to the first. A row has no column before that of its pivot."""
    ones, unsolved = np.zeros(rows.shape[1], np.uint64), np.zeros(rows.shape[1], np.uint64)
    for column in range(len(pivots) - 1, -1, -1):
        q, bit = (column >> 6) % rows.shape[1], _ONE << np.uint64(column & 63)
        ones[q] &= ~bit  # was that of a column beyond the band
        unsolved[q] &= ~bit
        pivot = pivots[column]
        total = missing = np.uint64(0)
        if pivot >= 0:
            for k in range(rows.shape[1]):
                total ^= rows[pivot, k] & ones[k]
                missing |= rows[pivot, k] & unsolved[k]
        if pivot < 0 or missing != 0:
            unsolved[q] |= bit
            continue
        solved[column], values[column] = True, _parity(total) ^ parities[pivot]
        if values[column] != 0:
            ones[q] |= bit


@njit(nogil=True, cache=True)
def decode(data, erased, before, checks, width, values, solved):
    """Solves for the unknown bits; returns how many checks contradict.

    data: uint64 [words], unknown bits 0. erased: uint64 [words], unknown bits 1; column k is the k-th of them. before:
    int64 [words + 1], columns before each word. checks: uint8, one bit each. Fills values (uint8) and solved (bool),
    both [columns], that come as zeros.

    Rows hold column k in bit k % 64 of word (k // 64) % len(row), so that they add without a shift: windows come in
    order, and no row that is added to another goes beyond the window of that.
    """
    ring = _ring(before, len(checks), width)
    rows = np.empty((min(len(values), len(checks)), ring), np.uint64)
    parities, pivots = np.empty(len(rows), np.uint8), np.full(len(values), -1, np.int32)
    moves, row = np.empty((len(data), 6), np.uint64), np.empty(ring, np.uint64)
    for w in range(len(data)):
        _moves(erased[w], moves[w])
    used = contradictions = 0
    for j in range(len(checks)):
        start, stop = _window(j, len(checks), len(data), width)
        parity = checks[j] ^ _gather(j, start, stop, data, erased, moves, before, row)
        column, parity = _reduce(row, parity, before[start], before[stop], rows, parities, pivots)
        if column < 0:
            contradictions += parity
            continue
        pivots[column], parities[used] = used, parity
        rows[used] = row
        used += 1
    _substitute(rows, parities, pivots, values, solved)
    return contradictions
