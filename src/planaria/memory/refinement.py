"""Successive refinement: quantised weights under erasure codes, the first bits under the strongest code.

Specified in FORMAT.md, section 10, where it is called the ladder.

Every weight is quantised, but only check bits of its codes are stored: as many as there will be missing weights, times
the bits of each. Near the limit for independent weights, D = s2 2^(-2 r / p), which a stored copy is far from: it pays
for the weights that survive, too (Perron, Diggavi, Telatar 2004; the layers: Albanese and others 1996).
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy.typing import NDArray

from planaria.errors import InvalidInput
from planaria.memory.planes import HEAD, Plane, encoded, walk
from planaria.memory.quantiser import DEPTHS, refines, thresholds, tree
from planaria.splitmix import STEP, mixed

SEGMENT = 2**22  # weights that are coded together: bounds memory
WORD = 64
_HEADER, _STAGE, _DEPTH = (struct.Struct(form) for form in ("<BI", "<I", "<B"))
MOST_STAGES = 8
WIDEST = 2**20 // WORD  # window, in words

# Of several tensors: each has rows and columns of its own.
Depths = Sequence[UInt8[np.ndarray, " _columns"]]
Residuals = Sequence[Float64[np.ndarray, "_rows _columns"]]


@dataclass(frozen=True)
class Stage:
    """One refinement of all weights.

    Attributes:
        depths: by tensor, the depth of each column.
        planes: by segment, from the first bit of the codes to the last.
    """

    depths: Depths
    planes: Sequence[Sequence[Plane]]


@dataclass(frozen=True)
class Bounds:
    """What the refinement knows of a tensor's missing weights, in the order of the mask.

    Attributes:
        low, high: between which each lies, to rounding; infinite where nothing is known.
        mean: what to expect of it, between the bounds; 0 where nothing is known.
    """

    low: Float64[np.ndarray, " missing"]
    high: Float64[np.ndarray, " missing"]
    mean: Float64[np.ndarray, " missing"]


@dataclass(frozen=True)
class Refinement:
    """Check bits for the weights of some tensors.

    Attributes:
        scales: by tensor, the unit of its residuals; float32.
        stages: from the first bits to the last.
    """

    scales: NDArray[np.float32]
    stages: Sequence[Stage]

    @classmethod
    def of(
        cls,
        residuals: Iterable[Float64[np.ndarray, "_rows _columns"]],
        depths: Sequence[Depths],
        strengths: Sequence[float],
        *,
        threads: int = 1,
    ) -> "Refinement":
        """Check bits that most likely find the missing weights while their share is up to a stage's strength.

        That is the share that each weight is missing with: their number may exceed it by chance, as if they were
        independent, and the whole is found all the same.

        Cost: a few passes over the weights for every bit of their codes. Memory: 5 bytes a weight and stage, and 40 for
        each weight of a segment.

        Args:
            residuals: the weights, less what is known of them anyway, by tensor; looked at once, one after the other.
            depths: for each stage by tensor, the depth of each column; every stage refines the one before it.
            strengths: of each stage, in (0, 1]; not increasing.
            threads: to encode with; the result does not depend on them.

        Raises:
            InvalidInput: if a stage does not refine the one before it, a strength is out of range, or there are no
                stages or too many.
        """
        if any(not 0 < strength <= 1 for strength in strengths) or sorted(strengths, reverse=True) != list(strengths):
            raise InvalidInput(f"Strengths of a refinement lie in (0, 1] and do not increase; {list(strengths)} came.")
        if not 0 < len(strengths) <= MOST_STAGES:
            raise InvalidInput(f"A refinement has 1 to {MOST_STAGES} stages, not {len(strengths)}.")
        tables = [
            _Table(depths[number - 1] if number else [np.zeros_like(part) for part in stage], stage)
            for number, stage in enumerate(depths)
        ]
        scales: list[float] = []
        coded: list[list[tuple[NDArray[np.int32], NDArray[np.uint8]]]] = [[] for _ in tables]
        for tensor, residual in enumerate(residuals):
            scales.append(float(_scale(residual)))
            for table, parts in zip(tables, coded, strict=True):
                cells = table.cells(tensor, residual / scales[-1]).ravel()
                parts.append((table.codes[cells], table.lengths[cells]))
        stages = []
        for stage, strength, parts in zip(depths, strengths, coded, strict=True):
            codes, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
            parts.clear()
            planes = [
                encoded(codes[places], lengths[places], strength, threads=threads) for places in _segments(len(codes))
            ]
            stages.append(Stage(stage, planes))
        return cls(np.array(scales, np.float32), stages)

    def decode(
        self,
        residuals: Residuals,
        known: Sequence[Bool[np.ndarray, "_rows _columns"]],
        *,
        spare: int = 0,
        threads: int = 1,
    ) -> tuple[list[Bounds], int]:
        """What is known of the missing weights, and how many checks contradict: then a known weight is wrong.

        Stages whose strength is exceeded tell little; none tells anything wrong if all known weights are right.

        Args:
            residuals: as they were for `of`; what missing weights hold is not looked at.
            known: True where a weight is there, by tensor.
            spare: check bits that a plane must have left to be used: each would contradict a wrong weight among those
                known with a chance of one half.
            threads: to decode with; the result does not depend on them.
        """
        sizes = [residual.size for residual in residuals]
        present = np.concatenate([np.zeros(0, bool), *(mask.ravel() for mask in known)])
        low, high, mean = (np.full(int((~present).sum()), value) for value in (-np.inf, np.inf, 0.0))
        missing = np.flatnonzero(~present)
        rank = np.cumsum(~present) - 1
        contradictions = 0
        halted = np.zeros(len(missing), bool)  # weights whose cell in the stage before is not known
        before: Depths = [np.zeros_like(plane) for plane in self.stages[0].depths]
        cell_of = np.zeros(len(missing), np.int64)  # in the stage before
        for stage in self.stages:
            table = _Table(before, stage.depths)
            codes, lengths = np.zeros(len(present), np.int32), np.zeros(len(present), np.uint8)
            nodes = np.zeros(len(missing), np.int64)
            for tensor, span in enumerate(_spans(sizes)):
                cells = table.cells(tensor, residuals[tensor] / float(self.scales[tensor])).ravel()
                codes[span], lengths[span] = table.codes[cells], table.lengths[cells]
                own = slice(*np.searchsorted(missing, [span.start, span.stop]))
                if own.stop > own.start:
                    columns = (missing[own] - span.start) % residuals[tensor].shape[1]
                    nodes[own] = table.roots(tensor, columns, cell_of[own])
            for places, planes in zip(_segments(len(present)), stage.planes, strict=True):
                erased = ~present[places]
                own_missing = rank[places[erased]]
                contradictions += walk(
                    table.child,
                    planes,
                    codes[places],
                    lengths[places],
                    erased,
                    own_missing,
                    nodes,
                    halted,
                    spare=spare,
                    threads=threads,
                )
            sure = ~halted
            low[sure] = np.maximum(low[sure], table.low[nodes[sure]])
            high[sure] = np.minimum(high[sure], table.high[nodes[sure]])
            mean[sure] = table.mean[nodes[sure]]
            halted |= table.child[nodes, 0] >= 0
            cell_of = table.cell_of_leaf[nodes]
            before = stage.depths
        bounds = []
        for tensor, span in enumerate(_spans(sizes)):
            own = slice(*np.searchsorted(missing, [span.start, span.stop]))
            bounds.append(Bounds(*(part[own] * float(self.scales[tensor]) for part in (low, high, mean))))
        return bounds, contradictions

    def to_bytes(self) -> UInt8[np.ndarray, " bytes"]:
        """As stored, little-endian.

        Stages (uint8), tensors (uint32) and their scales (float32). Then for every stage: the length (uint32) of a zlib
        stream, and that, which has the depth of each column (uint8); for every segment, how many planes it has (uint8),
        and of each the check bits (uint32) and the window in words of 64 bits (uint16); then all check bits.
        """
        parts = [_HEADER.pack(len(self.stages), len(self.scales)), self.scales.astype("<f4").tobytes()]
        for stage in self.stages:
            depths = zlib.compress(np.concatenate(stage.depths).tobytes(), 9)
            parts += [_STAGE.pack(len(depths)), depths]
            for segment in stage.planes:
                parts.append(_DEPTH.pack(len(segment)))
                parts += [HEAD.pack(plane.check, plane.window // WORD) for plane in segment]
            parts += [plane.content.tobytes() for segment in stage.planes for plane in segment]
        return np.frombuffer(b"".join(parts), np.uint8)

    @classmethod
    def from_bytes(cls, content: UInt8[np.ndarray, " bytes"], shapes: Sequence[tuple[int, int]]) -> "Refinement":
        """Reads what `to_bytes` wrote for tensors of these shapes, (rows, columns).

        Raises:
            InvalidInput: on anything that `to_bytes` does not write.
        """
        reader = _Reader(content.tobytes())
        stages_count, tensors = reader.unpack(_HEADER)
        if tensors != len(shapes) or not 0 < stages_count <= MOST_STAGES:
            raise InvalidInput(
                f"The refinement has {stages_count} stages for {tensors} tensors; there are {len(shapes)}."
            )
        scales = np.frombuffer(reader.take(4 * tensors), "<f4").astype(np.float32)
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise InvalidInput("The scales of the refinement are not all positive numbers.")
        columns = [shape[1] for shape in shapes]
        weights = sum(rows * count for rows, count in shapes)
        segments = segments_of(weights)
        stages, before = [], np.zeros(sum(columns), np.uint8)
        for _ in range(stages_count):
            (size,) = reader.unpack(_STAGE)
            depths = _inflated(reader.take(size), sum(columns))
            pairs = np.unique(np.stack([before, depths]), axis=1).T
            if depths.max(initial=0) >= DEPTHS or not all(refines(int(fine), int(coarse)) for coarse, fine in pairs):
                raise InvalidInput("The depths of the refinement do not refine each other.")
            heads = [[reader.unpack(HEAD) for _ in range(*reader.unpack(_DEPTH))] for _ in range(segments)]
            if any(not 0 < window <= WIDEST for segment in heads for _, window in segment):
                raise InvalidInput(f"The windows of the refinement are not all 1 to {WIDEST} words.")
            planes = [
                [
                    Plane(check, WORD * window, np.frombuffer(reader.take(-(-check // 8)), np.uint8))
                    for check, window in segment
                ]
                for segment in heads
            ]
            stages.append(Stage(np.split(depths, np.cumsum(columns)[:-1]), planes))
            before = depths
        reader.finish()
        return cls(scales, stages)


class _Table:
    """The trees of all pairs of depths that a stage uses, as one."""

    def __init__(self, before: Depths, depths: Depths):
        pairs = [np.stack([coarse, fine]).astype(np.int64) for coarse, fine in zip(before, depths, strict=True)]
        used, inverse = np.unique(np.concatenate(pairs, axis=1), axis=1, return_inverse=True)
        self.pairs = [(int(coarse), int(fine)) for coarse, fine in used.T]
        self.of = np.split(inverse.reshape(-1), np.cumsum([len(depth_of_column) for depth_of_column in depths])[:-1])
        trees = [tree(coarse, fine) for coarse, fine in self.pairs]
        node_starts = np.concatenate([[0], np.cumsum([len(part.child) for part in trees])]).astype(np.int64)
        cell_starts = np.concatenate([[0], np.cumsum([len(part.leaves) for part in trees])]).astype(np.int64)
        self.cell_starts = cell_starts
        self._roots = [part.roots.astype(np.int64) + start for part, start in zip(trees, node_starts, strict=False)]
        self.child = np.concatenate(
            [np.where(part.child >= 0, part.child + start, -1) for part, start in zip(trees, node_starts, strict=False)]
        )
        self.codes = np.concatenate([part.codes for part in trees]).astype(np.int32)
        self.lengths = np.concatenate([part.lengths for part in trees]).astype(np.uint8)
        self.low = np.concatenate([part.low for part in trees])
        self.high = np.concatenate([part.high for part in trees])
        self.mean = np.concatenate([part.mean for part in trees])
        self.cell_of_leaf = np.zeros(len(self.child), np.int64)  # the fine cell within its depth
        for part, start in zip(trees, node_starts, strict=False):
            self.cell_of_leaf[part.leaves + start] = np.arange(len(part.leaves))

    def cells(self, tensor: int, units: Float64[np.ndarray, "rows columns"]) -> NDArray[np.int64]:
        """The cell of each weight among those of all pairs."""
        cells = np.zeros(units.shape, np.int64)
        for pair in np.unique(self.of[tensor]):
            columns = self.of[tensor] == pair
            own = np.searchsorted(thresholds(self.pairs[pair][1]), units[:, columns], side="right")
            cells[:, columns] = own + self.cell_starts[pair]
        return cells

    def roots(self, tensor: int, columns: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where weights of these columns, and of these cells in the stage before, begin."""
        nodes = np.zeros(len(columns), np.int64)
        pairs = self.of[tensor][columns]
        for pair in np.unique(pairs):
            own = pairs == pair
            roots = self._roots[pair]
            nodes[own] = roots[np.minimum(cells[own], len(roots) - 1)]
        return nodes


class _Reader:
    """Takes bytes from the front. Raises `InvalidInput` when there are too few, or in the end too many."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.content):
            raise InvalidInput("The refinement is cut off.")
        self.at += count
        return self.content[self.at - count : self.at]

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self.take(form.size))

    def finish(self) -> None:
        if self.at != len(self.content):
            raise InvalidInput(f"The refinement has {len(self.content) - self.at} bytes too many.")


def segments_of(weights: int) -> int:
    """In how many segments so many weights are coded."""
    return max(1, -(-weights // SEGMENT))


def _segments(weights: int) -> Iterator[NDArray[np.int64]]:
    """The places of each segment's weights, in an order in which damage anywhere is spread evenly.

    Of S segments, the s-th has every S-th weight from s, ascending by the output of SplitMix64, seeded with 0, of
    the number of its place.
    """
    count = segments_of(weights)
    for first in range(count):
        places = np.arange(first, weights, count)
        yield places[np.argsort(mixed((places.astype(np.uint64) + np.uint64(1)) * STEP), kind="stable")]


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes, dtype=np.int64)
    return [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


def _scale(residual: Float64[np.ndarray, "rows columns"]) -> np.float32:
    """Root mean square, as the float32 that is stored; 1 for nothing but zeros."""
    largest = float(np.abs(residual).max(initial=0.0))
    if largest == 0:
        return np.float32(1)
    rms = largest * float(np.sqrt(np.mean(np.square(residual / largest))))
    return np.float32(np.clip(rms, np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max))


def _inflated(packed: bytes, size: int) -> NDArray[np.uint8]:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise InvalidInput(f"The depths of the refinement cannot be unpacked: {error}.") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise InvalidInput("The refinement has not one depth for each column.")
    return np.frombuffer(content, np.uint8)
