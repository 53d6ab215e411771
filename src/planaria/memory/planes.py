"""Check bits of a segment of the refinement: a plane for each bit of its weights' codes (FORMAT.md, section 10)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float64, Int32, UInt8
from numpy.typing import NDArray

from planaria.codes import WindowCode, check_for, window_for

HEAD = struct.Struct("<IH")  # of a plane as stored
_RATES = np.geomspace(1e-5, 1, 26)  # that check bits are foretold from
SMALL = 2**21  # weights of a segment, up to which slack is worth more than time


@dataclass(frozen=True)
class Plane:
    """Check bits of one bit of the codes of a segment's weights.

    Attributes:
        check: how many; 0 or more.
        window: of the `WindowCode` that made them, in bits.
        content: packed, ceil(check / 8) bytes.
    """

    check: int
    window: int
    content: UInt8[np.ndarray, " bytes"]


def planned_planes(lengths: NDArray[np.int64], strength: float, total: int) -> Iterator[tuple[int, int]]:
    """(check bits, window) of each plane, if of a segment's `total` weights `lengths[length]` have codes so long."""
    for depth in range(int(lengths.nonzero()[0].max(initial=0))):
        taking_part = int(lengths[depth + 1 :].sum())
        rate = strength * taking_part / total
        window = _window(rate, total)
        yield check_for(total, rate, window=window), window


def foretold_bits(lengths: NDArray[np.float64], strength: float, total: int) -> float:
    """About the bits that a segment's planes take, heads and all, without the pains that `planned_planes` takes."""
    taking_part = lengths[::-1].cumsum()[::-1][1:]
    rates = strength * taking_part[taking_part >= 1] / total
    surplus = np.interp(np.log(rates), np.log(_RATES), _surplus(total))
    return float((rates * total + surplus + 8 * HEAD.size + 4).sum())  # 4: half a byte to fill up


@cache
def _surplus(total: int) -> Float64[np.ndarray, " rates"]:
    """Check bits beyond the expected number of unknown ones, by rate."""
    return np.array([check_for(total, rate, window=_window(rate, total)) - rate * total for rate in _RATES.tolist()])


def _window(rate: float, total: int) -> int:
    """Of a plane; few weights afford wider ones."""
    return window_for(rate, unknowns=1024 if total <= SMALL else 512)


def encoded(
    codes: Int32[np.ndarray, " w"], lengths: UInt8[np.ndarray, " w"], strength: float, *, threads: int
) -> list[Plane]:
    """The planes of one segment."""
    planes = []
    counts = np.bincount(lengths).astype(np.int64)
    for depth, (check, window) in enumerate(planned_planes(counts, strength, len(lengths))):
        bits = _bits(codes, lengths, depth)
        planes.append(Plane(check, window, WindowCode(len(bits), check, window=window).encode(bits, threads=threads)))
    return planes


def walk(
    child: NDArray[np.int64],
    planes: Sequence[Plane],
    codes: Int32[np.ndarray, " w"],
    lengths: UInt8[np.ndarray, " w"],
    erased: Bool[np.ndarray, " w"],
    own: NDArray[np.int64],
    nodes: NDArray[np.int64],
    halted: Bool[np.ndarray, " m"],
    *,
    spare: int,
    threads: int,
) -> int:
    """Moves the missing weights of a segment, `own`, down their trees as far as the planes tell.

    `child` has the two successors of each node of the trees, -1 for leaves, and `nodes` where weights are.
    Answers with the number of contradictions. A weight that a plane leaves open takes part in the deeper ones as an
    unknown, whether it has that bit or not.
    """
    contradictions = 0
    stuck = halted[own].copy()
    for depth, plane in enumerate(planes):
        at = nodes[own]
        walking = ~stuck & (child[at, 0] >= 0)
        if not walking.any():
            break
        bits = _bits(codes, lengths, depth)
        bits[erased] = 0
        known = ~erased
        known[erased] = ~(walking | stuck)
        if spare and plane.check - np.count_nonzero(~known) < spare:
            break
        solution = WindowCode(len(bits), plane.check, window=plane.window).decode(
            bits, known, plane.content, threads=threads
        )
        contradictions += solution.contradictions
        solved = solution.solved[erased] & walking
        nodes[own[solved]] = child[at[solved], solution.bits[erased][solved]]
        stuck |= walking & ~solved
        if solution.contradictions or not solved.any():
            break
    return contradictions


def _bits(codes: Int32[np.ndarray, " w"], lengths: UInt8[np.ndarray, " w"], depth: int) -> UInt8[np.ndarray, " w"]:
    """The codes' bits at a depth; 0 where a code is shorter."""
    shift = lengths.astype(np.int32) - 1 - depth
    return np.where(shift >= 0, codes >> np.maximum(shift, 0) & 1, 0).astype(np.uint8)
