"""What every repairer of networks promises, one suite over all of them."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from helpers import same_bits
from torch import Tensor

import planaria_lab.network_repairers
from planaria.errors import InvalidInput
from planaria.streams import generator
from planaria_lab.network_repairers import (
    Behaviour,
    ByLayer,
    CrossbarAutomaton,
    EquivariantNetwork,
    MaskedTransformer,
    MatchedPCA,
    NetworkRepairer,
    NeuronWiener,
    ZooMean,
)
from planaria_lab.repairers import MeanFill, ZeroFill
from planaria_lab.zoo import MLP, Population

NETWORKS = 12
ARCHITECTURE = MLP(8, "relu", (5,))
SHAPES = ARCHITECTURE.shapes
INPUTS = torch.randn(20, 64, generator=generator(0, "test inputs"))


def by_layer() -> NetworkRepairer:
    return ByLayer({"fc1.weight": MeanFill(), "fc2.weight": ZeroFill()})


def transformer() -> NetworkRepairer:
    return MaskedTransformer(width=8, depth=1, heads=2, steps=3, batch=4, behaviour=Behaviour(ARCHITECTURE, INPUTS))


def automaton() -> NetworkRepairer:
    behaviour = Behaviour(ARCHITECTURE, INPUTS)
    return CrossbarAutomaton(channels=3, hidden=4, iterations=2, drawings=1, steps=3, batch=4, behaviour=behaviour)


MEMBERS: dict[str, Callable[[], NetworkRepairer]] = {
    "zoo mean": ZooMean,
    "by layer": by_layer,
    "neuron Wiener": NeuronWiener,
    "matched PCA": MatchedPCA,
    "transformer": transformer,
    "automaton": automaton,
}
ABSENT = set() if find_spec("nfn") else {EquivariantNetwork}
if not ABSENT:
    MEMBERS["equivariant"] = lambda: EquivariantNetwork(channels=2, steps=3, batch=4)

every_member = pytest.mark.parametrize("make", MEMBERS.values(), ids=MEMBERS.keys())


def population(count: int = NETWORKS, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Population:
    stack = {
        name: torch.randn(count, *shape, generator=generator(count, f"test {name}")) for name, shape in shapes.items()
    }
    return Population(stack, tuple(map(str, range(count))), ("train",) * count, (None,) * count)


def damaged(share: float, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Networks of the same shapes whose missing weights hold NaN, and which are known."""
    stack = population(3).stack
    known = {
        name: torch.rand(tensor.shape, generator=generator(seed, f"mask {name}")) >= share
        for name, tensor in stack.items()
    }
    return {name: torch.where(known[name], tensor, torch.nan) for name, tensor in stack.items()}, known


@pytest.fixture(scope="module")
def learned() -> dict[Any, NetworkRepairer]:
    """Every member once, after it has learned."""
    made = {make: make() for make in MEMBERS.values()}
    for repairer in made.values():
        repairer.learn(population(), seed=3)
    return made


def test_every_exported_repairer_is_in_this_suite() -> None:
    exported = {
        kind
        for kind in vars(planaria_lab.network_repairers).values()
        if isinstance(kind, type) and issubclass(kind, NetworkRepairer)
    }
    assert {type(make()) for make in MEMBERS.values()} == exported - {NetworkRepairer} - ABSENT


@every_member
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_known_weights_stay_and_missing_ones_become_numbers(make: Any, share: float, learned: Any) -> None:
    stack, known = damaged(share)
    restored = learned[make].restore(stack, known)
    assert restored.keys() == stack.keys()
    for name, tensor in restored.items():
        assert tensor.isfinite().all()
        assert same_bits(tensor[known[name]], stack[name][known[name]])


@every_member
def test_known_weights_may_be_any_number(make: Any, learned: Any) -> None:
    stack, known = damaged(0.5)
    stack["fc1.weight"] = torch.where(known["fc1.weight"], 3e38, torch.nan)
    assert all(tensor.isfinite().all() for tensor in learned[make].restore(stack, known).values())


@every_member
def test_a_repair_of_the_repaired_is_the_same(make: Any, learned: Any) -> None:
    stack, known = damaged(0.5)
    once = learned[make].restore(stack, known)
    again = learned[make].restore(once, known)
    assert all(same_bits(once[name], again[name]) for name in once)


@every_member
def test_networks_are_repaired_each_on_its_own(make: Any, learned: Any) -> None:
    stack, known = damaged(0.6)
    together = learned[make].restore(stack, known)
    for at in range(3):
        alone = learned[make].restore(
            {name: tensor[at : at + 1] for name, tensor in stack.items()},
            {name: tensor[at : at + 1] for name, tensor in known.items()},
        )
        for name, tensor in alone.items():
            torch.testing.assert_close(tensor[0], together[name][at], rtol=1e-3, atol=1e-4)


@every_member
def test_the_same_seed_learns_the_same(make: Any, learned: Any) -> None:
    other = make()
    other.learn(population(), seed=3)
    stack, known = damaged(0.4)
    one, two = learned[make].restore(stack, known), other.restore(stack, known)
    assert all(same_bits(one[name], two[name]) for name in one)


@every_member
def test_what_is_not_learned_or_does_not_fit_is_refused(make: Any, learned: Any) -> None:
    stack, known = damaged(0.5)
    with pytest.raises(InvalidInput, match="learn"):
        make().restore(stack, known)
    with pytest.raises(InvalidInput, match="no network"):
        make().learn(population(0))
    repairer = learned[make]
    with pytest.raises(InvalidInput, match="names"):
        repairer.restore(stack, {})
    with pytest.raises(InvalidInput, match="shape"):
        repairer.restore(stack, {name: mask[:1] for name, mask in known.items()})
    with pytest.raises(InvalidInput, match="bool"):
        repairer.restore(stack, {name: mask.int() for name, mask in known.items()})
    with pytest.raises(InvalidInput, match="no numbers"):
        repairer.restore(stack, {name: torch.ones_like(mask) for name, mask in known.items()})
    with pytest.raises(InvalidInput, match="cannot repair"):
        repairer.restore({"other": torch.zeros(1, 2, 2)}, {"other": torch.zeros(1, 2, 2, dtype=torch.bool)})
