"""Pages of memory, rows of DRAM, cipher blocks."""

import torch
from jaxtyping import Int64
from torch import Tensor

from planaria.damages.byte_damage import ByteDamage, Fill
from planaria.damages.sampling import Scatter, drawn_without_replacement
from planaria.errors import InvalidInput


class Page(ByteDamage):
    """Replaces aligned pages of the model's memory, drawn uniformly without replacement; the last may be shorter.

    Args:
        rate: probability of each page to be lost, in [0, 1].
        bytes: size of a page, 1 or more. A cipher block has 16 bytes, so one flipped bit of memory encrypted by AES
            costs as many (MILR, Ponader et al., DSN 2021); a cache line has 64, a page of virtual memory 4096, a row
            of DRAM often 8192.
        count: how many pages are lost, instead of a rate; over all tensors together.
        fill: as of `ByteDamage`.

    Raises:
        InvalidInput: unless one of rate, in [0, 1], and count, not negative, is given; on a size below 1 or an unknown
            fill; when applied, if there are fewer than `count` pages.
    """

    def __init__(self, rate: float | None = None, *, bytes: int, count: int | None = None, fill: Fill = "random"):
        if bytes < 1:
            raise InvalidInput(f"A page has 1 or more bytes, not {bytes}.")
        super().__init__(fill=fill)
        self._scatter = Scatter(rate, count)
        self.rate = rate
        self.bytes = bytes
        self.count = count

    def _lost(self, total: int, generator: torch.Generator) -> Int64[Tensor, "stretches 2"]:
        pages = -(-total // self.bytes)
        drawn = drawn_without_replacement(self._scatter.number(pages, generator), pages, generator) * self.bytes
        return torch.stack([drawn, (drawn + self.bytes).clamp(max=total)], dim=1)
