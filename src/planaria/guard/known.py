"""Masks: which weights a hardware test found good, and masks that the digests contradict."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.guard.file import GuardFile
from planaria.guard.overlay import Overlay
from planaria.guard.pieces import pieces, weights_of

Known = dict[str, Bool[Tensor, "*weight"]]
Mask = Mapping[str, Bool[Tensor, "..."] | Bool[np.ndarray, "..."] | Sequence[Any] | bool]
FEWEST = 64  # weights that a mask has to be of to be contradicted
DEVIATIONS = 4  # of a fair coin's heads, past which more than half is most
SHOWING = 8  # impossible weights among those marked good that contradict a mask
TIMES = 4  # how much more frequent they have to be there than among those marked bad


def known_weights(guard: GuardFile, known: Mask | None, faulty: Mask | None = None) -> Known | None:
    """Where weights are known to be good, as tensors of the model's shapes; None without a mask.

    Args:
        known: by tensor, True where a weight is known to be good: bool tensors, NumPy arrays (mapped from a file, too)
            or lists.
        faulty: the same in the other convention, True where a weight is not to be trusted.

    Raises:
        InvalidInput: if both are given, or one names no tensor of the model, has another shape or is not bool.
    """
    if known is not None and faulty is not None:
        raise InvalidInput("Both known and faulty say which weights are good. Give one of them.")
    given = faulty if known is None else known
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"A mask is a mapping from names of tensors to bool arrays, not a {type(given).__name__}. "
            "Name the tensor that it is of."
        )
    shapes = {entry.name: entry.shape for entry in guard.entries}
    masks = {}
    for name, mask in given.items():
        if name not in shapes:
            raise InvalidInput(f"The mask has a tensor {name!r}, which the model lacks. Name the model's tensors.")
        masks[name] = _as_tensor(name, mask, shapes[name])
        if known is None:
            masks[name] = ~masks[name]
    return masks


def _as_tensor(name: str, mask: Any, shape: tuple[int, ...]) -> Bool[Tensor, "*weight"]:
    if isinstance(mask, Tensor):
        what, came, is_bool = "tensor", mask.dtype, mask.dtype == torch.bool
    else:
        what = "NumPy array" if isinstance(mask, np.ndarray) else type(mask).__name__
        try:
            mask = np.asarray(mask)
        except ValueError as error:  # rows of different lengths
            raise InvalidInput(
                f"The mask of {name!r}, a {what}, is no array: {error}. It must be bool of shape {shape}."
            ) from error
        came, is_bool = mask.dtype, mask.dtype == np.bool_
    if not is_bool or tuple(mask.shape) != shape:
        raise InvalidInput(
            f"The mask of {name!r} is a {what} of {came} and shape {tuple(mask.shape)}; it must be bool of shape "
            f"{shape}."
        )
    if isinstance(mask, Tensor):
        return mask.detach().cpu()
    # PyTorch takes neither negative strides nor, without a warning, what cannot be written to.
    return torch.from_numpy(np.require(mask, requirements=["C", "W"])).view(shape)


class _Count(NamedTuple):
    """Weights of a mask: all, those it calls bad; the same of those in tiles that match their digest."""

    weights: int = 0
    bad: int = 0
    matching: int = 0
    bad_matching: int = 0

    @property
    def contradicted(self) -> bool:
        """Whether most of what matches is called bad, and that is most of what is called so."""
        enough = self.weights >= FEWEST and 2 * self.bad_matching > self.bad
        return enough and _most(self.bad_matching, self.matching)


def require_plausible(guard: GuardFile, overlay: Overlay, damaged: NDArray[np.bool_], known: Known | None) -> None:
    """Raises `InvalidInput` if a mask is the wrong way round: if digests or impossible weights contradict most of it.

    A mask of stuck cells may well list some that hold right values by chance, but not most weights of a tensor whose
    tiles match. Where no tile matches, weights tell that cannot be right, if nearly all of them are marked good.

    Args:
        overlay: the model as it was found.
        damaged: tiles that do not match their digest.
    """
    layout, total = guard.layout, _Count()
    for name, mask in (known or {}).items():
        index = layout.index[name]
        tiles = damaged[layout.tiles_of_tensor(index)]
        if not len(tiles):
            continue
        entry, good = guard.entries[index], mask.flatten().numpy()
        starts = np.arange(0, good.size, max(1, layout.tile * good.size // entry.nbytes))[: len(tiles)]
        bounds = np.append(starts, good.size)
        bad = good.size - int(np.count_nonzero(good))
        matching, bad_matching = good.size, bad
        for tile in tiles.nonzero()[0]:  # few, if most of the tensor is to match
            own = good[bounds[tile] : bounds[tile + 1]]
            matching -= own.size
            bad_matching -= own.size - int(np.count_nonzero(own))
        count = _Count(good.size, bad, matching, bad_matching)
        if count.contradicted:
            raise InvalidInput(_upside_down(f"weights of {name!r}", count))
        if good.size >= FEWEST and _most(count.bad, count.weights) and tiles.any():
            _require_showing(guard, overlay, index, tiles, ~good)
        total = _Count(*(left + right for left, right in zip(total, count, strict=True)))
    if total.contradicted:
        raise InvalidInput(_upside_down("of the weights it names", total))


def _require_showing(
    guard: GuardFile, overlay: Overlay, index: int, tiles: NDArray[np.bool_], bad: NDArray[Any]
) -> None:
    """Raises `InvalidInput` if weights that cannot be right are, in damaged tiles, nearly all marked good."""
    statistics, entry, tile = guard.statistics(index), guard.entries[index], guard.layout.tile
    if statistics is None:
        return
    weights, showing = np.zeros((2, 2), np.int64)  # of those marked good and of those marked bad
    for piece in pieces(entry, tile):
        within = tiles[piece.start // tile : -(-(piece.start + piece.nbytes) // tile)]
        if not within.any():
            continue
        broken = statistics.broken(weights_of(overlay.read(entry.name, piece.start, piece.start + piece.nbytes), piece))
        start = piece.start * bad.size // entry.nbytes
        marked = bad[start : start + broken.numel()]
        damaged = np.repeat(within, max(1, tile * bad.size // entry.nbytes))[: len(marked)]
        for side, of_side in enumerate((damaged & ~marked, damaged & marked)):
            weights[side] += of_side.sum()
            showing[side] += (of_side & broken.flatten().numpy()).sum()
    rates = showing / np.maximum(weights, 1)
    if showing[0] >= SHOWING and rates[0] > TIMES * rates[1]:
        raise InvalidInput(
            f"The mask calls {int(bad.sum()):,} of {bad.size:,} weights of {entry.name!r} bad and the others good, of "
            f"which {showing[0]:,} cannot be right, and {showing[1]:,} of the bad ones: {ADVICE}"
        )


ADVICE = (
    "it may be upside down. True means good in known=MASK; pass it as faulty=MASK if True means bad, or say force=True "
    "if it is right."
)


def _upside_down(what: str, count: _Count) -> str:
    return (
        f"The mask calls {count.bad:,} of {count.weights:,} {what} bad, of which {count.bad_matching:,} lie in tiles "
        f"that match their digest: {ADVICE}"
    )


def _most(part: int, whole: int) -> bool:
    """Whether it is more than half, and not by chance."""
    return part > whole / 2 + DEVIATIONS * whole**0.5 / 2
