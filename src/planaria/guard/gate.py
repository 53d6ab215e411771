"""The gate that every value passes before a repair writes it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from planaria.guard.draft import Draft
from planaria.guard.stream import SYMBOL, Stream


class Gate:
    """Lets through only what may be written, whoever computed it.

    A byte is written if its tile did not match its digest as it was found, and besides either matches now, or belongs
    to no weight that a hardware test found good. All else stays as it was found, bit for bit.

    Args:
        stream: the model.
        struck: tiles that did not match as they were found.
        unproven: those that do not match now.
        known: what a hardware test says, by tensor; tensors left out are all good. None without a test.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        struck: NDArray[np.bool_],
        unproven: NDArray[np.bool_],
        known: Mapping[str, Bool[Tensor, "*weight"]] | None,
    ):
        self.stream, self.struck, self.unproven, self.known = stream, struck, unproven, known

    def admit(self, draft: Draft) -> None:
        """Takes out of the draft what must not be written. Costs a few operations for each corrected symbol."""
        if not len(draft.symbols):
            return
        tiles = self.stream.tiles_of(draft.symbols)
        values = np.where(self.struck[tiles], draft.values, np.uint16(0))
        if self.known is not None:
            doubtful = self.unproven[tiles]
            values[doubtful] &= self._reported(draft.symbols[doubtful])
        written = values != 0
        draft.symbols, draft.values = draft.symbols[written], values[written]

    def _reported(self, symbols: NDArray[np.int64]) -> NDArray[np.uint16]:
        """By symbol, all bits of the bytes that belong to weights which the test found bad."""
        stream = self.stream
        bits = np.zeros((len(symbols), SYMBOL), np.uint8)
        tensors = np.searchsorted(stream.starts, symbols, side="right") - 1
        for tensor in np.unique(tensors):
            entry, own = stream.entries[tensor], tensors == tensor
            mask = None if self.known is None else self.known.get(entry.name)
            if mask is None:
                continue
            good = mask.flatten().numpy()
            place = ((symbols[own] - stream.starts[tensor]) * SYMBOL)[:, None] + np.arange(SYMBOL)
            place = np.minimum(place, entry.nbytes - 1)
            first, last = place * len(good) // entry.nbytes, ((place + 1) * len(good) - 1) // entry.nbytes
            bits[own] = np.where(good[first] | good[last], 0, 255)
        return bits.view("<u2")[:, 0]
