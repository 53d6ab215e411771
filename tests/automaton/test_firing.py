"""Which cells act."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from planaria.automaton import firing_cells

SHAPE = (4, 50, 50)
COUNT = 4 * 50 * 50

seeds = st.integers(-(2**63), 2**64 - 1)


@given(seed=seeds, step=st.integers(0, 10_000), rate=st.floats(0.02, 0.98))
def test_the_share_that_fires_matches_the_rate(seed: int, step: int, rate: float) -> None:
    fired = int(firing_cells(SHAPE, rate=rate, seed=seed, step=step).sum())
    low, high = stats.binom.interval(1 - 1e-7, COUNT, rate)
    assert low <= fired <= high


@given(seed=seeds, step=st.integers(0, 10_000))
def test_seed_and_step_alone_decide_who_fires(seed: int, step: int) -> None:
    first = firing_cells(SHAPE, rate=0.5, seed=seed, step=step)
    torch.rand(7)  # global state has no say
    assert torch.equal(first, firing_cells(SHAPE, rate=0.5, seed=seed, step=step))
    assert first.dtype == torch.bool and first.shape == SHAPE


@given(seed=st.integers(0, 2**63), step=st.integers(0, 10_000), other=st.integers(1, 1000))
def test_other_seeds_and_other_steps_fire_independently(seed: int, step: int, other: int) -> None:
    first = firing_cells(SHAPE, rate=0.5, seed=seed, step=step)
    for changed in (
        firing_cells(SHAPE, rate=0.5, seed=seed + other, step=step),
        firing_cells(SHAPE, rate=0.5, seed=seed, step=step + other),
    ):
        low, high = stats.binom.interval(1 - 1e-7, COUNT, 0.5)
        assert low <= int((first == changed).sum()) <= high


def test_neighbours_fire_independently() -> None:
    fired = firing_cells((1, 300, 300), rate=0.5, seed=0, step=0)[0]
    for one, other in ((fired[1:], fired[:-1]), (fired[:, 1:], fired[:, :-1])):
        low, high = stats.binom.interval(1 - 1e-7, one.numel(), 0.5)
        assert low <= int((one == other).sum()) <= high


@pytest.mark.parametrize("shape", [(1, 9), (2, 3, 4), (2, 3, 4, 5), (0, 3)])
def test_every_shape_reads_the_same_sequence_of_cells(shape: tuple[int, ...]) -> None:
    fired = firing_cells(shape, rate=0.5, seed=3, step=2)
    assert fired.shape == shape
    assert torch.equal(fired.flatten(), firing_cells((200,), rate=0.5, seed=3, step=2)[: fired.numel()])


def test_at_rate_one_every_cell_fires() -> None:
    assert firing_cells(SHAPE, rate=1.0, seed=0, step=0).all()


def test_the_number_of_threads_does_not_matter() -> None:
    before, masks = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            masks.append(firing_cells((40, 50, 50), rate=0.3, seed=1, step=4))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*masks)
