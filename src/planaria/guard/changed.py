"""Tensors and rows that look trained rather than damaged, which only force repairs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from planaria.checkpoints import Entry
from planaria.dtypes import DTYPES
from planaria.guard.byte_layout import SYMBOL
from planaria.guard.file import GuardFile
from planaria.guard.overlay import Overlay
from planaria.guard.pieces import pieces, weights_of
from planaria.guard.statistics import FLOATS, Statistics
from planaria.guard.unsolved import Unsolved

FAR_OUT = 2.0  # times the intact range: no fine-tuning moves a weight there
ZEROED = 1e-4  # share of weights that are 0 and were not: training does not do that
HUGE = 1e150  # garbage in float64 is taken for this, or its square would overflow
TINY = 1e-6  # of a tensor's root mean square: what a flipped bit of the exponent leaves, and training hardly ever
TOUCHED = 0.5  # share of a row's weights that training changes at least: some inputs are always 0
FULLY = 0.9  # share of the weights of touched rows and columns that training changes, if a small step shows in them
COARSE = 0.5  # the same where rounding hides small steps
NARROW = 8  # columns, under which a row is too short to tell anything: the tensor is taken as one row
FEWEST = {1: 64, 2: 8, 4: 4, 8: 4}  # changed weights that tell anything, by their bytes
MANY = 64  # weights, from which shares of them tell something
MOVED = (0.5, 0.8)  # of the old weights' root mean square, by which training moves few weights, and many, at most
RANDOM = 0.3  # share of set bits below the highest that changed: half of them after training, few after flips
HIGHER = 0.2  # share of changed weights of which not only the lowest bit changed
AT_ONE_BIT = (
    0.25  # share of changed weights whose highest changed bit is the highest of all: of noise in low bits, half
)
CONSTANT = 0.5  # share of weights that are equal, as set ones are
SAMPLE = 2**16  # weights of a piece whose single bits are looked at
LEAST_TILES = 24  # that all changed and look sound: of mixed flips, one in eight shows, and 1e-4 hit all and hide so
LEAST_SYMBOLS = 64  # wrong ones, none of which shows: (7/8)^64 = 2e-4
SAME_SCALE = (0.8, 1.25)  # of a whole tensor's root mean square
ROWS_SCALE = (0.5, 2.0)  # of a part's
UNEVEN = 0.1  # by which low bits are set more or less often than half of the time, if some are stuck
# Bits of the mantissa that are random in any tensor; the lowest bear the marks of rounding, and of random generators.
LOW_BITS = {"F64": slice(2, 16), "F32": slice(2, 10), "F16": slice(0, 2), "BF16": slice(0, 2)}
REPEATED = 1e-3  # share of weights that are equal to the largest or the smallest: devices stuck at a bound


@dataclass
class _Comparison:
    """What changed weights were and are, summed up piece by piece."""

    dtype: str
    count: int = 0
    impossible: int = 0
    vanished: int = 0
    largest: float = 0.0
    largest_before: float = 0.0
    squares: float = 0.0
    moved: float = 0.0
    sampled: int = 0
    below: float = 0.0
    highest: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))
    equal: int = 0

    def add(self, old: NDArray[np.uint8], new: NDArray[np.uint8], rms: float) -> None:
        """More weights, as bytes. `rms` is of the whole tensor, as far as it is known."""
        entry = Entry("", self.dtype, (len(old) // FLOATS[self.dtype].itemsize,), len(old))
        before, after = (weights_of(content, entry).double().numpy() for content in (old, new))
        possible = np.isfinite(before) & np.isfinite(after)
        self.count += len(before)
        self.impossible += int((~possible).sum())
        before, after = (part[possible].clip(-HUGE, HUGE) for part in (before, after))
        tiny = TINY * (rms or float(np.sqrt(np.square(before).mean())) if len(before) else 0.0)
        self.vanished += int(((np.abs(after) <= tiny) & (np.abs(before) > tiny)).sum())
        self.largest = max(self.largest, float(np.abs(after).max(initial=0.0)))
        self.largest_before = max(self.largest_before, float(np.abs(before).max(initial=0.0)))
        self.squares += float(np.square(before).sum())
        self.moved += float(np.square(after - before).sum())
        self._add_bits(old, new)

    def _add_bits(self, old: NDArray[np.uint8], new: NDArray[np.uint8]) -> None:
        size = FLOATS[self.dtype].itemsize
        step = max(1, len(old) // size // SAMPLE)
        kept = new.reshape(-1, size)[::step]
        flips = np.ascontiguousarray(old.reshape(-1, size)[::step] ^ kept)
        number = np.zeros((len(flips), 8), np.uint8)
        number[:, :size] = flips
        upper, lower = number.view("<u4").astype(np.float64).T[::-1]
        top = np.where(upper > 0, np.frexp(upper)[1] + 31, np.frexp(lower)[1] - 1)
        population = np.unpackbits(flips, axis=1).sum(1)
        sampled = top > 0
        self.sampled += len(top)
        self.below += float(((population[sampled] - 1) / top[sampled]).sum())
        self.highest += np.bincount(top.clip(0), minlength=64)
        self.equal += int(np.unique(kept, axis=0, return_counts=True)[1].max(initial=0))

    def looks_trained(self, statistics: Statistics | None) -> bool:
        """Whether each weight moved a little, in random low bits, and none to where none can be."""
        size = FLOATS[self.dtype].itemsize
        if self.count < FEWEST[size] or self.impossible:
            return False
        if self.vanished > (REPEATED if size > 1 else 0.1) * self.count:
            return False
        largest = self.largest_before
        if statistics is not None:
            largest = max(largest, abs(statistics.lowest), abs(statistics.highest))
        many = self.count >= MANY
        if self.largest > FAR_OUT * largest or self.moved > MOVED[many] ** 2 * self.squares:
            return False
        higher = int(self.highest[1:].sum())
        if higher < HIGHER * self.sampled or self.below < RANDOM * higher:
            return False
        top = int(self.highest.nonzero()[0].max())
        in_low_bits = top < (DTYPES[self.dtype].mantissa or 0) and self.highest[top] > AT_ONE_BIT * self.sampled
        return not (many and (in_low_bits or self.equal > CONSTANT * self.sampled))


def changed_tiles(
    guard: GuardFile,
    overlay: Overlay,
    unproven: NDArray[np.bool_],
    foreign: NDArray[np.bool_],
    unsolved: Unsolved | None,
) -> NDArray[np.bool_]:
    """Tiles of tensors and rows that look trained rather than damaged; the overlay forgets what it corrected of them.

    Where their old content is proven, old and new are compared: training moves nearly every weight of a tensor or of a
    row, each by little, to other random bits of its lower half; damage strikes few, or moves them far, or in single
    bits. Where it is not, a tensor counts of which all has changed and nothing looks broken, if that cannot be chance:
    it has many tiles, or the parity saw that much is wrong in the model and none of it shows anywhere.

    Cost: two passes over the tensors in which most weights of some row were corrected, one over those without proof.

    Args:
        unproven: tiles that match no digest; what is corrected in others is proven.
        foreign: tiles that hold what belongs elsewhere: they moved, and their tensors are not judged.
        unsolved: what the parity left, or None if there is none.
    """
    changed = np.zeros_like(unproven)
    layout = guard.layout
    if not unproven.any() and not len(overlay.symbols):
        return changed
    judged = [
        index
        for index, entry in enumerate(layout.entries)
        if entry.dtype in FLOATS and not foreign[layout.tiles_of_tensor(index)].any()
    ]
    for index in judged:
        symbols = _trained_symbols(guard, overlay, index, unproven)
        if symbols.size:
            changed[layout.tiles_of(symbols)] = True
            overlay.forget(symbols)
    for index in _sound_tensors(guard, overlay, judged, unproven, changed, unsolved):
        bounds = layout.tiles_of_tensor(index)
        changed[bounds] |= unproven[bounds]
        overlay.forget(_in_rows_of(overlay, index, unproven))
    return changed


def _in_rows_of(overlay: Overlay, index: int, tiles: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Corrected symbols of rows that have a part in these tiles of a tensor: else a row would be half old, half new."""
    layout, entry = overlay.layout, overlay.layout.entries[index]
    low, high = np.searchsorted(overlay.symbols, layout.starts[index : index + 2])
    symbols = overlay.symbols[low:high]
    row = entry.nbytes // entry.shape[0] if len(entry.shape) > 1 else 1
    chosen = np.repeat(tiles[layout.tiles_of_tensor(index)], layout.tile)[: entry.nbytes]
    rows = np.logical_or.reduceat(chosen, np.arange(0, entry.nbytes, row))
    within = (symbols - layout.starts[index]) * SYMBOL
    last = np.minimum(within + SYMBOL, entry.nbytes) - 1
    return symbols[rows[within // row] | rows[last // row] | chosen[within]]


def _trained_symbols(guard: GuardFile, overlay: Overlay, index: int, unproven: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Corrected symbols of the tensor's rows that look trained, where the corrections are proven."""
    layout, entry = guard.layout, guard.entries[index]
    nothing = np.empty(0, np.int64)
    low, high = np.searchsorted(overlay.symbols, layout.starts[index : index + 2])
    symbols, values = overlay.symbols[low:high], overlay.values[low:high]
    certain = ~unproven[layout.tiles_of(symbols)] if low < high else np.zeros(0, bool)
    symbols, values = symbols[certain], values[certain]
    size, count = FLOATS[entry.dtype].itemsize, prod(entry.shape)
    if len(symbols) * SYMBOL < TOUCHED * min(size, SYMBOL) * FEWEST[size]:
        return nothing
    within = symbols - layout.starts[index]
    if size < SYMBOL:
        weights = np.sort(np.concatenate([2 * within[(values & 0xFF) > 0], 2 * within[values > 0xFF] + 1]))
    else:
        weights = np.unique(within * SYMBOL // size)
    columns = count // entry.shape[0] if entry.shape else 1
    columns = columns if columns >= NARROW and len(entry.shape) > 1 else count
    rows = weights // columns
    each = np.bincount(rows, minlength=count // columns)
    touched = each >= TOUCHED * columns
    if not touched.any():
        return nothing
    # Of a line of biases, those of neurons that answer nothing do not change; of a matrix, their whole rows.
    needed = FULLY if size > SYMBOL and touched.sum() > 1 else COARSE
    weights = weights[touched[rows]]
    reached = len(np.unique(weights % columns)) if touched.sum() > 1 else columns
    if len(weights) < needed * touched.sum() * reached:
        return nothing
    statistics = guard.statistics(index)
    comparison = _Comparison(entry.dtype)
    for piece in pieces(entry, layout.tile):
        here = weights[slice(*np.searchsorted(weights * size, [piece.start, piece.start + piece.nbytes]))]
        if not here.size:
            continue
        place = here - piece.start // size
        stop = piece.start + piece.nbytes
        old, new = (
            content.read(entry.name, piece.start, stop).reshape(-1, size)[place].ravel()
            for content in (overlay, overlay.checkpoint)
        )
        comparison.add(old, new, statistics.rms if statistics else 0.0)
    if not comparison.looks_trained(statistics):
        return nothing
    reach = np.arange(max(size // SYMBOL, 1))
    return np.unique(layout.starts[index] + (weights * size // SYMBOL)[:, None] + reach)


def _sound_tensors(
    guard: GuardFile,
    overlay: Overlay,
    judged: list[int],
    unproven: NDArray[np.bool_],
    changed: NDArray[np.bool_],
    unsolved: Unsolved | None,
) -> Iterator[int]:
    """Tensors without proof, by their index, in which so much changed that damage would show, and none does."""
    layout = guard.layout
    left = [index for index in range(len(layout.entries)) if unproven[layout.tiles_of_tensor(index)].any()]
    if not left or (unsolved is not None and unsolved.scattered):  # training leaves no codeword as it was
        return
    lone = np.bincount(layout.hash_group_of, minlength=layout.hash_groups)[layout.hash_group_of] == 1
    wrong, shape = 0, guard.manifest.parity
    if unsolved is not None and shape is not None:  # with a few errors fewer, the decoder may have doubted itself
        wrong = int(unsolved.failed.sum()) * max(shape.check // 2 - 1, 1)
    counting = set()  # whether or not the others look sound
    whole = False
    for index in left:
        bounds = layout.tiles_of_tensor(index)
        alone = lone[bounds]
        if unproven[bounds][alone].all() and alone.sum() >= LEAST_TILES:
            counting.add(index)
            whole = True
        elif changed[bounds].any():
            counting.add(index)
    together = whole or wrong >= LEAST_SYMBOLS
    sound = []
    for index in left:
        if together or index in counting:
            if index in judged and _looks_sound(guard, overlay, index, unproven):
                sound.append(index)
            else:
                together = False
    yield from (index for index in sound if together or index in counting)


def _looks_sound(guard: GuardFile, overlay: Overlay, index: int, unproven: NDArray[np.bool_]) -> bool:
    """Whether nothing in the tensor's tiles without proof looks broken, as found, by what the guard knows of it."""
    statistics, entry, layout = guard.statistics(index), guard.entries[index], guard.layout
    if statistics is None or statistics.rms == 0:
        return False
    mask = unproven[layout.tiles_of_tensor(index)]
    largest = FAR_OUT * max(abs(statistics.lowest), abs(statistics.highest))
    size = FLOATS[entry.dtype].itemsize
    count = zeros = tiny = extremes = 0
    ends = np.minimum((mask.nonzero()[0] + 1) * layout.tile, entry.nbytes)
    total = int((ends - mask.nonzero()[0] * layout.tile).sum()) // size
    natural = (statistics.zeros + ZEROED) * total + 3 * (statistics.zeros * total) ** 0.5
    squares, low, high = 0.0, np.inf, -np.inf
    looked_at = LOW_BITS.get(entry.dtype, slice(0, 0))
    bits, sampled = np.zeros(looked_at.stop - looked_at.start), 0
    for piece in pieces(entry, layout.tile):
        tiles = mask[piece.start // layout.tile : -(-(piece.start + piece.nbytes) // layout.tile)]
        if not tiles.any():
            continue
        content = overlay.found(entry.name, piece.start, piece.start + piece.nbytes)
        chosen = torch.from_numpy(np.repeat(tiles, layout.tile // size)[: piece.nbytes // size])
        weight = weights_of(content, piece).flatten()[chosen].double()
        magnitude = weight.abs()
        if not bool((magnitude <= largest).all()):
            return False
        count += len(weight)
        squares += float(weight.square().sum())
        zeros += int((weight == 0).sum())
        if zeros > natural:
            return False
        tiny += int((magnitude < TINY * statistics.rms).sum())
        for bound in (float(weight.min()), float(weight.max())):
            if bound < low or bound > high:
                extremes = max(extremes, int((weight == bound).sum()))
        low, high = min(low, float(weight.min())), max(high, float(weight.max()))
        words = content.reshape(-1, size)[chosen.numpy()][(weight != 0).numpy()]
        words = words[:: max(1, len(words) // SAMPLE)]
        sampled += len(words)
        bits += np.unpackbits(words, axis=1, bitorder="little")[:, looked_at].sum(0, dtype=np.int64)
    whole = count == prod(entry.shape)
    least, most = SAME_SCALE if whole and count >= MANY else ROWS_SCALE
    return (
        tiny - zeros <= ZEROED * count
        and (size == 1 or extremes <= max(4, REPEATED * count))
        and least * statistics.rms <= (squares / count) ** 0.5 <= most * statistics.rms
        and (statistics.nearly_constant or not _stuck(bits, sampled))
    )


def _stuck(bits: NDArray[np.float64], count: int) -> bool:
    """Whether low bits are not as random as they are in any tensor, but for zeros below all of one, a coarser grid."""
    zeros = int((bits == 0).cumprod().sum())
    off = np.abs(bits[zeros:] / max(count, 1) - 0.5)
    return bool((off > max(UNEVEN, 4 / max(count, 1) ** 0.5)).any())
