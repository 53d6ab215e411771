"""Whole tensors: zeroed, swapped, chosen by name; and the patterns of erasures that follow a tensor's shape."""

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from weights import far_from_even, full_weight

from planaria.damages import (
    BitFlip,
    Erasure,
    OnTensors,
    SetZero,
    SwappedTensors,
    WholeWeight,
    ZeroedTensor,
)
from planaria.errors import InvalidInput
from planaria.streams import generator

ALIKE = {
    "a": drawn(4, 5),
    "alone": drawn(5, 4),
    "b": drawn(4, 5, seed=1),
    "half": drawn(4, 5).half(),
    "c": drawn(4, 5, seed=2),
    "none": torch.zeros(0, 3),
    "nothing": torch.zeros(0, 3),
}


@given(shape=st.tuples(*[st.integers(1, 6)] * 3), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_channel_erasure_takes_whole_places_of_the_second_axis(
    shape: tuple[int, ...], fraction: float, seed: int
) -> None:
    faults = Erasure(fraction, pattern="channel").apply(drawn(*shape, 2), generator(seed, "damage"))[1]
    missing = (~faults.known).transpose(0, 1).flatten(1)
    assert torch.equal(missing.all(1), missing.any(1))
    assert int(missing.all(1).sum()) == round(fraction * shape[1])


def test_the_channels_of_a_matrix_are_its_columns_and_those_of_a_vector_its_weights() -> None:
    for shape in ((6, 7), (9,)):
        one, other = (
            Erasure(0.4, pattern=pattern).apply(drawn(*shape), generator(0, "damage"))[1]
            for pattern in ("channel", "column")
        )
        assert torch.equal(one.index, other.index)


@given(shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_ring_takes_exactly_its_share_nearest_to_one_circle(
    shape: tuple[int, int], fraction: float, seed: int
) -> None:
    missing = ~Erasure(fraction, pattern="ring").apply(drawn(*shape), generator(seed, "damage"))[1].known
    assert int(missing.sum()) == round(fraction * math.prod(shape))
    rows, columns = torch.meshgrid(*map(torch.arange, shape), indexing="ij")

    def apart(top: int, left: int) -> bool:
        distance = (((rows - top) ** 2 + (columns - left) ** 2).double().sqrt() - min(shape) / 4).abs()
        return not missing.any() or missing.all() or distance[missing].max() <= distance[~missing].min()

    assert any(apart(top, left) for top in range(shape[0]) for left in range(shape[1]))


def test_a_thin_ring_is_hollow_and_lies_anywhere() -> None:
    places = set()
    for seed in range(40):
        missing = ~Erasure(0.05, pattern="ring").apply(drawn(40, 40), generator(seed, "damage"))[1].known
        middle = missing.nonzero().double().mean(0).round().long()
        places.add(tuple(middle.tolist()))
        height = int(missing.any(1).sum())
        if height == 21:  # not cut by an edge
            assert not missing[middle[0], middle[1]]
    assert len(places) > 20


def test_exactly_count_tensors_are_zeroed_and_empty_ones_do_not_count() -> None:
    model = {str(number): full_weight(torch.int16, 3) for number in range(5)} | {"empty": torch.zeros(0)}
    counts = torch.zeros(5)
    for seed in range(300):
        damaged = ZeroedTensor(count=2).apply_to_model(model, generator(seed, "damage")).replay(model)
        gone = torch.tensor([not bool(damaged[str(number)].any()) for number in range(5)])
        assert int(gone.sum()) == 2
        counts += gone
    assert not far_from_even(counts)
    with pytest.raises(InvalidInput, match="6 places cannot break where there are 5"):
        ZeroedTensor(count=6).apply_to_model(model, generator(0, "damage"))


def test_zeroes_at_a_rate_are_binomial() -> None:
    model = {str(number): torch.ones(1) for number in range(400)}
    damaged = ZeroedTensor(0.3).apply_to_model(model, generator(0, "damage")).replay(model)
    assert abs(sum(float(weight) == 0 for weight in damaged.values()) - 120) < 5 * math.sqrt(84)


def test_zeroed_zeros_are_no_faults_but_minus_zeros_are() -> None:
    faults = ZeroedTensor(count=1).apply(torch.tensor([0.0, -0.0, 2.0]), generator(0, "damage"))[1]
    assert faults.index.tolist() == [1, 2]


def test_two_equal_shaped_tensors_exchange_their_contents() -> None:
    seen = []
    for seed in range(300):
        faults = SwappedTensors().apply_to_model(ALIKE, generator(seed, "damage"))
        damaged = faults.replay(ALIKE)
        moved = [name for name in ALIKE if not same_bits(damaged[name], ALIKE[name])]
        assert len(moved) == 2 and set(moved) < {"a", "b", "c"} and list(faults.tensors) == list(ALIKE)
        one, other = moved
        assert same_bits(damaged[one], ALIKE[other]) and same_bits(damaged[other], ALIKE[one])
        restored = faults.undo(damaged)
        assert all(same_bits(restored[name], ALIKE[name]) for name in ALIKE)
        seen.append(["ab", "ac", "bc"].index("".join(moved)))
    assert not far_from_even(torch.tensor(seen).bincount(minlength=3))


def test_without_a_partner_nothing_is_swapped() -> None:
    for model in ({}, {"a": drawn(4, 5), "b": drawn(5, 4)}, {"a": torch.zeros(0), "b": torch.zeros(0)}):
        with pytest.raises(InvalidInput, match="None can be swapped"):
            SwappedTensors().apply_to_model(model, generator(0, "damage"))
    with pytest.raises(InvalidInput, match="no partner"):
        SwappedTensors().apply(drawn(4, 5), generator(0, "damage"))


MODEL = {
    "block.0.conv.weight": drawn(4, 3),
    "block.0.bn.running_mean": drawn(4),
    "block.0.bn.running_var": drawn(4).abs(),
    "block.0.bn.num_batches_tracked": torch.tensor(7),
    "head.weight": drawn(4, 3).to(torch.int8),
    "head.scale": drawn(4),
    "head.zero_point": torch.arange(4),
    "head.weight_scale": drawn(1),
}


@pytest.mark.parametrize(
    ("names", "hit"),
    [
        (["*running_mean", "*running_var"], {"block.0.bn.running_mean", "block.0.bn.running_var"}),
        (["*scale", "*scales"], {"head.scale", "head.weight_scale"}),
        (["*zero_point"], {"head.zero_point"}),
        (["head.weight"], {"head.weight"}),
        (["block.?.conv.*", "head.scale"], {"block.0.conv.weight", "head.scale"}),
    ],
)
def test_only_tensors_of_those_names_break(names: tuple[str, ...], hit: set[str]) -> None:
    damage = OnTensors(WholeWeight(1.0), names=names)
    faults = damage.apply_to_model(MODEL, generator(0, "damage"))
    damaged = faults.replay(MODEL)
    assert list(faults.tensors) == list(MODEL)
    assert {name for name in MODEL if not same_bits(damaged[name], MODEL[name])} == hit
    alone = WholeWeight(1.0).apply_to_model({n: MODEL[n] for n in MODEL if n in hit}, generator(0, "damage"))
    assert all(same_bits(alone.tensors[name].new, faults.tensors[name].new) for name in hit)


def test_a_count_is_over_the_chosen_tensors() -> None:
    damage = OnTensors(BitFlip(count=8, bits="sign"), names=["*running_*"])  # other tensors have no sign
    faults = damage.apply_to_model(MODEL, generator(0, "damage"))
    assert {name: len(one.index) for name, one in faults.tensors.items() if len(one.index)} == {
        "block.0.bn.running_mean": 4,
        "block.0.bn.running_var": 4,
    }
    with pytest.raises(InvalidInput, match="9 places cannot break where there are 8"):
        OnTensors(SetZero(count=9), names=["*running_*"]).apply_to_model(MODEL, generator(0, "damage"))


def test_names_that_match_nothing_are_refused() -> None:
    for names in (["*.bias"], ["HEAD.*"]):
        with pytest.raises(InvalidInput, match=r"No name of 8 tensors matches .*'block\.0\.conv\.weight'"):
            OnTensors(SetZero(1.0), names=names).apply_to_model(MODEL, generator(0, "damage"))
    with pytest.raises(InvalidInput, match="No name of 0 tensors"):
        OnTensors(SetZero(1.0), names=["*"]).apply_to_model({}, generator(0, "damage"))


@pytest.mark.parametrize("names", [[], "*.weight"])
def test_names_are_a_list_of_patterns(names: object, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match="one or more patterns"):
        OnTensors(SetZero(1.0), names=names)


class Loading(Mapping[str, Tensor]):
    """Notes which tensors it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.asked.append(name)
        return MODEL[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MODEL)

    def __len__(self) -> int:
        return len(MODEL)


def test_the_others_are_looked_up_for_their_shape_alone(unchecked: None) -> None:
    model = Loading()
    OnTensors(SetZero(1.0), names=["head.scale"]).apply_to_model(model, generator(0, "damage"))
    assert model.asked.count("block.0.conv.weight") == 1 and model.asked.count("head.scale") == 2
