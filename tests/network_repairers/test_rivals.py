"""What repairers of MLPs find, and that they do not care in which order neurons come."""

from collections.abc import Callable

import pytest
import torch
from helpers import drawn
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.layouts import Flat
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
    equivariant_network,
)
from planaria_lab.network_repairers.chain import Chain
from planaria_lab.network_repairers.fitting import divergence, drawn_masks
from planaria_lab.repairers import Kriging, ZeroFill
from planaria_lab.zoo import MLP, Population, SmallCNN

DEEP = {"net.10.bias": (3,), "net.10.weight": (3, 5), "net.0.weight": (6, 4), "net.0.bias": (6,)}
DEEP |= {"net.2.weight": (5, 6), "net.2.bias": (5,)}  # as a file may list them
ORDERLESS: dict[str, Callable[[], NetworkRepairer]] = {
    "neuron Wiener": NeuronWiener,
    "matched PCA": MatchedPCA,
    "transformer": lambda: MaskedTransformer(width=8, depth=1, heads=2, steps=3, batch=4),
    "automaton": lambda: CrossbarAutomaton(channels=3, hidden=4, iterations=2, drawings=1, steps=3, batch=4),
}


def copies(count: int, shapes: dict[str, tuple[int, ...]] = DEEP, noise: float = 0.1) -> Population:
    """One network with its hidden neurons in other orders, and a little noise."""
    draw = generator(count, "test copies")
    like = generator(0, "test network")
    stack = {name: torch.randn(shape, generator=like).expand(count, *shape) for name, shape in shapes.items()}
    chain = Chain.of(shapes)
    orders = [torch.rand(count, width, generator=draw).argsort(1) for width in chain.sizes[1:-1]]
    stack = {
        name: tensor + noise * torch.randn(tensor.shape, generator=draw)
        for name, tensor in chain.reordered(stack, orders).items()
    }
    return Population(stack, tuple(map(str, range(count))), ("train",) * count, (None,) * count)


def missing_error(repairer: NetworkRepairer, intact: dict[str, Tensor]) -> float:
    """Of what is missing, as a share of its squares."""
    known = drawn_masks(intact, generator(1, "test damage"))
    restored = repairer.restore(intact, known)
    lost = sum(float(((restored[name] - intact[name]) ** 2)[~known[name]].sum()) for name in intact)
    return lost / sum(float((intact[name] ** 2)[~known[name]].sum()) for name in intact)


def test_layers_are_found_whatever_they_are_called_and_in_any_order() -> None:
    chain = Chain.of(DEEP)
    assert chain.weights == ("net.0.weight", "net.2.weight", "net.10.weight")
    assert chain.biases == ("net.0.bias", "net.2.bias", "net.10.bias")
    assert chain.sizes == (4, 6, 5, 3)
    named = Chain.of({"input": (6, 4), "input_bias": (6,), "head": (3, 6), "head_bias": (3,)})
    assert named.weights == ("input", "head")
    for shapes in (SmallCNN(28).shapes, {"only": (3, 2), "bias": (3,)}, {}):
        with pytest.raises(InvalidInput, match="MLP"):
            Chain.of(shapes)


def test_tokens_become_the_same_tensors_again() -> None:
    stack = copies(3).stack
    chain = Chain.of(DEEP)
    tokens = chain.tokens(stack)
    again = chain.stack(tokens, stack["net.10.bias"], [torch.rand_like(token) + 0.1 for token in tokens])
    assert again.keys() == stack.keys()
    for name, tensor in stack.items():
        torch.testing.assert_close(again[name], tensor)


@pytest.mark.parametrize("name", [*ORDERLESS, "matched PCA of deep networks"])
def test_a_network_with_its_neurons_in_another_order_is_repaired_alike(name: str) -> None:
    repairer = ORDERLESS.get(name, MatchedPCA)()
    shapes = MLP(8, "relu", (5,)).shapes if name in ORDERLESS else DEEP
    repairer.learn(copies(30, shapes), seed=1)
    stack = copies(4, shapes).stack
    known = drawn_masks(stack, generator(2, "test damage"))
    chain = Chain.of(shapes)
    draw = generator(3, "test orders")
    orders = [torch.rand(4, width, generator=draw).argsort(1) for width in chain.sizes[1:-1]]
    plain = chain.reordered(repairer.restore(stack, known), orders)
    other = repairer.restore(chain.reordered(stack, orders), chain.reordered(known, orders))
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-3)


def test_copies_of_one_network_are_matched_by_what_survived() -> None:
    wiener, matched = NeuronWiener(), MatchedPCA()
    for repairer in (wiener, matched):
        repairer.learn(copies(60))
    unseen = copies(20).stack
    assert missing_error(matched, unseen) < 0.3 < missing_error(wiener, unseen)


@pytest.mark.parametrize("rate", [1e-3, 1e3])
def test_the_automaton_is_no_worse_than_what_it_starts_from(rate: float) -> None:
    """At a rate of 1,000 the rule is noise, and held-out networks say so."""
    automaton = CrossbarAutomaton(channels=3, hidden=4, iterations=2, drawings=1, steps=10, batch=4, learning_rate=rate)
    matched = MatchedPCA()
    for repairer in (automaton, matched):
        repairer.learn(copies(60))
    unseen = copies(20).stack
    assert missing_error(automaton, unseen) < 1.05 * missing_error(matched, unseen)


def test_neurons_of_a_layer_of_another_width_are_repaired() -> None:
    repairer = NeuronWiener()
    repairer.learn(copies(60, MLP(8, "relu", (5,)).shapes))
    wider = copies(10, MLP(8, "relu", (9,)).shapes).stack
    assert missing_error(repairer, wider) < 1.2
    with pytest.raises(InvalidInput, match="sizes"):
        repairer.restore(*[{name: torch.ones(1, *shape).to(kind) for name, shape in DEEP.items()} for kind in KINDS])


KINDS = (torch.float32, torch.bool)


def test_tensors_without_a_repairer_read_as_zeros() -> None:
    repairer = ByLayer({"net.0.weight": Kriging(Flat())})
    repairer.learn(copies(2))
    stack = copies(2).stack
    nothing = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in stack.items()}
    with pytest.raises(InvalidInput, match="record"):  # its covariance was never stored
        repairer.restore(stack, nothing)
    with pytest.raises(InvalidInput, match="have no other"):
        ByLayer({"other": ZeroFill()}).learn(copies(2))
    zeros = ByLayer({})
    zeros.learn(copies(2))
    assert not any(tensor.any() for tensor in zeros.restore(stack, nothing).values())


def test_without_its_package_the_equivariant_network_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivariant_network, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"planaria-lab\[bench\]"):
        EquivariantNetwork()


def test_behaviour_wants_inputs_and_a_share() -> None:
    for inputs, share in ((torch.zeros(0, 64), 0.5), (torch.zeros(1, 64), 1.5)):
        with pytest.raises(InvalidInput, match="share"):
            Behaviour(MLP(8), inputs, share)


def test_the_divergence_is_that_of_distributions_and_knows_no_offset() -> None:
    given, right = drawn(6, 4), drawn(6, 4, seed=1)
    probabilities, expected = right.softmax(-1), 0.0
    for row in range(6):
        expected += float((probabilities[row] * (right[row].log_softmax(-1) - given[row].log_softmax(-1))).sum()) / 6
    assert float(divergence(given, right)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(right + 3, right)) == pytest.approx(0, abs=1e-6)
