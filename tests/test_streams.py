"""Named random streams."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planaria.streams import generator
from planaria_lab.bench.tinymlp import TinyMLP

COUNT = 20_000
seeds = st.integers(0, 2**32)
names = st.text(min_size=1, max_size=20)


def uniform(seed: int, name: str) -> torch.Tensor:
    return torch.rand(COUNT, generator=generator(seed, name))


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@given(seed=seeds, name=names)
def test_a_stream_repeats_itself_whatever_was_drawn_before(seed: int, name: str) -> None:
    first = uniform(seed, name)
    torch.rand(3)
    assert torch.equal(uniform(seed, name), first)


@given(seed=seeds, name=names, other=names, step=st.integers(1, 5))
def test_streams_of_other_names_and_seeds_share_nothing(seed: int, name: str, other: str, step: int) -> None:
    first = uniform(seed, name)
    others = [uniform(seed + step, name)] + ([uniform(seed, other)] if other != name else [])
    for numbers in others:
        assert not (first == numbers).all()
        assert abs(correlation(first, numbers)) < 5.5 / COUNT**0.5


def test_a_name_with_a_seed_inside_is_another_name() -> None:
    assert not torch.equal(uniform(1, "mask/1"), uniform(1, "mask"))
    assert not torch.equal(uniform(11, "mask"), uniform(1, "mask/1"))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_mask_does_not_select_weights_by_their_initial_value(seed: int) -> None:
    """The trap: `torch.rand` repeats the numbers of the initialiser that was given the same seed."""
    initial = TinyMLP(64, generator=generator(seed, "network initialisation")).fc1.weight.detach()
    for name in ("fit masks", "fit held-out masks", "damage rate 0.5 mask 0"):
        drawn = torch.rand(initial.shape, generator=generator(seed, name))
        assert abs(correlation(initial, drawn)) < 5.5 / initial.numel() ** 0.5
        assert abs(float(initial[drawn >= 0.5].mean())) < 0.001
    trap = torch.rand(initial.shape, generator=generator(seed, "network initialisation"))
    assert correlation(initial, trap) > 0.99


def test_drawing_from_a_stream_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    uniform(0, "damage")
    assert torch.equal(torch.get_rng_state(), before)
