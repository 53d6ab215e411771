"""The parity tier: Reed-Solomon check symbols over the model's raw bytes. Specified in FORMAT.md, section 5."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from planaria.codes import ReedSolomon
from planaria.guard.byte_layout import CHUNK, SYMBOL, ByteLayout, Readable
from planaria.guard.codewords import CodewordSolver
from planaria.guard.interleaving import Interleaving
from planaria.guard.manifest import ParityShape
from planaria.guard.overlay import Overlay
from planaria.guard.unsolved import Unsolved

SEGMENT = 2**26  # symbols: 128 MiB
# Symbols of a codeword. Time grows with its length, which a small model does not notice.
SHORT, LONG, LONGER, LONGEST = 1024, 4096, 16384, 49152
SMALL = 2**22  # symbols
PROVABLE = 5  # check symbols from which one error at an unknown place needs no digest; see `wrong_codeword_log2`
HOPELESS = 4  # times as many lost symbols as check symbols, from which a segment is not tried to be decoded
USED = 0.99  # of the bytes that could be used at best


def shape_for(symbols: int, nbytes: int, *, compact: bool = False) -> ParityShape | None:
    """The parity of at most `nbytes` for a layout of so many symbols, or None if there is no room.

    Takes the longest codewords that use the bytes well: the longer, the more evenly does damage fall on them. Where
    every byte counts, `compact`, they are so long that a small model has a handful; so they are where shorter ones have
    fewer than `PROVABLE` check symbols.
    """
    if symbols == 0:
        return None
    segments = -(-symbols // SEGMENT)
    segment = -(-symbols // segments)
    budget = nbytes // SYMBOL // segments
    shape = _longest(segment, budget, LONG if segment > SMALL else LONGEST if compact else LONGER, compact)
    return _longest(segment, budget, LONGEST, compact) if shape is None or shape.check < PROVABLE else shape


def _longest(segment: int, budget: int, longest: int, compact: bool) -> ParityShape | None:
    """Of a segment, with the longest codewords, of `longest` symbols at most, that use the symbols well."""
    shapes = []
    for width in range(-(-segment // longest), max(-(-segment // SHORT), 1) + 1):
        check = min(budget // width, segment, 65535 - -(-segment // width))
        if check > 1:
            shapes.append(ParityShape(segment=segment, width=width, check=check))
    most = max((shape.width * shape.check for shape in shapes), default=0)
    # A few check symbols in all divide badly, and are worth most in the longest codeword.
    return next((shape for shape in shapes if shape.width * (shape.check + compact) >= USED * most), None)


def nothing_of(shape: ParityShape, layout: ByteLayout) -> NDArray[np.uint16]:
    """Check symbols of this shape for this layout, all 0."""
    return np.zeros((-(-layout.symbols // shape.segment), shape.check, shape.width), np.uint16)


def encode(
    checkpoint: Readable, layout: ByteLayout, shape: ParityShape, *, threads: int, progress: Callable[[int], None]
) -> NDArray[np.uint16]:
    """Check symbols, of shape `(segments, check, width)`. One pass over the model, a few MiB at a time."""
    segments = range(0, layout.symbols, shape.segment)
    return np.stack([_remainder(checkpoint, layout, shape, start, threads, progress) for start in segments])


def _remainder(
    checkpoint: Readable,
    layout: ByteLayout,
    shape: ParityShape,
    start: int,
    threads: int,
    progress: Callable[[int], None],
) -> NDArray[np.uint16]:
    code = ReedSolomon(shape.check)
    remainder = None
    rows = Interleaving(layout, shape).rows(start // shape.segment)
    at_once = max(1, CHUNK // (shape.width * SYMBOL))
    for row in range(0, rows, at_once):
        count = min(at_once, rows - row)
        first = start + row * shape.width
        # A row may reach into the next segment; what is not this segment's counts as zero.
        last = min(first + count * shape.width, start + shape.segment)
        symbols = np.zeros(count * shape.width, np.uint16)
        symbols[: last - first] = layout.read(checkpoint, first, last)
        remainder = code.feed(symbols.reshape(count, shape.width), remainder, threads=threads)
        progress((last - first) * SYMBOL)
    assert remainder is not None
    return remainder


def correct(
    overlay: Overlay,
    layout: ByteLayout,
    shape: ParityShape,
    stored: NDArray[np.uint16],
    damaged: NDArray[np.bool_],
    *,
    lost: NDArray[np.float64] | None = None,
    suspects: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    proven: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    writable: Callable[[NDArray[np.int64]], NDArray[np.uint16]],
    threads: int,
    progress: Callable[[int], None],
) -> Unsolved:
    """Corrects what the parity can prove, in the overlay, and marks in `damaged` the tiles that are proven again.

    See `CodewordSolver`. What is neither proven by a digest nor more certain than `WRONG` stays as it was found.

    Args:
        lost: by tile, how many symbols are wrong at least, since the file ends before them; None if it is whole.
        suspects: answers with the symbols of these tiles that are broken on their face, ascending.
        proven: all tiles that are proven by the digests that these tiles have a part in.
        writable: the bits of these symbols that may be written in tiles that no digest proves.
    """
    begins, ends = layout.tile_bounds(damaged.nonzero()[0])
    remainders, hopeless = {}, []
    wrong = None if lost is None else np.concatenate([[0.0], np.where(damaged, lost, 0.0).cumsum()])
    for segment, start in enumerate(range(0, layout.symbols, shape.segment)):
        stop = min(start + shape.segment, layout.symbols)
        touched = bool(((begins < stop) & (ends > start)).any())
        if touched and wrong is not None and _hopeless(layout, shape, start, stop, wrong):
            hopeless.append(segment)
            touched = False
        if touched:
            remainders[segment] = _remainder(overlay, layout, shape, start, threads, progress) ^ stored[segment]
        else:
            progress((stop - start) * SYMBOL)
    solver = CodewordSolver(
        overlay,
        layout,
        shape,
        remainders,
        damaged,
        hopeless=hopeless,
        suspects=suspects,
        proven=proven,
        threads=threads,
    )
    solver.solve()
    return solver.finish(writable)


def _hopeless(layout: ByteLayout, shape: ParityShape, start: int, stop: int, wrong: NDArray[np.float64]) -> bool:
    """Whether the tiles within symbols `[start, stop)` have far more wrong symbols than can be corrected.

    `wrong` counts those of all tiles before each. A lost run of tiles falls evenly on all codewords.
    """
    first, last = layout.tiles_of(np.array([start, stop - 1]))
    return bool(wrong[max(last, first + 1)] - wrong[first + 1] > HOPELESS * shape.check * shape.width)
