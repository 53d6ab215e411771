"""A few of the weights, the most important ones, at a few bits each: what three methods have in common.

Which weights were chosen is stored too, and is counted as its entropy, the least that any code of it takes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria_lab.bench.frontier.base import FrontierEstimate, Weights
from planaria_lab.bench.frontier.output_error import OutputObjective

SCALE = 2  # bytes of a scale, and of a level of a codebook
SAMPLE = 65_536  # weights that a codebook is learned from
LLOYD_ROUNDS = 30
HALVINGS = 60


@dataclass(frozen=True)
class Choice:
    """How to spend the bytes.

    Attributes:
        bits: of each chosen weight; 16 is half precision, and 1 a sign.
        whole_inputs: whether weights are chosen by whole inputs of a layer (columns), whose positions cost little, or
            one by one.
        row_scales: a scale for each output (row), or one for the tensor.
    """

    bits: int
    whole_inputs: bool = False
    row_scales: bool = False


def estimates(
    weights: Weights, objective: OutputObjective, choices: Sequence[Choice], nbytes: int
) -> Iterator[FrontierEstimate]:
    """The estimate of each choice that fits at all."""
    for choice in choices:
        fixed = sum(_fixed(weight, choice) for weight in weights.values())
        masks = _most_important(weights, objective, choice, 8 * (nbytes - fixed))
        if masks is None:
            continue
        chosen, bits = masks
        values = {
            name: _quantised(weight.flatten(1), chosen[name], objective.forms[name], choice).view_as(weight)
            for name, weight in weights.items()
        }
        yield FrontierEstimate(fixed + -(-bits // 8), values)


def position_bits(count: Tensor, of: Tensor) -> Float[Tensor, ""]:
    """log2 of the ways to choose `count` of `of` things, by Stirling: `of` times the binary entropy; summed."""
    share = (count / of).double()
    return (of * -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / log(2)).sum()


def _fixed(weight: Tensor, choice: Choice) -> int:
    """Bytes of scales and codebook."""
    if choice.bits == 16:
        return 0
    scales = weight.shape[0] if choice.row_scales else 1
    return SCALE * (scales + (2**choice.bits // 2 if 1 < choice.bits < 8 else 0))


def _most_important(
    weights: Weights, objective: OutputObjective, choice: Choice, most: int
) -> tuple[dict[str, Bool[Tensor, "rows inputs"]], int] | None:
    """As many weights as `most` bits hold, of the largest squares times importance; and the bits that they take."""
    scores, sizes = [], []
    for name, weight in weights.items():
        each = weight.flatten(1).square() * objective.importance(name)
        scores.append(each.mean(0) if choice.whole_inputs else each)
        sizes.append(len(each) if choice.whole_inputs else 1)
    units = torch.tensor([score.numel() for score in scores])
    size = torch.tensor(sizes)

    def bits(threshold: float) -> float:
        count = torch.tensor([int((score >= threshold).count_nonzero()) for score in scores])
        return float(position_bits(count, units) + (count * size).sum() * choice.bits)

    low, high = 0.0, max(float(score.max()) for score in scores) * 2
    if bits(low) > most:
        if bits(high) > most or most <= 0:
            return None
        for _ in range(HALVINGS):  # the threshold's order of magnitude is unknown: halve its logarithm
            middle = (max(low, high * 1e-12) * high) ** 0.5
            low, high = (low, middle) if bits(middle) <= most else (middle, high)
        low = high
    used = -floor(-bits(low))
    masks = {
        name: (score >= low).expand(len(weight), -1) if choice.whole_inputs else score >= low
        for (name, weight), score in zip(weights.items(), scores, strict=True)
    }
    return (masks, used) if any(bool(mask.any()) for mask in masks.values()) else None


def _quantised(
    rows: Float[Tensor, "rows inputs"],
    chosen: Bool[Tensor, "rows inputs"],
    form: Float[Tensor, "inputs inputs"],
    choice: Choice,
) -> Float[Tensor, "rows inputs"]:
    """Chosen weights as stored, 0 elsewhere."""
    if choice.bits == 16:
        return torch.where(chosen, rows, 0.0).half().float()
    kept = torch.where(chosen, rows, 0.0)
    axes = (1,) if choice.row_scales else (0, 1)
    if choice.bits >= 8:
        scale = kept.abs().amax(axes, keepdim=True) / (2 ** (choice.bits - 1) - 1)
        return (kept / _stored(scale)).round() * _stored(scale)
    count = chosen.sum(axes, keepdim=True).clamp_min(1)
    scale = (kept.square().sum(axes, keepdim=True) / count).sqrt()
    levels = codebook((rows / scale.clamp_min(1e-30))[chosen].abs(), 2 ** (choice.bits - 1))
    nearest = torch.bucketize(rows.abs() / scale.clamp_min(1e-30), (levels[1:] + levels[:-1]) / 2)
    pattern = torch.where(chosen, levels[nearest] * rows.sign(), 0.0)
    # The scale that makes the outputs' error least, given the pattern.
    moved = pattern @ form
    fit = (moved * rows).sum(axes, keepdim=True) / (moved * pattern).sum(axes, keepdim=True).clamp_min(1e-30)
    return pattern * _stored(fit)


def codebook(magnitudes: Float[Tensor, " values"], levels: int) -> Float[Tensor, " levels"]:
    """Levels of least squared error (Lloyd 1982, Max 1960), learned from an even sample; ascending, half precision."""
    if len(magnitudes) == 0:
        return torch.linspace(0, 1, levels)
    ordered = magnitudes.sort().values
    ordered = ordered[torch.linspace(0, len(ordered) - 1, min(SAMPLE, len(ordered))).long()]
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), ordered.double().cumsum(0)])
    found = ordered[((torch.arange(levels) + 0.5) / levels * len(ordered)).long()]
    for _ in range(LLOYD_ROUNDS):
        cuts = torch.searchsorted(ordered, (found[1:] + found[:-1]) / 2)
        edges = torch.cat([torch.zeros(1, dtype=torch.int64), cuts, torch.tensor([len(ordered)])])
        count = edges.diff()
        means = ((sums[edges[1:]] - sums[edges[:-1]]) / count.clamp_min(1)).float()
        found = torch.where(count > 0, means, found)
    return _stored(found)


def _stored(scale: Tensor) -> Tensor:
    return scale.half().float().clamp_min(1e-30)
