"""A weight is damaged if it is far from what the weights around it predict."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int32, Shaped
from torch import Tensor

from planaria.detectors.base import Detector, checked_rate, intact_range, largest_but, outside, working
from planaria.errors import InvalidInput
from planaria.records import Record

ROUNDS = 5
PREFIX = "predictor."


@runtime_checkable
class Predictor(Protocol):
    """What fills missing weights: any repairer that keeps to the contract of `planaria.repairers.Repairer`."""

    def prepare(self, weight: Float[Tensor, "*weight"]) -> Record: ...
    def restore(
        self, weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]: ...


@runtime_checkable
class LeavesOneOut(Protocol):
    """A predictor that says of every weight what it would fill in if that one were missing too, without folds."""

    def left_one_out(
        self, weight: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]: ...


class Residual(Detector):
    """Hides each weight from the predictor, and compares the prediction with what the weight holds.

    Cross-validation in folds: every weight is predicted once, from the weights of the other folds. It is damaged if the
    prediction misses it by more than any (or by more than all but a share `rate`) of the intact weights were missed, or
    if it lies outside the intact range. The limit is in the weights' units and comes from the intact tensor alone: a
    scale estimated on the damaged tensor would grow with the damage, and at 20 % hide it.

    A damaged weight spoils the predictions of its neighbours too. So those outside the range are hidden from the start,
    and of the rest only the worst are taken out at first, before all are predicted again: at most five rounds. A weight
    that was within the limit in the first round is never named.

    Time: up to `5 * folds` calls of the predictor, `folds` of them on an intact tensor. Space: a few copies of the
    tensor beside those that the predictor holds.

    Args:
        predictor: what fills missing weights, for example a `planaria.repairers.RegrowPretrained`.
        rate: the share of intact weights that may be named damaged, 0 <= rate < 1.
        folds: at least 2. More cost more and hide less at a time. Predictors that leave out one by one need none.

    Record: the predictor's, the range, and the limit: 12 bytes more than the predictor's (24 for float64).
    """

    def __init__(self, predictor: Predictor, *, rate: float = 0.0, folds: int = 5):
        self.predictor = predictor
        self.rate = checked_rate(rate)
        self.folds = checked_folds(folds)

    def prepare(self, weight: Shaped[Tensor, "*weight"]) -> Record:
        values = working(weight)
        if values.numel() == 0:
            return Record()
        low_and_high = intact_range(values)
        noted = self.predictor.prepare(values)
        limit = largest_but(self.rate, self._misses(values, torch.ones_like(values, dtype=torch.bool), noted))
        # Another machine or another number of threads rounds predictions otherwise, by far less than this.
        limit = limit + 1e-4 * low_and_high.abs().max()
        return Record({"range": low_and_high, "limits": limit.view(1), **with_prefix(noted)})

    def scores(self, weight: Shaped[Tensor, "*weight"], record: Record) -> Float[Tensor, "*weight"]:
        """How far each weight is from its prediction by the other folds, 0 or more; infinite where it is no number.

        In the weights' unit; one round, and what lies outside the intact range is hidden from the predictor.
        """
        values = working(weight)
        if values.numel() == 0:
            return values
        known = ~outside(values, record["range"])
        return self._misses(values, known, predictors_record(record)).nan_to_num(torch.inf, torch.inf)

    def _damaged(
        self, weight: Shaped[Tensor, "*weight"], record: Record, suspect: Bool[Tensor, "*weight"]
    ) -> Bool[Tensor, "*weight"]:
        values = working(weight)
        limit = record["limits"].to(values)[0]
        noted = predictors_record(record)
        broken = outside(values, record["range"])
        return worst_first(lambda known: self._misses(values, known, noted), broken, suspect, limit)

    def _misses(
        self, values: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], noted: Record
    ) -> Float[Tensor, "*weight"]:
        """How far each weight is from its prediction by the known weights of the other folds."""
        return (values - cross_predicted(self.predictor, values, known, noted, folds=self.folds)).abs()


def checked_folds(folds: int) -> int:
    """The number itself. Raises `InvalidInput` unless it is 2 or more."""
    if folds < 2:
        raise InvalidInput(f"Weights are predicted from other folds: folds is at least 2, not {folds}.")
    return folds


def cross_predicted(
    predictor: Predictor,
    values: Float[Tensor, "*weight"],
    known: Bool[Tensor, "*weight"],
    noted: Record,
    *,
    folds: int,
) -> Float[Tensor, "*weight"]:
    """Each weight's prediction by the known weights of the other folds, or by all others if the predictor can."""
    if isinstance(predictor, LeavesOneOut):
        return predictor.left_one_out(values, known, noted)
    fold = _folds(values.shape, folds).to(values.device)
    predicted = torch.empty_like(values)
    for held_out in range(folds):
        here = fold == held_out
        if here.any():
            predicted = torch.where(here, predictor.restore(values, known & ~here, noted), predicted)
    return predicted


def worst_first(
    scores: Callable[[Bool[Tensor, "*weight"]], Float[Tensor, "*weight"]],
    broken: Bool[Tensor, "*weight"],
    suspect: Bool[Tensor, "*weight"],
    limit: Float[Tensor, ""],
) -> Bool[Tensor, "*weight"]:
    """True where weights are broken, or over the limit in the first round and in the last.

    Args:
        scores: of all weights, from those known.
        broken: never known.
        suspect: the others are never over the limit.
        limit: of a score.
    """
    hidden, candidates = broken, suspect & ~broken
    for _ in range(ROUNDS):
        found = scores(~hidden)
        # Only what was over in the first round: so the intact tensor has the false alarms counted in `prepare`.
        over = candidates & (found > limit)
        if hidden is broken:
            candidates = over
        fresh = over & ~hidden
        if not fresh.any():
            break
        hidden = broken | (over & (hidden | (found >= found[fresh].max() / 2)))
    return broken | over


def predictors_record(record: Record) -> Record:
    """What the predictor noted, as `with_prefix` stores it."""
    return Record(
        {name.removeprefix(PREFIX): tensor for name, tensor in record.tensors.items() if name.startswith(PREFIX)}
    )


def with_prefix(noted: Record) -> dict[str, Tensor]:
    """A predictor's record as part of a detector's."""
    return {f"{PREFIX}{name}": tensor for name, tensor in noted.tensors.items()}


def _folds(shape: torch.Size, folds: int) -> Int32[Tensor, "*weight"]:
    """The fold of each cell: a knight's move apart, counted on the matrix `(shape[0], the rest)`.

    With 5 folds no cell shares its fold with one of its 8 neighbours in the matrix; nor, where a row is an image of
    width w, with those above and below it, unless 5 divides w. (4 folds hide those above and below in every image
    whose width 4 divides; kriging then misses smooth images of 32x32 by seven times as much.)
    """
    rows = shape[0] if len(shape) > 1 else 1
    row, column = (torch.arange(size, dtype=torch.int32) for size in (rows, shape.numel() // rows))
    return ((2 * row[:, None] + column) % folds).view(shape)
