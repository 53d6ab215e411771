"""Finding damage and correcting what a code can: digest, then parity, then the digest again as proof."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Checkpoint, Entry
from planaria.detectors.digest import tile_digests
from planaria.errors import LooksDifferent
from planaria.guard import parity
from planaria.guard.container import DIGEST_BYTES
from planaria.guard.draft import Draft
from planaria.guard.estimate import FLOATS, pieces, weights_of
from planaria.guard.file import TILE_DIGEST_BYTES, GuardFile
from planaria.guard.hashing import hasher
from planaria.guard.stream import CHUNK, SYMBOL

Known = dict[str, Bool[Tensor, "*weight"]]
SHOWING = 0.25  # share of unproven tiles that must show impossible weights for scattered damage to be believed
MOST = 0.5  # share of unproven tiles above which a model may be another one
FAR_OUT = 2.0  # times the intact range: no fine-tuning moves a weight there
ZEROED = 1e-4  # share of weights that are 0 and were not: training does not do that
SCALE = (0.5, 2.0)  # of a tensor's root mean square, past which it is not the same tensor any more


@dataclass(frozen=True)
class Examination:
    """A model after digest, copy and parity.

    Attributes:
        draft: the model with what copy and parity corrected.
        damaged: tiles that did not match their digest as they were found.
        unproven: those that still do not match.
        scattered: whether damage seems to be: codewords came out right, or many damaged tiles show impossible weights.
        unsolved: what the parity left, or None if there is none.
    """

    draft: Draft
    damaged: NDArray[np.bool_]
    unproven: NDArray[np.bool_]
    scattered: bool
    unsolved: parity.Unsolved | None


def examine(
    guard: GuardFile,
    checkpoint: Checkpoint,
    *,
    known: Known | None,
    force: bool,
    threads: int,
    progress: Callable[[int], None],
) -> Examination:
    """Compares every tile with its digest, and corrects damaged ones from the copy and with the parity, in a draft.

    One pass over the model; two more over each damaged segment's. Memory: a few MiB, and the guard's size again.

    Raises:
        LooksDifferent: if most tiles changed and the weights still look like weights, unless forced.
    """
    stream = guard.stream
    draft = Draft(checkpoint, stream)
    damaged = damaged_tiles(guard, draft, progress)
    unproven = damaged.copy()
    _copy_back(guard, draft, unproven)
    unsolved = None
    shape = guard.manifest.parity
    if shape is not None and "parity" in guard.arrays and unproven.any():
        unsolved = parity.correct(
            draft,
            stream,
            shape,
            guard.arrays["parity"].astype(np.uint16, copy=False),
            unproven,
            suspects=lambda tiles: _broken_symbols(guard, draft, tiles, known),
            verify=lambda tiles: _verified(guard, draft, tiles),
            threads=threads,
            progress=progress,
        )
    scattered = unsolved is not None and unsolved.scattered  # training leaves no codeword as it was
    if not force and known is None and not scattered and unproven.mean() > MOST and _coherent(guard, draft, unproven):
        raise LooksDifferent(
            f"{int(unproven.sum())} of {len(unproven)} tiles changed and yet all weights look sound: this is a "
            "fine-tuned or another model and not a damaged one. Protect it anew, or repair it with --force."
        )
    if not scattered and unproven.any():
        tiles = unproven.nonzero()[0]
        showing = np.unique(stream.tiles_of(_broken_symbols(guard, draft, tiles, None)))
        scattered = len(showing) >= SHOWING * len(tiles)
    return Examination(draft, damaged, unproven, scattered, unsolved)


def damaged_tiles(
    guard: GuardFile, draft: Draft, progress: Callable[[int], None] = lambda count: None
) -> NDArray[np.bool_]:
    """Tiles that do not match. A tensor that matches as a whole is hashed in one pass, without its tiles."""
    stream = guard.stream
    damaged = np.zeros(stream.tiles, bool)
    whole = guard.arrays.get("digest.tensors")
    for index, entry in enumerate(stream.entries):
        tiles = np.arange(stream.tiles)[stream.tiles_of_tensor(index)]
        if whole is None or _tensor_digest(guard, draft, entry.name, entry.nbytes) != whole[index].tobytes():
            good = _verified(guard, draft, tiles)
            # Tiles that all match in a tensor that does not: their shorter digests were forged.
            damaged[tiles] = ~good if not good.all() or whole is None else True
        progress(entry.nbytes)
    return damaged


def _copy_back(guard: GuardFile, draft: Draft, unproven: NDArray[np.bool_]) -> None:
    """Replaces damaged tiles of tensors that the guard holds a copy of, and marks in `unproven` those proven again."""
    stream = guard.stream
    for index in guard.manifest.copied:
        bounds, content, name = stream.tiles_of_tensor(index), guard.copy_of(index), guard.entries[index].name
        if content is None or not unproven[bounds].any():
            continue
        for tile in unproven[bounds].nonzero()[0]:
            start = int(tile) * stream.tile
            found = draft.read(name, start, min(start + stream.tile, len(content))).copy()
            draft.replace(name, start, content[start : start + stream.tile])
            if _verified(guard, draft, np.array([bounds.start + tile]))[0]:
                unproven[bounds.start + tile] = False
            else:
                draft.replace(name, start, found)


def _tensor_digest(guard: GuardFile, draft: Draft, name: str, nbytes: int) -> bytes:
    digest = hasher(guard.key)
    for start in range(0, nbytes, CHUNK):
        digest.update(draft.read(name, start, min(start + CHUNK, nbytes)).data)
    return digest.digest(length=DIGEST_BYTES)


def _verified(guard: GuardFile, draft: Draft, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of these tiles, ascending, matches its digest; without tile digests, whether its tensor does."""
    stream = guard.stream
    if "digest.tiles" not in guard.arrays:
        tensors = np.searchsorted(stream.first_tiles, tiles, side="right") - 1
        good = np.zeros(len(stream.entries), bool)
        for index in np.unique(tensors):
            entry = stream.entries[index]
            stored = guard.arrays["digest.tensors"][index].tobytes()
            good[index] = _tensor_digest(guard, draft, entry.name, entry.nbytes) == stored
        return good[tensors]
    found = [np.empty((0, TILE_DIGEST_BYTES), np.uint8)]
    at_once = max(CHUNK // stream.tile, 1) * stream.tile
    for name, start, stop in stream.bytes_of(tiles):
        for begin in range(start, stop, at_once):
            content = draft.read(name, begin, min(begin + at_once, stop))
            found.append(tile_digests(content, tile=stream.tile, key=guard.key, size=TILE_DIGEST_BYTES))
    return (np.concatenate(found) == guard.arrays["digest.tiles"][tiles]).all(1)


def _broken_symbols(guard: GuardFile, draft: Draft, tiles: NDArray[np.int64], known: Known | None) -> NDArray[np.int64]:
    """Symbols of these tiles that a hardware test, or their plain impossibility, shows to be broken; ascending."""
    stream = guard.stream
    found = [np.empty(0, np.int64)]
    for index, piece in _pieces(guard, tiles):
        if known is not None and piece.name not in known:
            continue
        if known is not None:
            whole = known[piece.name].flatten()
            nbytes, count = guard.entries[index].nbytes, whole.numel()
            broken = ~whole[piece.start * count // nbytes : (piece.start + piece.nbytes) * count // nbytes]
        elif piece.dtype in FLOATS and "statistics" in guard.arrays:
            content = draft.read(piece.name, piece.start, piece.start + piece.nbytes)
            broken = guard.statistics(index).broken(weights_of(content, piece)).flatten()
        else:
            continue
        weights = broken.numpy().nonzero()[0]
        bits = piece.nbytes * 8 // len(broken)  # some types have fewer than 8, and weights that share a symbol
        begins, ends = weights * bits // (8 * SYMBOL), ((weights + 1) * bits - 1) // (8 * SYMBOL)
        reach = np.arange(int((ends - begins).max(initial=0)) + 1)
        symbols = np.minimum(begins[:, None] + reach, ends[:, None]).ravel()
        found.append(stream.starts[index] + piece.start // SYMBOL + np.unique(symbols))
    symbols = np.concatenate(found)
    return symbols[np.isin(stream.tiles_of(symbols), tiles)]


def _coherent(guard: GuardFile, draft: Draft, unproven: NDArray[np.bool_]) -> bool:
    """Whether no weight is far outside the intact range, nothing was zeroed, and every tensor has about its scale."""
    if "statistics" not in guard.arrays:
        return False
    squares, sizes = np.zeros(len(guard.entries)), np.zeros(len(guard.entries))
    for index, piece in _pieces(guard, unproven.nonzero()[0]):
        if piece.dtype not in FLOATS:
            continue
        of = guard.statistics(index)
        weight = weights_of(draft.read(piece.name, piece.start, piece.start + piece.nbytes), piece)
        largest = FAR_OUT * max(abs(of.lowest), abs(of.highest))
        if not bool((weight.abs() <= largest).all()) or float((weight == 0).double().mean()) > of.zeros + ZEROED:
            return False
        squares[index] += float(weight.double().square().sum())
        sizes[index] += weight.numel()
    rms = np.sqrt(squares / np.maximum(sizes, 1))
    intact = np.array([guard.statistics(index).rms for index in range(len(sizes))])
    return bool(((SCALE[0] * intact <= rms) & (rms <= SCALE[1] * intact))[sizes > 0].all())


def _pieces(guard: GuardFile, tiles: NDArray[np.int64]) -> Iterator[tuple[int, Entry]]:
    """The pieces, with their tensors, that hold any of these tiles, ascending."""
    stream = guard.stream
    for index, entry in enumerate(stream.entries):
        first = stream.first_tiles[index]
        for piece in pieces(entry, stream.tile) if entry.nbytes else ():
            low = first + piece.start // stream.tile
            high = first + -(-(piece.start + piece.nbytes) // stream.tile)
            if np.searchsorted(tiles, low) < np.searchsorted(tiles, high):
                yield index, piece
