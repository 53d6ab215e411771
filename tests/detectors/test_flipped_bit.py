"""Likelihood ratios of flipped bits."""

import pytest
import torch
from helpers import drawn, examples, smooth_sheets
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.detectors import Residual
from planaria.errors import InvalidInput
from planaria.layouts import Sheet
from planaria_lab.detectors import FlippedBit
from planaria_lab.detectors.flipped_bit import positions, with_bit_flipped
from planaria_lab.repairers import MeanFill, RowKriging

SHEETS = Sheet((12, 12))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def noisy_sheets(count: int, *, seed: int = 0) -> Tensor:
    return 0.05 * (smooth_sheets(count, 12, 12, seed=seed) + 0.1 * drawn(count, 144, seed=seed))


def area(scores: Tensor, struck: Tensor) -> float:
    """Under the ROC curve, by ranks."""
    sound, broken = scores[~struck].sort().values, scores[struck]
    below, upto = (torch.searchsorted(sound, broken, right=right) for right in (False, True))
    return float((below + upto).double().mean() / 2 / len(sound))


def flipped(weight: Tensor, bits: list[int], *, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """One bit of so many weights, drawn among `bits`."""
    struck = drawn(*weight.shape, name="struck", seed=seed).abs() < share
    which = drawn(*weight.shape, name="which", seed=seed).argsort(1) % len(bits)
    broken = weight
    for number, bit in enumerate(bits):
        broken = torch.where(struck & (which == number), with_bit_flipped(weight, bit), broken)
    return broken, struck


@pytest.mark.parametrize("bits", ["sign", "exponent"])
def test_it_finds_more_flips_than_the_distance_from_the_same_predictions(bits: str) -> None:
    weight = noisy_sheets(40)
    broken, struck = flipped(weight, list(positions(weight.dtype, bits)), share=0.01, seed=3)
    predictor = RowKriging(SHEETS)
    areas = [
        area(detector.scores(broken, detector.prepare(weight)).double(), struck)
        for detector in (Residual(predictor), FlippedBit(predictor, bits=bits))
    ]
    assert areas[1] > 0.95 and areas[1] > areas[0] + 0.03


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8], ids=str)
@examples(5)
@given(seed=st.integers(0, 50))
def test_scores_of_intact_weights_are_finite(dtype: torch.dtype, seed: int) -> None:
    weight = noisy_sheets(8, seed=seed)
    weight = (300 * weight).clamp(-128, 127).to(dtype) if dtype == torch.int8 else weight.to(dtype)
    detector = FlippedBit(RowKriging(SHEETS))
    record = detector.prepare(weight)
    assert detector.scores(weight, record).isfinite().all()
    assert detector.find(weight, record).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@examples(5)
@given(at=st.tuples(st.integers(0, 7), st.integers(0, 143)))
def test_the_top_bit_of_the_exponent_ranks_first_and_no_number_is_infinite(
    dtype: torch.dtype, at: tuple[int, int]
) -> None:
    weight = noisy_sheets(8).to(dtype)
    detector = FlippedBit(RowKriging(SHEETS), bits="exponent")
    record = detector.prepare(weight)
    broken = weight.clone()
    broken[at] = with_bit_flipped(weight, 8 * dtype.itemsize - 2)[at]
    scores = detector.scores(broken, record)
    assert scores.argmax() == at[0] * 144 + at[1]
    assert not detector.find(broken, record)[at]
    for lost in (torch.nan, torch.inf, -torch.inf):
        broken[at] = lost
        scores = detector.scores(broken, record)
        assert scores[at] == torch.inf and scores.isfinite().sum() == scores.numel() - 1


def test_an_absurdly_small_weight_is_suspicious_though_it_is_near_its_prediction() -> None:
    weight = noisy_sheets(40)
    broken = weight.clone()
    at = tuple(int(axis[0]) for axis in torch.nonzero(weight.abs() < 0.005, as_tuple=True))
    broken[at] = with_bit_flipped(weight, 28)[at]  # smaller by a factor of 2^32
    assert 0 < broken[at].abs() < 1e-10
    ranks = []
    for detector in (Residual(MeanFill()), FlippedBit(MeanFill(), bits="exponent")):
        scores = detector.scores(broken, detector.prepare(weight))
        ranks.append(int((scores > scores[at]).sum()))
    assert ranks[1] == 0 < ranks[0]


def test_the_top_bit_of_integers_is_found() -> None:
    weight = (300 * noisy_sheets(40)).round().clamp(-128, 127).to(torch.int8)
    broken, struck = flipped(weight, [7], share=0.01, seed=5)
    detector = FlippedBit(RowKriging(SHEETS), bits="msb")
    assert area(detector.scores(broken, detector.prepare(weight)), struck) > 0.99


def test_the_score_is_the_ratio_of_probabilities() -> None:
    """Against a calculation by hand, of a weight among equals that are predicted as their mean."""
    weight = torch.tensor([0.75, 1.25] * 20)
    detector = FlippedBit(MeanFill(), bits=[22])  # adds or takes a half of the power of two below: 0.75 <-> 0.5
    record = detector.prepare(weight)
    score = detector.scores(weight, record)
    spread = torch.exp2(record["octaves"].double())
    # 1.25 <-> 1.75, with the same distance of floats; folds of 8 hold as many of both, so 1 is predicted.
    expected = -0.5 * (0.75**2 - 0.25**2) / spread**2 * torch.ones(20)
    torch.testing.assert_close(score[1::2], expected, rtol=1e-5, atol=1e-5)


def test_noisy_rows_and_columns_have_a_spread_of_their_own_for_a_byte_each() -> None:
    weight = drawn(40, 50) * torch.linspace(1, 9, 50)
    detector = FlippedBit(MeanFill(), bits="sign")
    record = detector.prepare(weight)
    assert record.nbytes == 20 + 40 + 50
    columns = record["columns"].double()
    assert columns[:10].mean() - columns[-10:].mean() > 8  # an octave, in eighths
    assert detector.prepare(drawn(20, 50)).nbytes == 20 + 20  # columns of 20 cells have none


def test_the_record_of_another_shape_is_refused() -> None:
    detector = FlippedBit(MeanFill())
    record = detector.prepare(drawn(40, 50))
    with pytest.raises(InvalidInput, match=r"spreads of 40 rows and 50 columns.*\(50, 40\)"):
        detector.find(drawn(50, 40), record)


@pytest.mark.parametrize(
    ("bits", "message"),
    [("exp", "Unknown bits 'exp'"), ([], "at least one"), ([1, 1], "named once"), ([-1], "0 or more")],
)
def test_bits_that_are_none_are_refused(bits: str | list[int], message: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=message):
        FlippedBit(MeanFill(), bits=bits)  # type: ignore[arg-type]


def test_bits_that_a_dtype_lacks_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no float and has no exponent bits"):
        FlippedBit(MeanFill(), bits="exponent").prepare(torch.ones(4, 6, dtype=torch.int8))
    with pytest.raises(InvalidInput, match="bits 0 to 15 and no bit 20"):
        FlippedBit(MeanFill(), bits=[3, 20]).prepare(torch.ones(4, 6).half())
