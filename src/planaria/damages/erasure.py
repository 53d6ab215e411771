"""Weights that are lost, scattered or in patterns."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from planaria.damages.base import Damage
from planaria.damages.faults import Faults
from planaria.damages.weight_damage import filled
from planaria.errors import InvalidInput

Pattern = Literal["iid", "block", "row", "column", "channel", "ring", "tensor"]


class Erasure(Damage):
    """Erases a fraction of a tensor, drawn without replacement.

    Args:
        fraction: share of the weights to erase, in [0, 1]; rounded to a whole number of weights, rows, columns or
            channels. The pattern "tensor" erases everything, a whole layer, and takes no other fraction than 1.
        pattern: "iid" (scattered weights), "row" and "column" (whole rows and columns, anywhere), "channel" (all that
            share a place on the second axis: an input channel of a convolution, a column of a matrix), "block" (one
            rectangle of the tensor's own proportions, at a place drawn at random), "ring" (the weights nearest to a
            circle about a place drawn at random, whose radius is a quarter of the shorter side), or "tensor".
            Rows are the first axis; columns all others flattened. A tensor of fewer than 2 axes is one row.
        value: what an erased weight holds afterwards; not a number is allowed.

    Raises:
        InvalidInput: on a fraction outside [0, 1] or an unknown pattern.
    """

    def __init__(self, fraction: float, *, pattern: Pattern = "iid", value: float = 0.0):
        if not 0 <= fraction <= 1:
            raise InvalidInput(f"An erased fraction lies in [0, 1], not {fraction}.")
        if pattern not in get_args(Pattern):
            raise InvalidInput(f"Unknown pattern {pattern!r}. Patterns are: {', '.join(get_args(Pattern))}.")
        if pattern == "tensor" and fraction != 1:
            raise InvalidInput(f'Pattern "tensor" erases everything: its fraction is 1, not {fraction}.')
        self.fraction = fraction
        self.pattern = pattern
        self.value = value

    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        rows = weight.shape[0] if weight.dim() > 1 else 1
        columns = weight.numel() // rows if rows else 0
        channels = weight.shape[1] if weight.dim() > 1 else columns
        index = self._erased(rows, columns, channels, generator).to(weight.device)
        old = weight.detach().reshape(-1)[index]
        faults = Faults(shape=tuple(weight.shape), index=index, old=old, new=filled(old, self.value))
        return faults.replay(weight), faults

    def _erased(self, rows: int, columns: int, channels: int, generator: torch.Generator) -> Int64[Tensor, " faults"]:
        cells = torch.arange(rows * columns).view(rows, columns)
        if self.pattern == "block":
            height, width = (math.ceil(size * math.sqrt(self.fraction)) for size in (rows, columns))
            if self.fraction and height:  # the height is rounded up; the width then comes as near as it can
                width = round(self.fraction * rows * columns / height)
            top = int(torch.randint(rows - height + 1, (), generator=generator))
            left = int(torch.randint(columns - width + 1, (), generator=generator))
            return cells[top : top + height, left : left + width].flatten()
        if self.pattern == "row":
            return cells[self._drawn(rows, generator)].flatten()
        if self.pattern == "column":
            return cells[:, self._drawn(columns, generator)].flatten()
        if self.pattern == "channel":
            grouped = cells.view(rows, channels, columns // max(channels, 1))
            return grouped[:, self._drawn(channels, generator)].flatten()
        if self.pattern == "ring":
            return self._ring(rows, columns, generator)
        return self._drawn(rows * columns, generator)

    def _ring(self, rows: int, columns: int, generator: torch.Generator) -> Int64[Tensor, " faults"]:
        count = round(self.fraction * rows * columns)
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        middle = [int(torch.randint(size, (), generator=generator)) for size in (rows, columns)]
        down, across = (
            (torch.arange(size, dtype=torch.float64) - at) ** 2
            for size, at in zip((rows, columns), middle, strict=True)
        )
        distance = ((down[:, None] + across).sqrt() - min(rows, columns) / 4).abs().flatten()
        return distance.argsort(stable=True)[:count].sort().values

    def _drawn(self, count: int, generator: torch.Generator) -> Int64[Tensor, " drawn"]:
        """`fraction * count` of the numbers below `count`, ascending."""
        return torch.randperm(count, generator=generator)[: round(self.fraction * count)].sort().values
