"""Entropy coding of integers around zero: a range coder with one fixed table of frequencies a group."""

from collections.abc import Sequence
from functools import cache
from math import erfc, exp
from typing import Any

import constriction
import numpy as np
from jaxtyping import Float64, Int32, Int64, Integer, UInt8

from planaria.errors import InvalidInput

DEAD_ZONE = 0.55
"""Numbers below this many steps are quantised to 0. The tables know it."""
LIMIT = 1 << 21
"""No integer is larger."""

_queue, _model = constriction.stream.queue, constriction.stream.model
_SCALES = 31  # quarter octaves from 2^-4.5 to 2^3 steps
_TABLES = 2 * _SCALES  # one Laplacian and one Gaussian each
_TOP = 8  # tables of the last octave, which serve larger scales too: their lowest bits are stored as they are
_SHIFTS = 20
_CLASSES = 1 + _TABLES + _TOP * _SHIFTS  # class 0: nothing but zeros
_NEIGHBOUR = 2 * 22  # the table for differences of classes from group to group: Laplacian, scale 2^1
_ESCAPES = 24
_BINS = 128
_TOTAL = 1 << 16

Group = Integer[np.ndarray, " _"]  # each of its own size


def encode_groups(groups: Sequence[Group]) -> UInt8[np.ndarray, " bytes"]:
    """Codes groups of integers. Each gets the class (a scale and a shape) that makes it smallest.

    A class is stored as the difference from that of the group before. An integer at or beyond its table's end is an
    escape, and what it exceeds the end by follows the group in an Elias gamma code. The coder is that of constriction
    (`RangeEncoder`, 32-bit words, little-endian). Deterministic.

    Raises:
        InvalidInput: if an integer is larger than `LIMIT`.
    """
    for group in groups:
        if len(group) and max(int(group.max()), -int(group.min())) > LIMIT:
            raise InvalidInput(f"Integers up to {LIMIT} can be coded, and there are larger ones. Take a larger step.")
    return _encoded(groups, _choose(groups)[0])


def coded_size(groups: Sequence[Group]) -> int:
    """About as many bytes as `encode_groups` will answer, without coding."""
    classes, bits = _choose(groups)
    differences = np.diff(classes, prepend=0)
    bits += float(_costs()[np.minimum(np.abs(differences), _BINS - 1), _NEIGHBOUR].sum())
    return 4 * int(np.ceil((bits + 16) / 32))


class GroupReader:
    """Reads groups of integers back, in their order. Content is treated as hostile.

    `take` each group by its size, then `finish`.

    Raises:
        InvalidInput: if the content is none that `encode_groups` makes.
    """

    def __init__(self, content: UInt8[np.ndarray, " bytes"]):
        if len(content) % 4:
            raise InvalidInput(f"{len(content)} bytes are no 32-bit words. The content is damaged.")
        self._content = content
        self._decoder = _queue.RangeDecoder(np.ascontiguousarray(content).view("<u4").astype(np.uint32))
        self._groups: list[Group] = []
        self._classes: list[int] = []

    def take(self, size: int) -> Int32[np.ndarray, " size"]:
        """The next group, of `size` integers."""
        try:
            kind = (self._classes[-1] if self._classes else 0) + int(_get(self._decoder, 1, _NEIGHBOUR, 0)[0])
            if not 0 <= kind < _CLASSES:
                raise InvalidInput(f"There is no class {kind}. The content is damaged.")
            empty = not kind or not size
            group = np.zeros(size, np.int32) if empty else _get(self._decoder, size, *_table_and_shift(kind))
        except AssertionError as error:  # the range decoder's word for states that no encoder leaves
            raise InvalidInput("These words are no code of any integers. The content is damaged.") from error
        self._classes.append(kind)
        self._groups.append(group)
        return group

    def finish(self) -> None:
        """Makes sure that what was read is all there was: coded again, it is the same content."""
        if not np.array_equal(_encoded(self._groups, np.array(self._classes, np.int64)), self._content):
            raise InvalidInput("The content is cut off, too long or not of this shape.")


def _encoded(groups: Sequence[Group], classes: Int64[np.ndarray, " groups"]) -> UInt8[np.ndarray, " bytes"]:
    encoder = _queue.RangeEncoder()
    for group, kind, difference in zip(groups, classes, np.diff(classes, prepend=0), strict=True):
        _put(encoder, difference[None], _NEIGHBOUR, 0)
        if kind and len(group):
            _put(encoder, group, *_table_and_shift(int(kind)))
    return encoder.get_compressed().astype("<u4").view(np.uint8)


def _table_and_shift(kind: int) -> tuple[int, int]:
    over = kind - 1 - _TABLES
    return (kind - 1, 0) if over < 0 else (_TABLES - _TOP + over % _TOP, 1 + over // _TOP)


def _put(encoder: Any, values: Group, table: int, shift: int) -> None:
    model, end = _tables()[table]
    shifted = values.astype(np.int32) + (1 << shift >> 1)
    high = shifted >> shift
    encoder.encode(np.clip(high, -end, end) + end, model)
    if shift:
        encoder.encode(shifted & (1 << shift) - 1, _model.Uniform(1 << shift))
    excess = np.abs(high[np.abs(high) >= end]) - end + 1
    if len(excess):
        length = np.frexp(excess)[1] - 1
        encoder.encode(length.astype(np.int32), _escape())
        long = length > 0
        if long.any():
            sizes = (1 << length[long]).astype(np.int32)
            encoder.encode((excess[long] - sizes).astype(np.int32), _model.Uniform(), sizes)


def _get(decoder: Any, size: int, table: int, shift: int) -> Int32[np.ndarray, " size"]:
    model, end = _tables()[table]
    high = decoder.decode(model, size).astype(np.int64) - end
    low = decoder.decode(_model.Uniform(1 << shift), size).astype(np.int64) if shift else 0
    beyond = np.flatnonzero(np.abs(high) == end)
    if len(beyond):
        length = decoder.decode(_escape(), len(beyond)).astype(np.int64)
        excess = np.ones(len(beyond), np.int64)
        long = length > 0
        if long.any():
            sizes = 1 << length[long]
            excess[long] = sizes + decoder.decode(_model.Uniform(), sizes.astype(np.int32))
        high[beyond] += np.sign(high[beyond]) * (excess - 1)
    values = (high << shift) + low - (1 << shift >> 1)
    if np.abs(values).max(initial=0) > LIMIT:
        raise InvalidInput(f"The content has an integer beyond {LIMIT}. It is damaged.")
    return values.astype(np.int32)


def _choose(groups: Sequence[Group]) -> tuple[Int64[np.ndarray, " groups"], float]:
    """The class of each group, and what all of them cost in bits without their classes."""
    counts = np.zeros((len(groups), _BINS))
    shifts, extra = np.zeros(len(groups), np.int64), 0.0
    for number, group in enumerate(groups):
        if not len(group):
            counts[number, 0] = 1
            continue
        sizes = np.abs(group)
        mean = sizes.mean()
        if mean > 8:  # then the mean of what remains is above 4, up to 8
            shifts[number] = int(np.ceil(np.log2(mean / 8)))
            sizes = np.abs(group + (1 << shifts[number] >> 1) >> shifts[number])
            extra += float(shifts[number]) * len(group)
        if (largest := sizes.max()) >= _BINS:
            extra += 2 * float(np.log2(sizes[sizes >= _BINS] / _BINS).sum())
            sizes = np.minimum(sizes, _BINS - 1)
        counts[number, : min(largest, _BINS - 1) + 1] = np.bincount(sizes)
    costs = counts @ _costs()
    costs[shifts > 0, : _TABLES - _TOP] = np.inf
    tables = costs.argmin(1)
    zero = counts[:, 0] == counts.sum(1)
    bits = float(costs[np.arange(len(groups)), tables][~zero].sum()) + extra
    classes = 1 + tables + _TOP * shifts
    return np.where(zero, 0, classes), bits


def frequencies(table: int) -> Float64[np.ndarray, " end"]:
    """What table `table` gives the integers 0 to its end, the end standing for all beyond; not rounded, of 2^16.

    Even tables are Laplacian, odd ones Gaussian, both of deviation sqrt(2) 2^(table // 2 / 4 - 4.5) steps. For sizes
    above 0, half of it is for each sign.
    """
    scale = 2.0 ** (table // 2 / 4 - 4.5)
    end = max(2, int(np.ceil(8 * scale)))

    def tail(size: float) -> float:
        return erfc(size / (2 * scale)) if table % 2 else exp(-size / scale)

    tails = [1.0, *(tail(size - 1 + DEAD_ZONE) for size in range(1, end + 1)), 0.0]
    halves = np.array([1.0] + [0.5] * end)
    return -np.diff(tails) * halves * _TOTAL


def _rounded(table: int) -> Int64[np.ndarray, " end"]:
    """Integers of at least 1 that sum to 2^16 over all signs: the same wherever exp and erfc are good to 10 digits."""
    counts = np.rint(frequencies(table)).clip(1).astype(np.int64)
    counts[0] = _TOTAL - 2 * counts[1:].sum()
    return counts


@cache
def _tables() -> tuple[tuple[Any, int], ...]:
    """Model and end of each table. Symbol 0 is minus the end."""
    made = []
    for table in range(_TABLES):
        counts = _rounded(table)
        both = np.concatenate([counts[:0:-1], counts]).astype(np.float32) / _TOTAL
        made.append((_model.Categorical(both, perfect=False), len(counts) - 1))
    return tuple(made)


@cache
def _escape() -> Any:
    """Bits of an excess beyond the first: a chance of 1/2 for none, 1/4 for one, ..."""
    chances = 0.5 ** np.arange(1, _ESCAPES + 1)
    chances[-1] *= 2
    return _model.Categorical(chances.astype(np.float32), perfect=False)


@cache
def _costs() -> Float64[np.ndarray, "bins tables"]:
    """Bits of each size 0 to 127 in each table, its sign and escape included."""
    costs = np.zeros((_BINS, _TABLES))
    for table in range(_TABLES):
        counts = _rounded(table)
        end = len(counts) - 1
        sizes = np.arange(_BINS)
        costs[:, table] = -np.log2(counts[np.minimum(sizes, end)] / _TOTAL)
        costs[end:, table] += 2 * np.floor(np.log2(sizes[end:] - end + 1)) + 1
    return costs
