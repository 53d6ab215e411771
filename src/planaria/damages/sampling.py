"""Which of many places are struck: drawn uniformly, without replacement."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from planaria.damages.kernels import BLOCK, drawn_in_blocks
from planaria.errors import InvalidInput


class Scatter:
    """Strikes each place with probability `rate`, or exactly `count` places; all sets of a size are equally likely.

    Raises:
        InvalidInput: unless one of rate, in [0, 1], and count, not negative, is given.
    """

    def __init__(self, rate: float | None = None, count: int | None = None):
        if (rate is None) == (count is None):
            raise InvalidInput(f"Give either a rate or a count, not rate {rate} and count {count}.")
        if rate is not None and not 0 <= rate <= 1:
            raise InvalidInput(f"A rate lies in [0, 1], not {rate}.")
        if count is not None and count < 0:
            raise InvalidInput(f"A count is 0 or more, not {count}.")
        self.rate = rate
        self.count = count

    def number(self, total: int, generator: torch.Generator) -> int:
        """How many of `total` places are struck. Raises `InvalidInput` if there are fewer than `count`."""
        if self.rate is not None:
            trials, rate = torch.tensor([total, self.rate], dtype=torch.float64)
            return int(torch.binomial(trials, rate, generator=generator))
        assert self.count is not None  # the constructor sees to it
        if self.count > total:
            raise InvalidInput(f"{self.count} places cannot break where there are {total}. Lower the count.")
        return self.count

    def struck(self, sizes: Sequence[int], generator: torch.Generator) -> Iterator[Int64[Tensor, " struck"]]:
        """For each of several tensors with so many places, which of them are struck, ascending.

        Cost: memory for what is struck of one tensor, and 8 bytes for every 65,536 places.
        """
        # The places of each tensor are cut into blocks; first comes how many of each block are struck, then which.
        counts = [-(-size // BLOCK) for size in sizes]
        last = np.cumsum(counts, dtype=np.int64)
        blocks = np.full(sum(counts), BLOCK, dtype=np.int64)
        for size, end in zip(sizes, last, strict=True):
            if size % BLOCK:
                blocks[end - 1] = size % BLOCK
        struck = split(blocks, self.number(sum(sizes), generator), generator)
        for size, number, end in zip(sizes, counts, last, strict=True):
            part = struck[end - number : end]
            seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
            places = np.empty(int(part.sum()), dtype=np.int64)
            drawn_in_blocks(part, size, seed, places)
            yield torch.from_numpy(places)


def split(blocks: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """How many of `count` places, drawn without replacement, fall into each of several blocks of so many places.

    Cost: proportional to the number of blocks and the root of `count`.
    """
    # Independent binomial counts that add up to a little more than `count`; then so many that are too many fall out.
    total, wanted = int(blocks.sum()), count + 5 * math.sqrt(count) + 5
    rate = torch.full((len(blocks),), min(1.0, wanted / max(total, 1)), dtype=torch.float64)
    places = torch.from_numpy(blocks).double()
    while True:
        struck = torch.binomial(places, rate, generator=generator).long()
        surplus = int(struck.sum()) - count
        if surplus >= 0:
            break
    dropped = few_without_replacement(surplus, count + surplus, generator)
    owner = torch.searchsorted(struck.cumsum(0), dropped, right=True)
    return (struck - torch.bincount(owner, minlength=len(blocks))).numpy()


def drawn_without_replacement(count: int, total: int, generator: torch.Generator) -> Int64[Tensor, " {count}"]:
    """`count` of the numbers below `total`, ascending. All sets of that size are equally likely."""
    return next(Scatter(count=count).struck([total], generator))


def few_without_replacement(count: int, total: int, generator: torch.Generator) -> Int64[Tensor, " {count}"]:
    """The same in simple steps, for few of many; they draw more often the nearer `count` is to `total`."""
    if count == total:
        return torch.arange(total)
    # A round draws as many as are missing, never too many, and what was drawn before falls out.
    drawn = torch.empty(0, dtype=torch.int64)
    while missing := count - len(drawn):
        bits = torch.empty(missing, dtype=torch.int64).random_(generator=generator)
        # 63 random bits are cut at the last multiple of `total`: their remainder would favour low numbers otherwise.
        drawn = torch.cat([drawn, bits[bits <= 2**63 - 1 - 2**63 % total] % total]).unique()
    return drawn
