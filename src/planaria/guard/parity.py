"""The parity tier: Reed-Solomon check symbols over the model's raw bytes. Specified in FORMAT.md, section 5."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planaria.codes import ReedSolomon
from planaria.guard.draft import Draft
from planaria.guard.manifest import ParityShape
from planaria.guard.stream import CHUNK, SYMBOL, Readable, Stream

SEGMENT = 2**26  # symbols: 128 MiB
# Symbols of a codeword. Time grows with its length, which a small model does not notice.
SHORT, LONG, LONGER, LONGEST = 1024, 4096, 16384, 49152
SMALL = 2**22  # symbols
USED = 0.99  # of the bytes that could be used at best
CROWDED = 0.9  # share of failed codewords from which damage may be anything
SPARE = 2  # check symbols: chance passes for a codeword once in 2^32


@dataclass(frozen=True)
class Unsolved:
    """What the parity could not correct.

    Attributes:
        failed: codewords, of shape `(segments, width)`, that stay in doubt.
        density: share of the symbols of damaged tiles in them that must at least be wrong, since fewer would have been
            corrected; the largest of all segments.
    """

    failed: NDArray[np.bool_]
    density: float

    @property
    def scattered(self) -> bool:
        """Whether codewords that are right are so many that no tile can be lost whole: it would touch them all."""
        return bool(self.failed.any(1).any()) and bool((self.failed.mean(1) < CROWDED).all())

    def doubtful(self, symbols: NDArray[np.int64], shape: ParityShape) -> NDArray[np.bool_]:
        """Whether each of these symbols of the stream lies in a failed codeword."""
        segment, within = np.divmod(symbols, shape.segment)
        return self.failed[segment, within % shape.width]


def shape_for(symbols: int, nbytes: int, *, lean: bool = False) -> ParityShape | None:
    """The parity of at most `nbytes` for a stream of so many symbols, or None if there is no room.

    Takes the longest codewords that use the bytes well: the longer, the more evenly does damage fall on them. Where
    every byte counts, `lean`, they are so long that a small model has a handful.
    """
    if symbols == 0:
        return None
    segments = -(-symbols // SEGMENT)
    segment = -(-symbols // segments)
    budget = nbytes // SYMBOL // segments
    longest = LONG if segment > SMALL else LONGEST if lean else LONGER
    shapes = []
    for width in range(-(-segment // longest), max(-(-segment // SHORT), 1) + 1):
        check = min(budget // width, segment, 65535 - -(-segment // width))
        if check > 1:
            shapes.append(ParityShape(segment=segment, width=width, check=check))
    most = max((shape.width * shape.check for shape in shapes), default=0)
    # A few check symbols in all divide badly, and are worth most in the longest codeword.
    return next((shape for shape in shapes if shape.width * (shape.check + lean) >= USED * most), None)


def encode(
    checkpoint: Readable, stream: Stream, shape: ParityShape, *, threads: int, progress: Callable[[int], None]
) -> NDArray[np.uint16]:
    """Check symbols, of shape `(segments, check, width)`. One pass over the model, a few MiB at a time."""
    segments = range(0, stream.symbols, shape.segment)
    return np.stack([_remainder(checkpoint, stream, shape, start, threads, progress) for start in segments])


def _remainder(
    checkpoint: Readable,
    stream: Stream,
    shape: ParityShape,
    start: int,
    threads: int,
    progress: Callable[[int], None],
) -> NDArray[np.uint16]:
    code = ReedSolomon(shape.check)
    remainder = None
    rows = _rows(stream, shape, start)
    at_once = max(1, CHUNK // (shape.width * SYMBOL))
    for row in range(0, rows, at_once):
        count = min(at_once, rows - row)
        first = start + row * shape.width
        # A row may reach into the next segment; what is not this segment's counts as zero.
        last = min(first + count * shape.width, start + shape.segment)
        symbols = np.zeros(count * shape.width, np.uint16)
        symbols[: last - first] = stream.read(checkpoint, first, last)
        remainder = code.feed(symbols.reshape(count, shape.width), remainder, threads=threads)
        progress((last - first) * SYMBOL)
    assert remainder is not None
    return remainder


def _rows(stream: Stream, shape: ParityShape, start: int) -> int:
    return -(-(min(start + shape.segment, stream.symbols) - start) // shape.width)


def correct(
    draft: Draft,
    stream: Stream,
    shape: ParityShape,
    stored: NDArray[np.uint16],
    damaged: NDArray[np.bool_],
    *,
    suspects: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    proven: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    threads: int,
    progress: Callable[[int], None],
) -> Unsolved:
    """Corrects what the parity can, in the draft, and marks in `damaged` the tiles that are proven again.

    Each codeword is first decoded with unknown positions, to half its strength; then, as proven tiles drop out, with
    all symbols of damaged tiles as erasures, to its full strength; then with the suspects alone as erasures and the
    rest unknown. A correction outside the damaged tiles is a wrong codeword, and refused.

    Args:
        suspects: answers with the symbols of these tiles that are broken on their face, ascending.
        proven: all tiles that are proven by the digests that these tiles have a part in.
    """
    all_failed = np.zeros((len(stored), shape.width), bool)
    density = 0.0
    for segment, start in enumerate(range(0, stream.symbols, shape.segment)):
        stop = min(start + shape.segment, stream.symbols)
        if not _touching(stream, damaged, start, stop).size:
            progress((stop - start) * SYMBOL)
            continue
        remainder = _remainder(draft, stream, shape, start, threads, progress) ^ stored[segment]
        failed = _solve(draft, stream, shape, remainder, start, stop, damaged, suspects, proven, threads)
        if failed.any():
            begins, ends = stream.tile_bounds(_touching(stream, damaged, start, stop))
            in_a_codeword = (ends - begins).sum() / shape.width
            density = max(density, float(min(1.0, shape.check / 2 / max(in_a_codeword, 1.0))))
        all_failed[segment] = failed
    return Unsolved(all_failed, density)


def _solve(
    draft: Draft,
    stream: Stream,
    shape: ParityShape,
    remainder: NDArray[np.uint16],
    start: int,
    stop: int,
    damaged: NDArray[np.bool_],
    suspects: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    proven: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    threads: int,
) -> NDArray[np.bool_]:
    """Corrects one segment; answers which codewords failed."""
    code = ReedSolomon(shape.check)
    length = _rows(stream, shape, start)

    def attempt(erased: NDArray[np.int64] | None = None, *, spare: int = 0) -> bool:
        """Decodes, applies and verifies; whether anything came of it."""
        if not remainder.any():
            return False
        erasures = None
        if erased is not None:
            erased = erased[failed[(erased - start) % shape.width]]
            if erased.size == 0:
                return False
            erasures = ((erased - start) // shape.width, (erased - start) % shape.width)
        found = code.decode(remainder, length, erasures=erasures, spare=spare, threads=threads)
        in_data = found.rows < length
        at = start + found.rows * shape.width + found.columns
        tiles = stream.tiles_of(np.minimum(at, stream.symbols - 1))
        wrong = in_data & ((at >= stop) | ~damaged[tiles])
        refused = np.zeros(shape.width, bool)
        refused[found.columns[wrong]] = True
        refused[found.failed] = True
        remainder[:, ~refused] = 0
        progressed = bool((failed & ~refused).any())
        failed[:] = refused
        use = in_data & ~refused[found.columns]
        if use.any():
            draft.xor(at[use], found.values[use])
            damaged[proven(np.unique(tiles[use]))] = False
        return progressed

    failed: NDArray[np.bool_] = np.logical_or.reduce(remainder != 0, axis=0)
    attempt()
    tried_suspects = False
    while failed.any():
        tiles = _touching(stream, damaged, start, stop)
        begins, ends = stream.tile_bounds(tiles)
        # More erasures than check symbols in all cannot be solved; listing them would only take memory.
        few = int((ends.clip(max=stop) - begins.clip(min=start)).sum()) <= shape.width * shape.check
        if few and attempt(stream.symbols_of(tiles, start, stop)):
            continue
        if tried_suspects:
            break
        tried_suspects = True
        broken = suspects(tiles)
        # Every other symbol may be wrong too, so some check symbols must stay as proof.
        attempt(broken[(broken >= start) & (broken < stop)], spare=min(SPARE, shape.check))
    return failed


def _touching(stream: Stream, damaged: NDArray[np.bool_], start: int, stop: int) -> NDArray[np.int64]:
    """The damaged tiles with symbols in `[start, stop)`."""
    tiles = damaged.nonzero()[0]
    begins, ends = stream.tile_bounds(tiles)
    return tiles[(begins < stop) & (ends > start)]
