"""What damages of whole stretches of memory share."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from planaria.damages.base import JointDamage
from planaria.damages.bits import words
from planaria.damages.faults import Faults
from planaria.errors import InvalidInput

Fill = Literal["random", "zero"]


class ByteDamage(JointDamage):
    """Replaces stretches of bytes; each may start and end within a weight, and cross from one tensor into the next.

    A model's tensors lie end to end in the mapping's order. Subclasses say which stretches are lost.

    Args:
        fill: "random" bytes (a bool gets random truth) or "zero" bytes.

    Cost: memory for one tensor and what is lost.

    Raises:
        InvalidInput: on an unknown fill.
    """

    def __init__(self, *, fill: Fill):
        if fill not in get_args(Fill):
            raise InvalidInput(f"Unknown fill {fill!r}. Fills are: {', '.join(get_args(Fill))}.")
        self.fill = fill

    @abstractmethod
    def _lost(self, total: int, generator: torch.Generator) -> Int64[Tensor, "stretches 2"]:
        """First byte, and the byte after the last, of each stretch that is lost of `total`: ascending and apart."""

    def _size(self, weight: Tensor) -> int:
        return weight.nbytes

    def _struck(self, sizes: Sequence[int], generator: torch.Generator) -> Iterable[Tensor]:
        lost = self._lost(sum(sizes), generator)
        starts, ends = lost.T.contiguous()
        end = 0
        for size in sizes:
            start, end = end, end + size
            first = int(torch.searchsorted(ends, start, right=True))
            last = int(torch.searchsorted(starts, end))
            yield lost[first:last].clamp(start, end) - start

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        size = weight.element_size()
        bounds = struck.flatten().tolist() or [0, 0]
        first, last = bounds[0] // size, -(-bounds[-1] // size)  # the weights from the first hit to the last
        old = words(weight)[first:last]
        new = old.copy()
        # Kept and lost bytes take turns.
        lengths = np.diff([first * size, *bounds, last * size])
        lost = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        count = int(lengths[1::2].sum())
        fill = random_bytes(count, weight.dtype, generator).numpy() if self.fill == "random" else 0
        new.view(np.uint8)[lost] = fill
        (index,) = (new != old).nonzero()
        return Faults(
            shape=tuple(weight.shape),
            index=torch.from_numpy(index + first).to(weight.device),
            old=torch.from_numpy(old[index]).view(weight.dtype).to(weight.device),
            new=torch.from_numpy(new[index]).view(weight.dtype).to(weight.device),
        )


def random_bytes(count: int, dtype: torch.dtype, generator: torch.Generator) -> UInt8[Tensor, " {count}"]:
    """Random bytes for weights of `dtype`: a bool's byte is 0 or 1, as torch expects."""
    return torch.randint(2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
