"""Erasures: how much, where, and back again."""

import math

import pytest
import torch
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st

from planaria.damages import Erasure, Faults
from planaria.errors import InvalidInput
from planaria.streams import generator

PATTERNS = ["iid", "block", "row", "column", "channel", "ring"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8]

fractions = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 1e-9])
shapes = st.lists(st.integers(0, 7), max_size=3).map(tuple)


def erased(shape: tuple[int, ...], fraction: float, pattern: str, *, seed: int = 0) -> Faults:
    return Erasure(fraction, pattern=pattern).apply(drawn(*shape), generator(seed, "damage"))[1]


@given(shape=shapes, fraction=fractions)
def test_scattered_erasure_takes_exactly_its_share(shape: tuple[int, ...], fraction: float) -> None:
    faults = erased(shape, fraction, "iid")
    assert len(faults.index) == round(fraction * math.prod(shape)) == int((~faults.known).sum())


@given(shape=st.tuples(st.integers(1, 7), st.integers(1, 7)), fraction=fractions)
def test_row_erasure_takes_whole_rows_and_column_erasure_whole_columns(shape: tuple[int, int], fraction: float) -> None:
    for pattern, count, missing in (
        ("row", shape[0], ~erased(shape, fraction, "row").known),
        ("column", shape[1], ~erased(shape, fraction, "column").known.T),
    ):
        whole = missing.all(1)
        assert torch.equal(whole, missing.any(1)), pattern
        assert int(whole.sum()) == round(fraction * count), pattern


@given(shape=st.tuples(st.integers(1, 12), st.integers(1, 12)), fraction=fractions, seed=st.integers(0, 99))
def test_block_erasure_takes_one_rectangle_of_nearly_its_share(
    shape: tuple[int, int], fraction: float, seed: int
) -> None:
    missing = ~erased(shape, fraction, "block", seed=seed).known
    rows, columns = missing.any(1), missing.any(0)
    assert torch.equal(missing, rows[:, None] & columns)
    for line in (rows, columns):
        taken = line.nonzero().flatten()
        assert len(taken) == 0 or taken[-1] - taken[0] + 1 == len(taken)
    height = int(rows.sum())
    assert abs(int(missing.sum()) - fraction * math.prod(shape)) <= max(height / 2, 0.5 * shape[0]) + 1e-6


def test_blocks_have_the_tensors_proportions_and_lie_anywhere() -> None:
    corners = set()
    for seed in range(40):
        missing = ~erased((40, 80), 0.25, "block", seed=seed).known
        assert int(missing.any(1).sum()) == 20 and int(missing.any(0).sum()) == 40
        corners.add(tuple(missing.nonzero()[0].tolist()))
    assert len(corners) > 20


@given(shape=shapes)
def test_tensor_erasure_takes_everything(shape: tuple[int, ...]) -> None:
    assert not erased(shape, 1.0, "tensor").known.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
@given(shape=shapes, fraction=fractions, seed=st.integers(0, 99), transposed=st.booleans())
def test_faults_replay_and_undo_bit_for_bit(
    dtype: torch.dtype, pattern: str, shape: tuple[int, ...], fraction: float, seed: int, transposed: bool
) -> None:
    weight = (drawn(*shape) * 20).to(dtype)
    if dtype.is_floating_point and weight.numel():
        weight.view(-1)[0] = float("nan")
    if transposed and weight.dim() == 2:
        weight = weight.T
    before = weight.clone()
    damaged, faults = Erasure(fraction, pattern=pattern, value=3.0).apply(weight, generator(seed, "damage"))
    assert same_bits(weight, before)
    assert same_bits(faults.replay(weight), damaged)
    assert same_bits(faults.undo(damaged), before)
    assert same_bits(damaged[faults.known], before[faults.known])
    assert (damaged[~faults.known] == 3).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 0.0])
def test_an_erased_weight_holds_the_chosen_value(value: float) -> None:
    damaged, faults = Erasure(0.5, value=value).apply(drawn(4, 5), generator(0, "damage"))
    assert same_bits(damaged[~faults.known], torch.full((10,), value))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_stream_alone_decides_what_breaks(pattern: str) -> None:
    assert torch.equal(erased((20, 30), 0.4, pattern, seed=1).index, erased((20, 30), 0.4, pattern, seed=1).index)
    assert not torch.equal(erased((20, 30), 0.4, pattern, seed=1).index, erased((20, 30), 0.4, pattern, seed=2).index)


def test_scattered_erasure_prefers_no_place() -> None:
    counts = torch.zeros(4, 5)
    for seed in range(400):
        counts += ~erased((4, 5), 0.3, "iid", seed=seed).known
    assert counts.sum() == 400 * 6
    assert (counts - 120).abs().max() < 5 * math.sqrt(400 * 0.3 * 0.7)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidInput, match=rf"\[0, 1\], not {fraction}"):
        Erasure(fraction)


def test_an_unknown_pattern_is_answered_with_those_that_exist(unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"'diagonal'.*iid, block, row, column, channel, ring, tensor"):
        Erasure(0.5, pattern="diagonal")  # type: ignore[arg-type]


def test_tensor_erasure_takes_no_other_fraction() -> None:
    with pytest.raises(InvalidInput, match=r"its fraction is 1, not 0\.5"):
        Erasure(0.5, pattern="tensor")
