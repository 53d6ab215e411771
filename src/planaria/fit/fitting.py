"""Learning a rule for one tensor: damage, repair, compare, and backpropagate through every step."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from planaria import streams
from planaria.automaton import DEFAULT, Automaton, Recipe
from planaria.automaton.normalisation import Normalisation
from planaria.errors import InvalidInput
from planaria.fit.descent import descent
from planaria.fit.losses import missing_error, output_error
from planaria.fit.modes import learn_modes
from planaria.fit.schedule import Schedule
from planaria.fit.warm_start import can_warm_start, warm_start
from planaria.layouts import Layout

HELD_OUT_RATES = (0.5, 0.7, 0.9) * 2
HELD_OUT_GRIDS = 64


@dataclass(frozen=True)
class Fit:
    """A fitted automaton and how it came about.

    Attributes:
        automaton: with the best rule found.
        losses: training loss of each iteration, in units of the weights' variance.
        held_out: (iteration, loss on the held-out masks after a long rollout) of each look.
        seconds: wall time.
    """

    automaton: Automaton
    losses: list[float]
    held_out: list[tuple[int, float]]
    seconds: float


def fit_rule(
    weight: Float[Tensor, "*weight"],
    *,
    layout: Layout,
    recipe: Recipe = DEFAULT,
    schedule: Schedule | None = None,
    moments: Float[Tensor, "inputs inputs"] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_iteration: Callable[[int, int, float], None] | None = None,
) -> Fit:
    """Fits a rule to an intact weight (the talk's training loop; Mordvintsev et al. 2020 for the stabilisers).

    Each iteration draws a missing rate, a mask for each grid of the batch and a rollout length, and takes one Adam step
    on the error at missing cells, each gradient tensor divided by its norm. The same seed gives the same rule.

    Cost: `iterations * batch * cells of a grid * steps` cell-steps of training, which docs/results.md times; memory is
    one state a step, 4 bytes a channel and cell.

    Args:
        weight: floating-point, finite, not empty; any rank that the layout takes.
        layout: how it becomes grids.
        recipe: the automaton's shape.
        schedule: by default the one that belongs to the recipe.
        moments: second moments of the layer's inputs, see `second_moments`; without them the loss is the missing-cell
            error alone.
        seed: of the rule, the masks and the order of grids, each from a stream of its own.
        device: where to compute.
        on_iteration: called with (iteration, iterations, loss) after each update.

    Raises:
        InvalidInput: if the weight is empty, not floating-point or not finite, does not fit the layout, the moments do
            not fit the weight, or the recipe has a channel for a hint.
    """
    schedule = Schedule.of(recipe) if schedule is None else schedule
    grids = _normalised_grids(weight, layout, device)
    if moments is not None:
        _check_moments(moments, weight)
        moments = moments.to(grids)
    began = time.monotonic()
    automaton = Automaton(recipe, dimensions=layout.dimensions, seed=seed)
    if schedule.warm_start and can_warm_start(automaton):
        warm_start(automaton)
    automaton.to(device)
    if automaton.survey:
        learn_modes(automaton.survey, grids, moments)
    descend = descent(list(automaton.parameters()), rate=schedule.learning_rate, iterations=schedule.iterations)
    masks = streams.generator(seed, "fit masks")
    order = streams.generator(seed, "fit order")
    share = schedule.output_share if moments is not None else 0.0
    held_out_grids, held_out_masks = _held_out(grids, seed)

    def loss_of(drawn: Tensor, known: Tensor, steps: int, firing: int) -> Tensor:
        """Damages all grids, for the survey's sake, and repairs the drawn ones."""
        state = automaton.start(grids, known)[drawn]
        error = automaton.run(state, steps=steps, seed=firing)[:, 0] - grids[drawn]
        loss = missing_error(error, known[drawn]) * (1 - share)
        if moments is not None and share:
            loss = loss + output_error(error, known[drawn], moments) * share
        return loss

    def look() -> float:
        """Loss on the held-out masks after a long rollout; a rule that left the finite range counts as worst."""
        with torch.no_grad():
            steps = schedule.long_rollout * schedule.lengths[1]
            losses = torch.stack([loss_of(held_out_grids, known, steps, seed) for known in held_out_masks])
        return losses.mean().nan_to_num(float("inf"), float("inf")).item()

    def snapshot() -> dict[str, Tensor]:
        return {name: value.clone() for name, value in automaton.rule.state_dict().items()}

    losses: list[float] = []
    held_out = [(0, look())]
    best, best_rule, looks_since = held_out[0][1], snapshot(), 0
    for iteration in range(1, schedule.iterations + 1):
        drawn = _drawn_grids(len(grids), schedule.batch, order).to(device)
        low, high = schedule.rates
        rate = low + (high - low) * float(torch.rand((), generator=order)) ** schedule.rates_power
        steps = int(torch.randint(schedule.lengths[0], schedule.lengths[1] + 1, (), generator=order))
        known = (torch.rand(grids.shape, generator=masks) >= rate).to(device)
        loss = loss_of(drawn, known, steps, iteration)
        descend(loss)
        losses.append(loss.item())
        if on_iteration:
            on_iteration(iteration, schedule.iterations, losses[-1])
        if iteration % schedule.check_every == 0 or iteration == schedule.iterations:
            latest = look()
            held_out.append((iteration, latest))
            looks_since += 1
            if latest < best:
                best, best_rule, looks_since = latest, snapshot(), 0
            if looks_since >= schedule.patience:
                break
    automaton.rule.load_state_dict(best_rule)
    return Fit(automaton.cpu(), losses, held_out, time.monotonic() - began)


def _normalised_grids(weight: Tensor, layout: Layout, device: torch.device | str) -> Float[Tensor, "batch *space"]:
    """The weight in units of its own."""
    if not weight.is_floating_point() or weight.numel() == 0 or not weight.isfinite().all():
        raise InvalidInput(
            f"A rule is fitted to a floating-point, finite, non-empty weight, not to {weight.dtype} of shape "
            f"{tuple(weight.shape)} with {int((~weight.isfinite()).sum())} values that are not finite."
        )
    return layout.to_grid(Normalisation.of(weight).apply(weight.detach().float())).contiguous().to(device)


def _check_moments(moments: Tensor, weight: Tensor) -> None:
    inputs = weight[0].numel()
    if tuple(moments.shape) != (inputs, inputs):
        raise InvalidInput(
            f"Second moments of the inputs of a weight of shape {tuple(weight.shape)} have shape ({inputs}, {inputs}), "
            f"not {tuple(moments.shape)}."
        )


def _drawn_grids(count: int, batch: int, order: torch.Generator) -> Tensor:
    """Indices of `batch` grids: without replacement where there are enough."""
    if batch <= count:
        return torch.randperm(count, generator=order)[:batch]
    return torch.randint(count, (batch,), generator=order)


def _held_out(grids: Tensor, seed: int) -> tuple[Int64[Tensor, " some"], list[Bool[Tensor, "batch *space"]]]:
    """A few grids, and masks that training never draws."""
    chosen = torch.arange(0, len(grids), max(1, len(grids) // HELD_OUT_GRIDS), device=grids.device)[:HELD_OUT_GRIDS]
    draws = streams.generator(seed, "fit held-out masks")
    return chosen, [(torch.rand(grids.shape, generator=draws) >= rate).to(grids.device) for rate in HELD_OUT_RATES]
