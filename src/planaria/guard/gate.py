"""The gate that every value passes before a repair writes it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from planaria.guard.byte_layout import SYMBOL, ByteLayout
from planaria.guard.overlay import Overlay


class Gate:
    """Lets through only what may be written, whoever computed it.

    A byte is written if its tile did not match its digest as it was found, and besides either matches now, or belongs
    to no weight that a hardware test found good. All else stays as it was found, bit for bit.

    Args:
        layout: the model.
        struck: tiles that did not match as they were found.
        unproven: those that do not match now.
        known: what a hardware test says, by tensor; tensors left out are all good. None without a test.
    """

    def __init__(
        self,
        layout: ByteLayout,
        *,
        struck: NDArray[np.bool_],
        unproven: NDArray[np.bool_],
        known: Mapping[str, Bool[Tensor, "*weight"]] | None,
    ):
        self.layout, self.struck, self.unproven, self.known = layout, struck, unproven, known

    def admit(self, overlay: Overlay) -> None:
        """Takes out of the overlay what must not be written. Costs a few operations for each corrected symbol."""
        if not len(overlay.symbols):
            return
        tiles = self.layout.tiles_of(overlay.symbols)
        values = np.where(self.struck[tiles], overlay.values, np.uint16(0))
        if self.known is not None:
            doubtful = self.unproven[tiles]
            values[doubtful] &= writable_bits(self.layout, overlay.symbols[doubtful], self.known)
        written = values != 0
        overlay.symbols, overlay.values = overlay.symbols[written], values[written]


def writable_bits(
    layout: ByteLayout, symbols: NDArray[np.int64], known: Mapping[str, Bool[Tensor, "*weight"]] | None
) -> NDArray[np.uint16]:
    """By symbol, ascending, all bits of the bytes that hold no weight which a hardware test found good."""
    bits = np.full((len(symbols), SYMBOL), 255 if known is None else 0, np.uint8)
    for index, entry in enumerate(layout.entries if known is not None else ()):
        mask = (known or {}).get(entry.name)  # tensors that the test does not name are all good
        low, high = np.searchsorted(symbols, layout.starts[index : index + 2])
        if mask is None or low == high:
            continue
        good = mask.flatten().numpy()
        at = (symbols[low:high, None] - layout.starts[index]) * SYMBOL + np.arange(SYMBOL)
        at = np.minimum(at, entry.nbytes - 1)
        first, last = at * len(good) // entry.nbytes, ((at + 1) * len(good) - 1) // entry.nbytes
        bits[low:high] = np.where(good[first] | good[last], 0, 255)
    return bits.view("<u2")[:, 0]
