"""Which cells act at a step: a pure function of (seed, step, cell).

A counter-based hash instead of a stateful generator, so that CPU and GPU, plain and checkpointed runs fire the same
cells, and nothing has to be stored to replay one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

WORD = 0xFFFFFFFF
GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: spreads neighbouring counters


def _mix(word: Int[Tensor, "*cells"]) -> Int[Tensor, "*cells"]:
    """A 32-bit integer hash with low bias (xor-shift-multiply, constants from C. Wellons' hash-prospector).

    Held in int64; both multipliers are below 2^31, so no product overflows.
    """
    word = (word ^ (word >> 16)) * 0x21F0AAAD & WORD
    word = (word ^ (word >> 15)) * 0x735A2D97 & WORD
    return word ^ (word >> 15)


def firing_cells(
    shape: Sequence[int], *, rate: float, seed: int, step: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "*cells"]:
    """True for the cells of a grid of `shape` (batch first) that fire at `step`, each with probability `rate`.

    Costs about ten integer operations and 16 bytes of scratch a cell.
    """
    count = 1
    for size in shape:
        count *= size
    cells = torch.arange(count, device=device)
    key = _mix(torch.tensor([seed & WORD, seed >> 32 & WORD, step & WORD], device=device))
    stream = _mix((key[0] * 3 + key[1] * 5 + key[2] * 7) & WORD)
    words = _mix(_mix((cells * GOLDEN + stream) & WORD) ^ stream)
    return (words < rate * 2**32).view(*shape)
