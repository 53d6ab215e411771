"""The rule tier: which tensors an automaton can regrow, and its worth there. Specified in FORMAT.md, section 6."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt, prod
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from planaria import streams
from planaria.automaton import DEFAULT, Automaton, Recipe
from planaria.checkpoints import Entry
from planaria.errors import InvalidGuard, InvalidInput
from planaria.fit import Schedule, fit_rule
from planaria.guard.estimate import FLOATS
from planaria.guard.manifest import RuleShape
from planaria.layouts import Flat, Layout, Sheet
from planaria.records import Record
from planaria.repairers import Regrow, Repairer
from planaria.repairers.regrow import Precision

RATES = (0.1, 0.5, 0.9)
PROBED_ROWS, PROBED_COLUMNS = 128, 1024
MOST_WORK = 2e9  # cell-steps of a fit: about two minutes on two cores
LEAST_VARIANCE = 0.1  # share of a weight's variance that its neighbours must tell for a fit to be tried
SMALLEST, SMALLEST_SIDE = 256, 4  # weights
LARGEST = 2**26  # bytes: a fit holds several copies of the tensor
MASKS = 3
LOST_TILES = 0.1  # share of tiles that a held-out mask of lost tiles hides


@dataclass(frozen=True)
class FittedRule:
    """A rule for one tensor.

    Attributes:
        shape: how it is run and what it is worth.
        content: the bytes that the guard stores.
    """

    shape: RuleShape
    content: NDArray[np.uint8]


def layouts_for(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sheets to try for a tensor, as spaces; `()` is the flat layout."""
    inputs = prod(shape[1:])
    side = isqrt(inputs)
    square = [(side, side)] if side * side == inputs and side >= SMALLEST_SIDE else []
    return [*square, ()]


def layout_of(space: tuple[int, ...]) -> Layout:
    """The layout that a space stands for."""
    return Sheet(space) if space else Flat()


def choose_space(weight: Float[Tensor, "*weight"]) -> tuple[tuple[int, ...], float]:
    """The layout in which neighbours tell most of a weight, and the share of its variance that they tell.

    Least squares on the neighbours that an automaton perceives, with coefficients from one half of the cells and the
    share measured on the other, so that noise scores nothing. Milliseconds for the first 128 rows, which are enough.
    """
    matrix = weight.reshape(weight.shape[0], -1)[:PROBED_ROWS].double()
    shares = {}
    for space in layouts_for(tuple(weight.shape)):
        grid = layout_of(space).to_grid(matrix if space else matrix[:, :PROBED_COLUMNS])
        if min(grid.shape[1:]) < SMALLEST_SIDE:
            continue
        windows = torch.nn.functional.unfold(grid.unsqueeze(1) - grid.mean(), 3).transpose(1, 2).reshape(-1, 9)
        half = len(windows) // 2
        (seen, truth), (held_out, held_out_truth) = (
            (part[:, [0, 1, 2, 3, 5, 6, 7, 8]], part[:, 4]) for part in (windows[:half], windows[half:])
        )
        ridge = (1e-6 * seen.square().sum()).clamp_min(1e-300) * torch.eye(8, dtype=seen.dtype)
        coefficients = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ truth)
        error = (held_out @ coefficients - held_out_truth).square().sum()
        total = held_out_truth.square().sum()
        shares[space] = float((total - error) / total.clamp_min(1e-300))  # 0 where all weights are equal
    return max(shares.items(), key=lambda share: share[1], default=((), 0.0))


def why_not(entry: Entry) -> str | None:
    """Why a tensor has no rule before its weights are even looked at, or None."""
    if entry.dtype not in FLOATS:
        return "not a floating-point type"
    if len(entry.shape) < 2:
        return "fewer than 2 axes"
    if prod(entry.shape) < SMALLEST or min(entry.shape[0], prod(entry.shape[1:])) < SMALLEST_SIDE:
        return "too small"
    if entry.nbytes > LARGEST:
        return "too large"
    return None


def work(entry: Entry, space: tuple[int, ...], schedule: Schedule | None) -> float:
    """Cell-steps that a fit takes."""
    schedule = schedule or Schedule.of(DEFAULT)
    cells = prod(space or entry.shape)
    return float(schedule.iterations * schedule.batch * schedule.lengths[1] * cells)


def fit_for(
    weight: Float[Tensor, "*weight"],
    tensor: int,
    space: tuple[int, ...],
    *,
    tile_cells: int,
    precision: Precision,
    schedule: Schedule | None,
    device: torch.device | str,
    seed: int,
    on_iteration: Callable[[int, int, float], None] | None,
) -> FittedRule:
    """Fits a rule and measures it on held-out masks: scattered weights, and whole tiles of `tile_cells` weights."""
    matrix = weight.reshape(weight.shape[0], -1).float()
    layout = layout_of(space)
    fit = fit_rule(matrix, layout=layout, schedule=schedule, seed=seed, device=device, on_iteration=on_iteration)
    repairer = Regrow(fit.automaton, layout, precision=precision)
    record = repairer.prepare(matrix)
    masks = streams.generator(seed, "held-out masks")

    def error(draw: Callable[[], Bool[Tensor, "rows columns"]]) -> float:
        """Root mean squared error over what such masks hide, in units of the deviation."""
        squares = []
        for known in (draw() for _ in range(MASKS)):
            difference = (repairer.restore(matrix, known, record) - matrix)[~known]
            squares.append(difference.double().square().mean() / matrix.double().var(correction=0).clamp_min(1e-300))
        return round(float(torch.stack(squares).mean().sqrt()), 4)

    def lost_tiles() -> Bool[Tensor, "rows columns"]:
        starts = torch.arange(0, matrix.numel(), tile_cells)
        lost = torch.randperm(len(starts), generator=masks)[: max(1, round(LOST_TILES * len(starts)))]
        known = torch.ones(len(starts), tile_cells, dtype=torch.bool)
        known[lost] = False
        return known.view(-1)[: matrix.numel()].view(matrix.shape)

    shape = RuleShape(
        tensor=tensor,
        recipe=DEFAULT.name,
        precision=precision,
        space=space,
        rates=RATES,
        errors=[error(lambda r=rate: torch.rand(matrix.shape, generator=masks) >= r) for rate in RATES],  # type: ignore[misc]
        tile_error=error(lost_tiles),
    )
    return FittedRule(shape, _to_bytes(record))


def record_bytes(precision: Precision, space: tuple[int, ...]) -> int:
    """Bytes that a rule will take."""
    return _template(DEFAULT, precision, space)[1].nbytes


class Stored(Repairer):
    """A repairer of matrices with the record it was stored with, for a tensor of any rank: first axis by all others."""

    def __init__(self, repairer: Repairer, record: Record):
        self.repairer = repairer
        self.record = record

    def _prepare(self, weight: Tensor) -> Record:
        return self.record

    def _fill(self, visible: Tensor, known: Tensor, record: Record) -> Tensor:
        rows = visible.shape[0]
        matrix, there = visible.reshape(rows, -1), known.reshape(rows, -1)
        try:
            return self.repairer.restore(matrix, there, self.record).view(visible.shape)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # by numbers that no fit gives
            raise InvalidGuard("The guard's rule cannot be run: its numbers are not those of a fit.") from error


def repairer_of(shape: RuleShape, content: NDArray[np.uint8]) -> Stored:
    """The repairer that a guard stores. Raises `InvalidGuard` if it asks for what there is not."""
    try:
        recipe, precision = Recipe.named(shape.recipe), cast(Precision, shape.precision)
        repairer, template = _template(recipe, precision, tuple(shape.space))
    except InvalidInput as error:
        raise InvalidGuard(f"The guard has a rule that this planaria does not know: {error}") from error
    if content.nbytes != template.nbytes:
        raise InvalidGuard(f"A rule of this shape takes {template.nbytes} bytes, not {content.nbytes}.")
    tensors, start = {}, 0
    for name, of in template.tensors.items():
        part = torch.from_numpy(content[start : start + of.nbytes].copy())
        tensors[name] = part.view(of.dtype).view(of.shape)
        start += of.nbytes
    return Stored(repairer, Record(tensors))


def _template(recipe: Recipe, precision: Precision, space: tuple[int, ...]) -> tuple[Regrow, Record]:
    """A repairer of that shape, and a record whose names, types and shapes are those of every such rule."""
    layout = layout_of(space)
    repairer = Regrow(Automaton(recipe, dimensions=layout.dimensions), layout, precision=precision)
    return repairer, repairer.prepare(torch.zeros(2, prod(space) if space else 2))


def _to_bytes(record: Record) -> NDArray[np.uint8]:
    return np.concatenate([tensor.flatten().view(torch.uint8).numpy() for tensor in record.tensors.values()])
