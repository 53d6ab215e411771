"""A binary erasure code: check bits over a window that slides along the data."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, exp, expm1, sqrt
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Shaped, UInt8, UInt64
from scipy.special import bdtrc, log_ndtr, ndtr

from planaria.codes import window_kernels as kernels
from planaria.errors import InvalidInput

_Result = TypeVar("_Result")
_WORD = 64
_WIDEST = 1 << 20
_WINDOWS = 1024  # of them in a segment at most: bounds memory, and segments are what threads share
_UNKNOWNS = 512  # a window's unknown bits: time grows with their square, slack falls with them
_SURPLUS = 16  # rows of a random binary matrix beyond its columns: it lacks full rank once in 2^16


@dataclass(frozen=True)
class Solution:
    """What a decoder found. Bits that are not solved are 0.

    Bits that were known are solved as they came. `contradictions` counts the checks that cannot hold, which says that
    a bit taken for known, or a check bit, is wrong. In a segment that has one, no unknown bit is solved.
    """

    bits: UInt8[np.ndarray, " length"]
    solved: Bool[np.ndarray, " length"]
    contradictions: int


class WindowCode:
    """Check bits that restore about as many erased bits as there are of them, wherever those are scattered.

    Every check bit is the XOR of a pseudo-random half of a window of the data, and windows slide evenly from the first
    bit to the last. What one stretch lacks in checks its neighbours lend it through the overlap, so that bits erased
    independently need only some 0.5 % more checks than there are of them (`check_for`). Decoding is elimination within
    a band. A plane beyond its strength is lost in the main: erased bits are then solved in few places.

    The data are cut in S = ceil(length / (1024 window)) segments, at least 1: segment s is the bits from length s // S
    and the checks from check s // S, to where the next begins. In a segment of D words of 64 bits (the last filled up
    with zeros) and m checks, check j covers the words from stop - V to stop - 1, clipped to the segment, with
    V = window / 64 and stop = 1 + V // 4 + (2 j + 1) (D + V // 2) // (2 m). Bit b of word w counts in check j if bit b
    (of value 2^b) of the output number 2^32 j + w, from 0, of SplitMix64 seeded with 0 is 1.

    Such codes: Heide and others, "Perpetual codes for network coding" (arXiv 1509.04492). Why a random walk tells the
    slack, and elimination from the left stays in the band: Dietzfelbinger and Walzer, "Efficient Gauss elimination for
    near-quadratic matrices with one short random block per row" (ESA 2019). SplitMix64: Steele, Lea and Flood (2014).

    Args:
        length: data bits, 0 or more.
        check: check bits, 0 or more, in all.
        window: bits a window covers, a multiple of 64 up to 2^20; `window_for` has the one for a rate of erasure. If
            it covers the whole length, the code is dense: any e erased bits are solved but for a chance of
            2^(e - check).

    Raises:
        InvalidInput: on other numbers.
    """

    def __init__(self, length: int, check: int, *, window: int = 1024):
        if length < 0 or check < 0:
            raise InvalidInput(f"A code has 0 or more data and check bits, not {length} and {check}.")
        _require_window(window)
        self.length, self.check, self.window = length, check, window

    def encode(self, bits: UInt8[np.ndarray, " length"], *, threads: int = 1) -> UInt8[np.ndarray, " bytes"]:
        """Check bits of `bits` (0 or 1 each): bit j % 8 of byte j // 8 is check j; ceil(check / 8) bytes.

        The result does not depend on `threads`, which share the segments. Costs a pseudo-random word for every check
        and 64 positions of its window, 15 ms for 1e6 bits and 5e5 checks.

        Raises:
            InvalidInput: on another shape or dtype, other values or less than one thread.
        """
        self._require_bits(bits)
        checks = np.zeros(self.check, np.uint8)

        def work(data: slice, own: slice) -> None:
            kernels.encode(_words(bits[data]), self.window // _WORD, checks[own])

        self._share(work, threads)
        return np.packbits(checks, bitorder="little")

    def decode(
        self,
        bits: UInt8[np.ndarray, " length"],
        known: Bool[np.ndarray, " length"],
        checks: UInt8[np.ndarray, " bytes"],
        *,
        threads: int = 1,
    ) -> Solution:
        """Solves for the bits that are not known, from those that are and `checks` as `encode` made them.

        What is solved is right if all known bits and checks are. Left unsolved are all bits that the checks do not
        determine, and few others: those whose equation holds two such bits that happen to cancel. If a known bit or a
        check is wrong, each surplus check that depends on it says so with a chance of 1/2, and without surplus nothing
        does. The result does not depend on `threads`, which share the segments.

        With u erased bits in a window, a check takes about u^2 / 100 word operations: with the window of `window_for`,
        2 microseconds on one core with AVX-512. Memory is some u / 8 bytes for each erased bit or check, whichever are
        fewer, of as many segments as there are threads.

        Raises:
            InvalidInput: on other shapes or dtypes, bits that are neither 0 nor 1, or less than one thread.
        """
        self._require_bits(bits)
        _require("known", known, np.bool_, self.length)
        _require("checks", checks, np.uint8, (self.check + 7) // 8)
        unpacked = np.unpackbits(checks, bitorder="little")[: self.check]
        result, solved = bits * known, known.copy()

        def solve(data: slice, own: slice) -> int:
            places = np.flatnonzero(~known[data])
            words, erased = _words(result[data]), _words(~known[data])
            before = np.searchsorted(places, _WORD * np.arange(len(words) + 1))
            values, determined = np.zeros(len(places), np.uint8), np.zeros(len(places), np.bool_)
            work = (words, erased, before, unpacked[own], self.window // _WORD, values, determined)
            wrong = int(kernels.decode(*work))
            if not wrong:
                result[data][places] = values
                solved[data][places] = determined
            return wrong

        return Solution(result, solved, sum(self._share(solve, threads)))

    def _share(self, work: Callable[[slice, slice], _Result], threads: int) -> list[_Result]:
        """What work(data, checks) returns for every segment."""
        if threads < 1:
            raise InvalidInput(f"At least 1 thread has to work, not {threads}.")
        count = _segments(self.length, self.window)
        parts = [
            [slice(total * s // count, total * (s + 1) // count) for s in range(count)]
            for total in (self.length, self.check)
        ]
        if threads == 1:
            return list(map(work, *parts))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, *parts))

    def _require_bits(self, bits: Shaped[np.ndarray, "..."]) -> None:
        _require("bits", bits, np.uint8, self.length)
        if bits.max(initial=0) > 1:
            raise InvalidInput(f"bits are 0 or 1, not {bits.max()}. Unpack bytes with np.unpackbits.")

    def __repr__(self) -> str:
        return f"WindowCode({self.length}, {self.check}, window={self.window})"


def window_for(rate: float, *, unknowns: int = _UNKNOWNS) -> int:
    """The window in which about so many bits are unknown if a share `rate` of all bits is erased, up to 2^20.

    Args:
        rate: share of the bits, above 0 and at most 1.
        unknowns: a multiple of 64, at least 512. Decoding time grows with their square, and slack falls with them.

    Raises:
        InvalidInput: on other numbers.
    """
    _require_rate(rate)
    if unknowns < _UNKNOWNS or unknowns % _WORD:
        raise InvalidInput(f"A window has a multiple of {_WORD} unknown bits, at least {_UNKNOWNS}, not {unknowns}.")
    return min(_WORD * ceil(unknowns / _WORD / rate), _WIDEST)


def check_for(length: int, rate: float, *, window: int | None = None, failure: float = 1e-3) -> int:
    """Check bits with which `length` bits, each erased independently with chance `rate`, are most likely all solved.

    Seen by the decoder that moves right, the columns of a window that still lack a check do a random walk: a data bit
    adds one with chance p = rate, and m checks on a segment of L bits take v = m / (L + window / 2) of them a data bit.
    So it has the drift p - v and the variance p (1 - p) a bit. It starts at a quarter of B = p window, must not exceed
    B (a column leaves the window unsolved), and if m suffices, is below 3/4 B at the end. Chances of failing are added
    up: of more erasures in a segment than m - 16, exactly; and of Brownian motion to exceed B from the start, of the
    same seen backwards, and of an excursion from 0 to B in between (by its mean time, or where that is long, by the
    reflection principle).

    Args:
        length: data bits.
        rate: chance of erasure, 0 to 1, exclusive of 0.
        window: of the code, 512 or more: moving by whole words upsets narrower ones. If None, `window_for(rate)`.
        failure: accepted chance, for all segments together, that bits stay unsolved; 0 to 1, exclusive.

    Raises:
        InvalidInput: on other numbers.
    """
    _require_rate(rate)
    window = window_for(rate) if window is None else window
    _require_window(window)
    if window < _UNKNOWNS:
        raise InvalidInput(
            f"No advice is known for windows below {_UNKNOWNS}, such as {window}. Take window_for(rate)."
        )
    if length < 0 or not 0 < failure < 1:
        raise InvalidInput(f"A plane has 0 or more bits and fails with a chance in (0, 1), not {length} and {failure}.")
    count = _segments(length, window)
    size = -(-length // count)
    low, high = 0, size + _SURPLUS + ceil(rate * window)  # the least number that suffices is above low, at most high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _failure(size, middle, rate, window) <= failure / count else (middle, high)
    return count * high if length else 0


def _failure(size: int, check: int, rate: float, window: int) -> float:
    """Chance that a segment of `size` bits is not solved; see `check_for`."""
    enough = check - _SURPLUS
    short = float(bdtrc(enough, size, rate)) if 0 <= enough < size else float(enough < 0)
    room = rate * (window - _WORD)  # windows move by whole words
    variance = rate * (1 - rate)
    if variance == 0 or short > 0.5:
        return short
    fall, spread = check / (size + window / 2) - rate, sqrt(variance * size)
    edge = exp(-1.5 * fall * room / variance + float(log_ndtr((fall * size - room) / spread)))
    steps = max(2 * fall * room / variance, 1e-3)
    between = size * variance / room**2 * steps**2 / (2 * (expm1(min(steps, 600)) - steps))
    return short + 2 * edge + min(between, 4 * float(ndtr(-room / spread)))


def _segments(length: int, window: int) -> int:
    return max(1, -(-length // (_WINDOWS * window)))


def _words(bits: UInt8[np.ndarray, " bits"]) -> UInt64[np.ndarray, " words"]:
    """Bits, 64 a word from the lowest, filled up with zeros."""
    packed = np.zeros(-(-len(bits) // _WORD) * _WORD // 8, np.uint8)
    packed[: -(-len(bits) // 8)] = np.packbits(bits, bitorder="little")
    return packed.view("<u8").astype(np.uint64)


def _require(name: str, array: Shaped[np.ndarray, "..."], dtype: type, length: int) -> None:
    if array.dtype != dtype or array.shape != (length,):
        raise InvalidInput(
            f"{name} is {np.dtype(dtype)} of shape {(length,)} here, not {array.dtype} of shape {array.shape}."
        )


def _require_window(window: int) -> None:
    if not _WORD <= window <= _WIDEST or window % _WORD:
        raise InvalidInput(f"A window is a multiple of {_WORD} up to {_WIDEST}, not {window}. Take window_for(rate).")


def _require_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise InvalidInput(f"A rate of erasure is above 0 and at most 1, not {rate}.")
