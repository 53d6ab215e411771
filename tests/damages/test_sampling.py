"""Places drawn block by block: every set of a size as likely as any other, also across blocks and tensors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from weights import far_from_even

from planaria.damages.kernels import BLOCK, drawn_in_blocks
from planaria.damages.sampling import Scatter, drawn_without_replacement, few_without_replacement, split
from planaria.streams import generator


@given(total=st.integers(0, 3 * BLOCK), share=st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]))
def test_draws_over_many_blocks_are_ascending_unique_and_as_many_as_asked(total: int, share: float) -> None:
    count = int(share * total)
    drawn = drawn_without_replacement(count, total, generator(0, "draw"))
    assert len(drawn) == count and (drawn.diff() > 0).all()
    assert count == 0 or 0 <= drawn[0] <= drawn[-1] < total


@given(sizes=st.lists(st.integers(0, 2 * BLOCK) | st.just(BLOCK), max_size=5), share=st.floats(0, 1))
def test_every_tensor_gets_its_own_places(sizes: list[int], share: float) -> None:
    count = int(share * sum(sizes))
    struck = list(Scatter(count=count).struck(sizes, generator(0, "draw")))
    assert len(struck) == len(sizes) and sum(map(len, struck)) == count
    for places, size in zip(struck, sizes, strict=True):
        assert (places.diff() > 0).all() and (len(places) == 0 or 0 <= places[0] <= places[-1] < size)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.9])
def test_no_place_of_a_block_is_preferred(share: float) -> None:
    size = BLOCK + 20_000
    drawn = drawn_without_replacement(int(share * size), size, generator(0, "draw"))
    counts = drawn.div(size / 50, rounding_mode="floor").long().bincount(minlength=50).double()
    expected, variance = share * size / 50, share * (1 - share) * size / 50
    assert ((counts - expected) ** 2 / variance).sum() < 50 + 5 * math.sqrt(100) + 15


def test_no_bit_of_a_word_is_preferred() -> None:
    drawn = drawn_without_replacement(200_000, 50 * BLOCK, generator(1, "draw"))
    assert not far_from_even((drawn % 64).bincount(minlength=64))
    assert not far_from_even((drawn // 64 % 1024).bincount(minlength=1024))


def test_distances_between_places_are_geometric() -> None:
    rate = 1 / 400
    (drawn,) = Scatter(rate).struck([300 * BLOCK], generator(0, "draw"))
    gaps = drawn.diff().double()
    edges = torch.tensor([math.log(1 - step / 20) / math.log(1 - rate) for step in range(1, 20)], dtype=torch.float64)
    shares = -torch.diff(
        torch.cat([torch.ones(1), (1 - rate) ** edges.floor(), torch.zeros(1)]).double()
    )  # P(gap > k) = (1 - rate)^k
    counts = torch.bucketize(gaps, edges.floor(), right=False).bincount(minlength=20)
    expected = shares * len(gaps)
    assert ((counts - expected) ** 2 / expected).sum() < 19 + 5 * math.sqrt(38) + 15


def test_blocks_share_a_count_as_drawing_without_replacement_does() -> None:
    blocks = np.array([10, 30, 60], dtype=np.int64)
    source = generator(0, "draw")
    counts = np.stack([split(blocks, 40, source) for _ in range(3000)])
    assert (counts.sum(1) == 40).all() and (counts >= 0).all() and (counts <= blocks).all()
    share = blocks / 100
    variance = 40 * share * (1 - share) * 60 / 99
    assert (abs(counts.mean(0) - 40 * share) < 5 * np.sqrt(variance / 3000)).all()
    assert (abs(counts.var(0) - variance) < 5 * variance * np.sqrt(2 / 3000)).all()


def test_every_set_over_two_blocks_is_as_likely_as_the_others() -> None:
    sets = torch.zeros(2**5)
    for seed in range(2000):
        struck = np.empty(2, np.int64)
        assert drawn_in_blocks(np.array([2], np.int64), 5, seed, struck) == 2
        sets[int((2 ** torch.from_numpy(struck)).sum())] += 1
    assert int((sets > 0).sum()) == math.comb(5, 2)
    assert not far_from_even(sets[sets > 0])


def test_tensors_are_struck_independently_at_a_rate() -> None:
    counts = torch.tensor(
        [[len(part) for part in Scatter(0.3).struck([40, 60], generator(seed, "draw"))] for seed in range(500)]
    ).double()
    assert torch.corrcoef(counts.T)[0, 1].abs() < 5 / math.sqrt(500)


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_few_are_drawn_in_simple_steps(count: int) -> None:
    source = generator(0, "draw")
    sets = torch.zeros(2**6)
    for _ in range(1000):
        sets[int((2 ** few_without_replacement(count, 6, source)).sum())] += 1
    assert int((sets > 0).sum()) == math.comb(6, count)
    assert count in (0, 6) or not far_from_even(sets[sets > 0])
