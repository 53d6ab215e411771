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
from torch.nn import functional as F

from planaria import streams
from planaria.automaton import DEFAULT, Automaton, Recipe
from planaria.calibration import natural_images
from planaria.checkpoints import Entry
from planaria.errors import InvalidGuard, InvalidInput
from planaria.fit import Schedule, fit_rule, output_error
from planaria.guard.manifest import PRETRAINED, RuleShape
from planaria.guard.statistics import FLOATS
from planaria.layouts import Flat, Layout, Sheet
from planaria.pretrained import shipped
from planaria.pretrained.prior import takes
from planaria.records import Record
from planaria.repairers import Regrow, RegrowPretrained, Repairer
from planaria.repairers.regrow import Precision
from planaria.repairers.regrow_pretrained import KERNELS, SHEETS, SMALLEST_KERNEL, SMALLEST_SHEET

RATES = (0.1, 0.5, 0.9)
PROBED_ROWS, PROBED_COLUMNS = 128, 1024
MOST_WORK = 2e9  # cell-steps of a fit: about two minutes on two cores
LEAST_VARIANCE = 0.1  # share of a weight's variance that its neighbours must tell for a fit to be tried
SMALLEST, SMALLEST_SIDE = 256, 4  # weights
LARGEST = 2**26  # bytes: a fit holds several copies of the tensor
MASKS = 3
MOST_PRETRAINED_WORK = 1e12  # multiplications of a repair: about a minute
PRETRAINED_CELLS = 24 * 784  # that a pretrained rule is judged on
CLOSE = 0.9  # of what neighbours tell, which sees all of them: a pretrained rule that tells less knows other weights
MOST_BYTES = 0.25  # of a tensor's: what a fitted rule may take
REACH = 3  # cells to the next survivor, up to which a rule fills
LOST_TILES = 0.1  # share of tiles that a held-out mask of lost tiles hides


@dataclass(frozen=True)
class MeasuredRule:
    """A rule for one tensor.

    Attributes:
        shape: how it is run and what it is worth.
        content: the bytes that the guard stores; none of a pretrained rule.
        harms: whether zeros would have erred less, in weights or in the layer's output, at any held-out rate.
    """

    shape: RuleShape
    content: NDArray[np.uint8]
    harms: bool


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


def within_reach(known: Bool[Tensor, "*weight"], shape: RuleShape) -> Bool[Tensor, "*weight"]:
    """Weights with a known one near enough to tell something of them: at most REACH cells away along each axis.

    Held-out masks leave hardly any weight without one. Where many tiles in a row are lost, a rule extrapolates, and
    that errs more than anything that was measured.
    """
    space = tuple(shape.space)
    grid = layout_of(space).to_grid(known.reshape(-1, prod(space) if space else known[0].numel()))
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[grid.dim() - 2]
    return pool(grid.unsqueeze(1).float(), 2 * REACH + 1, stride=1, padding=REACH).bool().view(known.shape)


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


def pretrained_for(
    weight: Float[Tensor, "*weight"],
    tensor: int,
    space: tuple[int, ...],
    *,
    explained: float,
    tile_cells: int,
    moments: Float[Tensor, "inputs inputs"] | None,
    seed: int,
) -> MeasuredRule | None:
    """The pretrained rule that does best, measured on a few rows; None if it tells less of a weight than neighbours do.

    Cost: a second for rows of 28 x 28.

    Args:
        space: the sheet that a neuron's inputs make, if they make one; convolutions bring their own.
        explained: share of a weight's variance that its neighbours explain, see `choose_space`; it says little of
            kernels.
        moments: second moments of the layer's inputs; without them, those of natural images.
    """
    grid = tuple(weight.shape[2:]) if has_kernels(weight.shape) else space
    cells, neurons = prod(grid), weight.shape[0]
    if not takes(grid) or weight.numel() * cells**2 > MOST_PRETRAINED_WORK:
        return None
    most = max(1, PRETRAINED_CELLS * neurons // weight.numel())
    rows = torch.linspace(0, neurons - 1, min(neurons, most)).round().long()
    matrix = weight[rows].reshape(-1, cells).float()
    rules = [
        _measured(
            RegrowPretrained(shipped(name), Sheet(grid)),
            matrix,
            grid,
            tensor=tensor,
            recipe=name,
            precision=PRETRAINED,
            masks=1,
            tile_cells=tile_cells,
            moments=moments,
            seed=seed,
        )
        for name in ((KERNELS, SHEETS) if min(grid) < SMALLEST_SHEET else (SHEETS,))
    ]
    least = LEAST_VARIANCE if has_kernels(weight.shape) else max(CLOSE * explained, LEAST_VARIANCE)
    sound = [rule for rule in rules if 1 - rule.shape.errors[0] ** 2 >= least and not rule.harms]
    return min(sound, key=lambda rule: sum(rule.shape.errors), default=None)


def has_kernels(shape: tuple[int, ...]) -> bool:
    """Whether a tensor is that of a convolution, or of the patches of an image: its last two axes are grids."""
    return len(shape) == 4 and min(shape[2:]) >= SMALLEST_KERNEL


def fit_for(
    weight: Float[Tensor, "*weight"],
    tensor: int,
    space: tuple[int, ...],
    *,
    tile_cells: int,
    precision: Precision,
    schedule: Schedule | None,
    moments: Float[Tensor, "inputs inputs"] | None,
    device: torch.device | str,
    seed: int,
    on_iteration: Callable[[int, int, float], None] | None,
) -> MeasuredRule:
    """Fits a rule and measures it; `moments` as of `pretrained_for`, and part of the loss if they are given."""
    matrix = weight.reshape(weight.shape[0], -1).float()
    layout = layout_of(space)
    fit = fit_rule(
        matrix, layout=layout, schedule=schedule, moments=moments, seed=seed, device=device, on_iteration=on_iteration
    )
    return _measured(
        Regrow(fit.automaton, layout, precision=precision),
        matrix,
        space,
        tensor=tensor,
        recipe=DEFAULT.name,
        precision=precision,
        masks=MASKS,
        tile_cells=tile_cells,
        moments=moments,
        seed=seed,
    )


def _measured(
    repairer: Repairer,
    matrix: Float[Tensor, "rows columns"],
    space: tuple[int, ...],
    *,
    tensor: int,
    recipe: str,
    precision: str,
    masks: int,
    tile_cells: int,
    moments: Float[Tensor, "columns columns"] | None,
    seed: int,
) -> MeasuredRule:
    """What a rule is worth on held-out masks: of scattered weights, and of whole tiles of `tile_cells` weights."""
    record = repairer.prepare(matrix)
    if moments is None and space:
        moments = natural_images(space)
    drawn = streams.generator(seed, "held-out masks")
    unit = matrix.double().var(correction=0).clamp_min(1e-300)

    def errors(draw: Callable[[], Bool[Tensor, "rows columns"]]) -> tuple[float, bool]:
        """Root mean squared error over what such masks hide, in deviations, and whether zeros do better."""
        squares, outputs = [], []
        for known in (draw() for _ in range(masks)):
            error = repairer.restore(matrix, known, record) - matrix
            squares.append(error[~known].double().square().mean() / unit)
            if moments is not None:
                outputs.append([output_error(output.double(), known, moments.double()) for output in (error, matrix)])
        apart = float(torch.stack(squares).mean().sqrt())
        by_rule, of_zeros = (sum(pair) for pair in zip(*outputs, strict=True)) if outputs else (0, 0)
        return round(apart, 4), apart >= 1 or bool(by_rule > of_zeros)

    def lost_tiles() -> Bool[Tensor, "rows columns"]:
        starts = torch.arange(0, matrix.numel(), tile_cells)
        lost = torch.randperm(len(starts), generator=drawn)[: max(1, round(LOST_TILES * len(starts)))]
        known = torch.ones(len(starts), tile_cells, dtype=torch.bool)
        known[lost] = False
        return known.view(-1)[: matrix.numel()].view(matrix.shape)

    found = [errors(lambda r=rate: torch.rand(matrix.shape, generator=drawn) >= r) for rate in RATES]  # type: ignore[misc]
    worth = [apart for apart, _ in found]
    shape = RuleShape(
        tensor=tensor,
        recipe=recipe,
        precision=precision,
        space=space,
        rates=RATES,
        errors=worth,
        tile_error=errors(lost_tiles)[0],
    )
    return MeasuredRule(shape, _to_bytes(record), any(harms for _, harms in found))


def record_bytes(precision: Precision, space: tuple[int, ...]) -> int:
    """Bytes that a rule will take."""
    return _template(DEFAULT, precision, space)[1].nbytes


class Stored(Repairer):
    """A repairer of matrices with the record it was stored with, for a tensor of any rank.

    Args:
        columns: of the matrices; None for as many as a row has of the tensor's first axis.
    """

    def __init__(self, repairer: Repairer, record: Record, columns: int | None = None):
        self.repairer = repairer
        self.record = record
        self.columns = columns

    def _prepare(self, weight: Tensor) -> Record:
        return self.record

    def _fill(self, visible: Tensor, known: Tensor, record: Record) -> Tensor:
        return self._on_matrices(self.repairer.restore, visible, known)

    def _on_matrices(self, function: Callable[..., Tensor], visible: Tensor, known: Tensor) -> Tensor:
        columns = self.columns or visible[0].numel()
        matrix, mask = visible.reshape(-1, columns), known.reshape(-1, columns)
        try:
            return function(matrix, mask, self.record).view(visible.shape)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # by numbers that no fit gives
            raise InvalidGuard("The guard's rule cannot be run: its numbers are not those of a fit.") from error


class Pretrained(Stored):
    """A pretrained rule, of which nothing is stored. It predicts each weight from all others at once."""

    repairer: RegrowPretrained

    def left_one_out(self, weight: Tensor, known: Tensor, record: Record) -> Tensor:
        """See `RegrowPretrained.left_one_out`."""
        return self._on_matrices(self.repairer.left_one_out, weight, known)


def repairer_of(shape: RuleShape, content: NDArray[np.uint8]) -> Stored:
    """The repairer that a guard stores; `content` is empty of a pretrained rule.

    Raises:
        InvalidGuard: if it asks for what there is not.
        InvalidFile: if the file of a pretrained rule has changed.
    """
    space = tuple(shape.space)
    try:
        if not shape.stored:
            return Pretrained(RegrowPretrained(shipped(shape.recipe), Sheet(space)), Record(), prod(space))
        recipe, precision = Recipe.named(shape.recipe), cast(Precision, shape.precision)
        repairer, template = _template(recipe, precision, space)
    except InvalidInput as error:
        raise InvalidGuard(
            f"The guard has a rule that this planaria does not know: {error} Repair with the one that made it."
        ) from error
    if content.nbytes != template.nbytes:
        raise InvalidGuard(f"A rule of this shape takes {template.nbytes} bytes, not {content.nbytes}.")
    tensors, start = {}, 0
    for name, blank in template.tensors.items():
        part = torch.from_numpy(content[start : start + blank.nbytes].copy())
        tensors[name] = part.view(blank.dtype).view(blank.shape)
        start += blank.nbytes
    return Stored(repairer, Record(tensors))


def _template(recipe: Recipe, precision: Precision, space: tuple[int, ...]) -> tuple[Regrow, Record]:
    """A repairer of that shape, and a record whose names, types and shapes are those of every such rule."""
    layout = layout_of(space)
    repairer = Regrow(Automaton(recipe, dimensions=layout.dimensions), layout, precision=precision)
    return repairer, repairer.prepare(torch.zeros(2, prod(space) if space else 2))


def _to_bytes(record: Record) -> NDArray[np.uint8]:
    parts = [tensor.flatten().view(torch.uint8).numpy() for tensor in record.tensors.values()]
    return np.concatenate([np.zeros(0, np.uint8), *parts])
