"""Weights against predictions."""

import pytest
import torch
from helpers import drawn, examples, mask, smooth_sheets
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.detectors import Outlier, Predictor, Residual
from planaria.errors import InvalidInput
from planaria.layouts import Sheet
from planaria.records import Record
from planaria_lab.repairers import Kriging, MeanFill, NeighbourFill

SHEETS = Sheet((12, 12))


class Spy:
    """A predictor that remembers what it was shown, and answers with `answer` of the weights."""

    def __init__(self, answer: float = 0.0):
        self.answer = answer
        self.shown: list[Tensor] = []

    def prepare(self, weight: Tensor) -> Record:
        return Record({"range": drawn(3)})

    def restore(self, weight: Tensor, known: Tensor, record: Record) -> Tensor:
        assert record["range"].shape == (3,) and list(record.tensors) == ["range"], "not what it prepared"
        assert weight[known].isfinite().all()
        self.shown.append(known)
        return torch.full_like(weight, self.answer)


def planted(weight: Tensor, *, share: float, sigmas: float, seed: int) -> tuple[Tensor, Tensor]:
    """Errors of so many of the weight's own deviations, where the sum stays inside the intact range."""
    error = sigmas * weight.std() * torch.where(mask(*weight.shape, seed=seed + 1000), 1, -1)
    candidates = torch.stack([weight + error, weight - error])
    inside = (candidates >= weight.min()) & (candidates <= weight.max())
    places = mask(*weight.shape, share=share, seed=seed) & inside.any(0)
    return torch.where(places, torch.where(inside[0], candidates[0], candidates[1]), weight), places


@pytest.mark.parametrize(
    ("predictor", "share"),
    [(NeighbourFill(SHEETS), 0.05), (NeighbourFill(SHEETS), 0.2), (Kriging(SHEETS), 0.05)],
)
def test_large_errors_inside_the_range_are_found_on_smooth_weights(predictor: Predictor, share: float) -> None:
    # Trained weights are never without noise; without it, kriging follows even a damaged weight.
    weight = smooth_sheets(20, 12, 12, seed=1) + 0.1 * drawn(20, 144)
    broken, places = planted(weight, share=share, sigmas=5, seed=1)
    assert places.sum() > 5
    damaged = ~Residual(predictor).find(broken, Residual(predictor).prepare(weight))
    hits = (damaged & places).sum()
    assert hits > 0.9 * places.sum()
    assert hits > 0.9 * damaged.sum()


def test_it_finds_what_no_row_or_column_shows() -> None:
    weight = smooth_sheets(40, 12, 12)
    broken, places = planted(weight, share=0.05, sigmas=2, seed=0)
    found = [
        int((~detector.find(broken, detector.prepare(weight)) & places).sum())
        for detector in (Residual(NeighbourFill(SHEETS)), Outlier())
    ]
    assert found[0] > 0.8 * places.sum() and found[1] < 0.3 * places.sum()


@examples(10)
@given(at=st.tuples(st.integers(0, 4), st.integers(0, 143)), sigmas=st.sampled_from([-4.0, 4.0]))
def test_one_damaged_weight_does_not_condemn_its_neighbours(at: tuple[int, int], sigmas: float) -> None:
    weight = smooth_sheets(5, 12, 12)
    detector = Residual(NeighbourFill(SHEETS))
    broken = weight.clone()
    broken[at] += sigmas * weight.std()
    damaged = ~detector.find(broken, detector.prepare(weight))
    assert damaged.nonzero().tolist() == [list(at)]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.2])
@examples(5)
@given(seed=st.integers(0, 100))
def test_false_alarms_on_intact_weights_keep_to_the_rate(rate: float, seed: int) -> None:
    weight = smooth_sheets(8, 12, 12, seed=seed)
    detector = Residual(NeighbourFill(SHEETS), rate=rate)
    alarms = int((~detector.find(weight, detector.prepare(weight))).sum())
    assert alarms <= rate * weight.numel()
    assert alarms > 0 or rate == 0


@pytest.mark.parametrize("shape", [(), (1,), (17,), (6, 7), (4, 3, 5)])
@pytest.mark.parametrize("folds", [2, 4, 5])
def test_every_weight_is_hidden_exactly_once_a_round(shape: tuple[int, ...], folds: int) -> None:
    spy, weight = Spy(), drawn(*shape)
    Residual(spy, folds=folds).prepare(weight)
    assert len(spy.shown) == min(folds, weight.numel())
    assert torch.equal(sum((~known).int() for known in spy.shown), torch.ones(shape, dtype=torch.int32))


@pytest.mark.parametrize("shape", [(9, 11), (6, 28), (4, 144)])
def test_neighbours_in_the_matrix_are_never_hidden_together(shape: tuple[int, int]) -> None:
    spy = Spy()
    Residual(spy).prepare(drawn(*shape))
    for known in spy.shown:
        hidden = (~known).float()[None, None]
        crowd = torch.nn.functional.conv2d(hidden, torch.ones(1, 1, 3, 3), padding=1)
        assert (crowd[hidden > 0] == 1).all()


@pytest.mark.parametrize("width", [7, 8, 12, 14, 28, 32])
def test_pixels_above_each_other_in_a_rows_image_are_never_hidden_together(width: int) -> None:
    spy = Spy()
    Residual(spy).prepare(drawn(3, width * width))
    for known in spy.shown:
        hidden = ~known.view(3, width, width)
        assert not (hidden[:, 1:] & hidden[:, :-1]).any()


def test_what_is_impossible_is_hidden_from_the_first_prediction_on() -> None:
    spy, weight = Spy(), drawn(6, 8)
    detector = Residual(spy)
    record = detector.prepare(weight)
    broken = weight.clone()
    broken[0, 0], broken[3, 3], broken[5, 7] = float("nan"), float("-inf"), 100.0
    spy.shown.clear()
    known = detector.find(broken, record)
    assert torch.equal(known, broken == weight)
    assert not any(shown[place] for shown in spy.shown for place in [(0, 0), (3, 3), (5, 7)])
    # Proven weights are hidden too if they cannot be shown, but not named.
    assert detector.find(broken, record, suspect=torch.zeros(6, 8, dtype=torch.bool)).all()


def test_the_predictor_is_called_folds_times_on_intact_and_five_times_that_at_most() -> None:
    weight = smooth_sheets(8, 12, 12)
    detector = Residual(NeighbourFill(SHEETS), rate=0.05, folds=3)
    record = detector.prepare(weight)
    calls = 0

    class Counted(NeighbourFill):
        def restore(self, weight: Tensor, known: Tensor, record: Record) -> Tensor:
            nonlocal calls
            calls += 1
            return super().restore(weight, known, record)

    broken = torch.where(mask(8, 144, share=0.4), weight.flip(0), weight)
    assert not Residual(Counted(SHEETS), folds=3).find(broken, record).all()
    assert 3 < calls <= 15
    calls = 0
    exact = Residual(Counted(SHEETS), folds=3)
    record = exact.prepare(weight)
    assert exact.find(weight, record).all()
    assert calls == 3 + 3


def test_predictions_that_another_machine_rounds_otherwise_raise_no_alarm() -> None:
    weight = drawn(40, 50)
    record = Residual(Spy(0.0)).prepare(weight)
    for rounded in (3e-7, -3e-7):
        assert Residual(Spy(rounded)).find(weight, record).all()


def test_the_record_holds_the_predictors_and_twelve_bytes_more() -> None:
    weight = smooth_sheets(5, 12, 12)
    for predictor in (MeanFill(), Kriging(SHEETS)):
        assert Residual(predictor).prepare(weight).nbytes == predictor.prepare(weight).nbytes + 12
    assert Residual(MeanFill()).prepare(weight.double()).nbytes == 24


@pytest.mark.parametrize("folds", [1, 0, -3])
def test_fewer_than_two_folds_are_refused(folds: int) -> None:
    with pytest.raises(InvalidInput, match=f"at least 2, not {folds}"):
        Residual(MeanFill(), folds=folds)
