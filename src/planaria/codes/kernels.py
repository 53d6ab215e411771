"""CPU kernels of the Reed-Solomon code: the polynomial division that makes check symbols, and the decoder of a column.

A field element is a 16-bit polynomial over GF(2) modulo x^16 + x^12 + x^3 + x + 1; addition is XOR. alpha = x generates
all ORDER nonzero elements: `exp[power]` is alpha^power for power < 2 ORDER, `log` its inverse (int32, log[0] unused).

The division works on LANES columns side by side. Its scratch holds, LANES symbols a row, the remainder, one row of
zeros, and four tables of 16 multiples of the row divided by, one for each nibble of a factor: a product with any
constant is then the XOR of four rows. The decoder works on one column at a time, with logarithms.
"""

# What numba compiles has no annotations: its types are found by inference, on the first call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, import-untyped"
# mypy: disallow-untyped-decorators=False

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

ORDER = 65535
POLYNOMIAL = 0x1100B
LANES = 128  # columns divided side by side; fewer pay more per row, more are wasted on narrow streams
QUICK = 16  # symbols for each error from which counting a locator's roots is cheaper than looking for them
_VECTOR = ir.VectorType(ir.IntType(16), LANES)
_REDUCTION = np.uint16(POLYNOMIAL & 0xFFFF)


@njit(nogil=True, cache=True)
def field():
    """The tables (exp, log)."""
    exp, log = np.empty(2 * ORDER, np.uint16), np.zeros(ORDER + 1, np.int32)
    element = 1
    for power in range(ORDER):
        exp[power] = exp[power + ORDER] = element
        log[element] = power
        element <<= 1
        if element > ORDER:
            element ^= POLYNOMIAL
    return exp, log


@njit(nogil=True, cache=True)
def generator(check, exp, log):
    """The product of (x - alpha^k), k = 1..check: coefficients from x^(check-1) down, without the leading 1."""
    # From the highest coefficient down, it reads as the product of (1 - alpha^k x) does from the lowest up.
    coefficients = np.zeros(check + 1, np.int32)
    coefficients[0] = 1
    for power in range(1, check + 1):
        _include(power, coefficients[: power + 1], exp, log)
    return coefficients[1:]


# --- Division --------------------------------------------------------------------------------------------------------


@intrinsic
def _xor_rows(typing: Any, scratch: Any, target: Any, sources: Any) -> Any:
    """scratch[target] = XOR of scratch[source] over a tuple of sources.

    In LLVM's vector types: the loop vectoriser would test at every row whether rows overlap, for half of the time.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base = context.make_array(signature.args[0])(context, builder, args[0]).data

        def at(row: Any) -> Any:
            start = builder.gep(base, [builder.mul(row, ir.IntType(64)(LANES))])
            return builder.bitcast(start, _VECTOR.as_pointer())

        total = ir.Constant(_VECTOR, [0] * LANES)
        for place in range(len(sources)):
            row = builder.extract_value(args[2], place)
            total = builder.xor(total, builder.load(at(row), align=2))
        builder.store(total, at(args[1]), align=2)
        return context.get_dummy_value()

    return types.void(scratch, target, sources), generate


@njit
def _double(source, target):
    for lane in range(LANES):
        target[lane] = (source[lane] << 1) ^ ((source[lane] >> 15) * _REDUCTION)


@njit
def _tabulate(scratch, first):
    """From the factors in scratch[first + 1]: scratch[first + 16 q + v] = factor * (v << 4 q), for nibbles v > 0."""
    for bit in range(16):
        table, size = first + bit // 4 * 16, 1 << bit % 4
        if bit > 0:
            _double(scratch[table + size // 2 if size > 1 else table - 8], scratch[table + size])
        for value in range(1, size):
            _xor_rows(scratch, table + size + value, (table + size, table + value))


@njit
def _copy(source, target):
    """target[:] = source, which takes numba seconds to compile."""
    for i in range(len(source)):
        for lane in range(source.shape[1]):
            target[i, lane] = source[i, lane]


@njit(nogil=True, cache=True)
def divide(rows, remainder, picks, start, stop):
    """Continues the division by the generator with `rows` (n, width); changes remainder[:, start:stop].

    picks (check, 4) holds, for every coefficient of the generator, which rows of the scratch add up to its product.
    """
    check = len(picks)
    first = check + 1
    scratch = np.zeros((first + 4 * 16, LANES), np.uint16)
    for left in range(start, stop, LANES):
        lanes = min(LANES, stop - left)
        _copy(remainder[:, left : left + lanes], scratch[:check, :lanes])
        for i in range(len(rows)):
            for lane in range(lanes):
                scratch[first + 1, lane] = scratch[0, lane] ^ rows[i, left + lane]
            _tabulate(scratch, first)
            for j in range(check):
                _xor_rows(scratch, j, (j + 1, picks[j, 0], picks[j, 1], picks[j, 2], picks[j, 3]))
        _copy(scratch[:check, :lanes], remainder[:, left : left + lanes])


# --- Decoding --------------------------------------------------------------------------------------------------------
# Polynomials are int32 arrays, from the lowest coefficient up. The symbol of x^e is `located` by (1 - alpha^e x), whose
# root is alpha^-e.


@njit
def _product(left, right, exp, log):
    return np.int64(exp[log[left] + log[right]]) if left != 0 and right != 0 else np.int64(0)


@njit
def _include(power, polynomial, exp, log):
    """Multiplies by (1 - alpha^power x), dropping what is beyond the array."""
    for degree in range(len(polynomial) - 1, 0, -1):
        if polynomial[degree - 1] != 0:
            polynomial[degree] ^= exp[log[polynomial[degree - 1]] + power]


@njit
def _value(polynomial, power, exp, log):
    """polynomial(alpha^power)."""
    value = np.int64(0)
    for degree in range(len(polynomial) - 1, -1, -1):
        if value != 0:
            value = np.int64(exp[log[value] + power])
        value ^= polynomial[degree]
    return value


@njit
def _add_syndromes(symbol, exponent, syndromes, exp, log):
    """syndromes[k - 1] += symbol * alpha^(exponent k), for k = 1..check."""
    if symbol == 0:
        return
    power = np.int64(log[symbol])
    for k in range(len(syndromes)):
        power += exponent
        if power >= ORDER:
            power -= ORDER
        syndromes[k] ^= exp[power]


@njit
def _locate(sequence, locator, former, exp, log):
    """Berlekamp-Massey: the shortest recurrence of a sequence. Fills `locator`, returns its length (Massey 1969)."""
    locator[:] = 0
    former[:] = 0
    locator[0] = former[0] = 1
    length, former_length, shift, former_gap = 0, 0, 1, np.int64(1)
    kept = np.empty_like(locator)
    for n in range(len(sequence)):
        gap = np.int64(sequence[n])
        for i in range(1, length + 1):
            gap ^= _product(locator[i], sequence[n - i], exp, log)
        if gap == 0:
            shift += 1
            continue
        grows = 2 * length <= n
        if grows:
            for i in range(length + 1):
                kept[i] = locator[i]
        factor = np.int64(exp[log[gap] - log[former_gap] + ORDER])
        for i in range(former_length + 1):
            locator[i + shift] ^= _product(factor, former[i], exp, log)
        if grows:
            for i in range(length + 1):
                former[i] = kept[i]
            length, former_length = n + 1 - length, length
            former_gap, shift = gap, 0
        shift += 1
    return length


@njit
def _splits(locator, degree, exp, log, logs, power, square):
    """Whether a polynomial of this degree, 2 or more, has as many different roots: then it divides x^65536 - x.

    Costs 16 degree^2 products; the search costs degree for every symbol, and most of what cannot be decoded has no
    other sign of it.
    """
    if locator[degree] == 0:
        return False
    for i in range(degree):
        logs[i] = -1 if locator[i] == 0 else (log[locator[i]] - log[locator[degree]]) % ORDER
    power[:degree] = 0
    power[1] = 1
    for _ in range(16):
        square[: 2 * degree - 1] = 0
        for i in range(degree):
            square[2 * i] = _product(power[i], power[i], exp, log)
        for high in range(2 * degree - 2, degree - 1, -1):
            if square[high] == 0:
                continue
            factor = log[square[high]]
            for i in range(degree):
                if logs[i] >= 0:
                    square[high - degree + i] ^= exp[factor + logs[i]]
        power[:degree] = square[:degree]
    power[1] ^= 1
    return not power[:degree].any()


@njit
def _search(locator, symbols, exponents, exp, log):
    """Chien search: fills `exponents` below `symbols` with those that the locator locates, and returns how many."""
    degrees = np.flatnonzero(locator)[1:]
    powers = np.empty(len(degrees), np.int64)
    for term in range(len(degrees)):
        powers[term] = log[locator[degrees[term]]]
    found = 0
    for exponent in range(symbols):
        if found == len(exponents):
            break
        total = np.int64(1)
        for term in range(len(degrees)):
            total ^= np.int64(exp[powers[term]])
            powers[term] -= degrees[term]
            if powers[term] < 0:
                powers[term] += ORDER
        if total == 0:
            exponents[found] = exponent
            found += 1
    return found


@njit
def _correct_column(remainder, erased, symbols, most, exp, log, scratch, places, values):
    """Fills places and values with the error of one column; returns how many symbols it has, or -1.

    erased holds the places of erasures, ascending; `most` bounds 2 * errors + erasures.
    """
    check, erasures = len(remainder), len(erased)
    if erasures > most:
        return -1
    syndromes, modified, evaluator = scratch[0, :check], scratch[1, :check], scratch[2, :check]
    locator, former, exponents = scratch[3], scratch[4], scratch[5]
    syndromes[:] = 0
    for j in range(check):
        _add_syndromes(remainder[j], check - 1 - j, syndromes, exp, log)
    # Multiplied by the erasures' locator, the syndromes from `erasures` on are those of the errors alone (Forney 1965).
    for k in range(check):
        modified[k] = syndromes[k]
    for i in range(erasures):
        exponents[i] = symbols - 1 - erased[i]
        _include(exponents[i], modified, exp, log)
    errors = _locate(modified[erasures:], locator, former, exp, log)
    total = erasures + errors
    if total + errors > most:
        return -1
    if 1 < errors < symbols // QUICK and not _splits(locator, errors, exp, log, scratch[6], former, evaluator):
        return -1
    if _search(locator[: errors + 1], symbols, exponents[erasures:total], exp, log) < errors:
        return -1
    # Forney's formula: the symbol of x^e is evaluator / derivative of the locator of all, both at alpha^-e.
    for degree in range(total):
        evaluator[degree] = 0
        for i in range(min(errors, degree) + 1):
            evaluator[degree] ^= _product(locator[i], modified[degree - i], exp, log)
    for i in range(erasures):
        _include(exponents[i], locator[: total + 1], exp, log)
    for degree in range(total):  # in characteristic 2, even powers have no derivative
        locator[degree] = locator[degree + 1] if degree % 2 == 0 else 0
    changed = 0
    for i in range(total):
        root = ORDER - exponents[i]
        slope = _value(locator[:total], root, exp, log)
        if slope == 0:
            return -1
        value = _value(evaluator[:total], root, exp, log)
        if value != 0:
            value = np.int64(exp[log[value] - log[slope] + ORDER])
            _add_syndromes(value, exponents[i], syndromes, exp, log)
            places[changed], values[changed] = symbols - 1 - exponents[i], value
            changed += 1
    for k in range(check):
        if syndromes[k] != 0:
            return -1
    return changed


@njit(nogil=True, cache=True)
def correct(remainders, erased, bounds, symbols, most, exp, log, places, values, counts, start, stop):
    """Decodes remainders (columns, check) from start to stop into places, values (columns, check) and counts (columns).

    Column c has its erasures in erased[bounds[c] : bounds[c + 1]]; a count of -1 says that it could not be decoded.
    """
    scratch = np.empty((7, remainders.shape[1] + 2), np.int32)
    for c in range(start, stop):
        own = erased[bounds[c] : bounds[c + 1]]
        counts[c] = _correct_column(remainders[c], own, symbols, most, exp, log, scratch, places[c], values[c])
