"""The int8 residual network: what quantisation keeps, and the one that ships."""

import copy

import pytest
import torch
from helpers import drawn, same_bits
from torch import nn

from planaria.errors import InvalidFile, InvalidInput
from planaria.streams import generator
from planaria_lab import datasets
from planaria_lab.bench import resnet
from planaria_lab.bench.frontier.convnet import images_in
from planaria_lab.bench.int8 import Int8Conv2d, Int8Linear, quantised, quantised_weight


def test_the_shipped_network_classifies_mnist() -> None:
    network = resnet.shipped()
    images, labels = datasets.mnist_test()
    with torch.no_grad():
        right = (network(images_in(images[:2000])).argmax(1) == labels[:2000]).double().mean()
    assert right > 0.985
    assert not any(module.training for module in network.modules())


def test_every_weight_of_two_axes_or_more_is_int8() -> None:
    state = resnet.shipped().state_dict()
    weights = {name: tensor for name, tensor in state.items() if tensor.dim() >= 2}
    assert len(weights) == 20
    assert {tensor.dtype for tensor in weights.values()} == {torch.int8}
    assert sum(tensor.numel() for tensor in weights.values()) == 268_048
    assert all(state[name.replace("weight", "scale")].dtype == torch.float32 for name in weights)
    assert all(tensor.abs().max() == 127 for tensor in weights.values())


def test_a_changed_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet, "SHA256", "0" * 64)
    with pytest.raises(InvalidFile, match="has changed on disk"):
        resnet.shipped()


def test_the_network_is_trained_from_its_seed_alone() -> None:
    data = datasets.mnist_test()
    few = datasets.Dataset("few", data[0][:256], data[1][:256], data[0][:1], data[1][:1])
    once, again, other = (resnet.train(few, seed=seed, epochs=1) for seed in (0, 0, 1))
    assert all(same_bits(one, two) for one, two in zip(once.parameters(), again.parameters(), strict=True))
    assert not same_bits(once.fc.weight.detach(), other.fc.weight.detach())


def test_quantised_weights_are_within_half_a_step() -> None:
    weight = drawn(7, 5, 3)
    steps, scale = quantised_weight(weight)
    assert steps.dtype == torch.int8
    assert steps.abs().max() == 127
    assert ((steps * scale - weight).abs() <= scale * 0.501).all()


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.zeros(0, 4)])
def test_weights_without_a_largest_have_scale_one(weight: torch.Tensor) -> None:
    steps, scale = quantised_weight(weight)
    assert not steps.any()
    assert scale == 1


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        quantised_weight(torch.tensor([1.0, float("nan")]))


def test_quantising_copies_and_computes_with_the_rounded_weights() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(drawn(*parameter.shape))
    int8, rounded = quantised(network), copy.deepcopy(network)
    assert isinstance(int8[0], Int8Conv2d) and isinstance(int8[2], Int8Linear)  # type: ignore[index]
    assert type(network[0]) is nn.Conv2d
    with torch.no_grad():
        for layer in (rounded[0], rounded[2]):
            steps, scale = quantised_weight(layer.weight)
            layer.weight.copy_(steps * scale)
    inputs = drawn(5, 2, 4, 4)
    assert torch.equal(int8(inputs), rounded(inputs))
    assert "weight" not in dict(int8[0].named_parameters())  # type: ignore[index]


def test_a_single_layer_is_quantised_too() -> None:
    layer = nn.Linear(3, 2, bias=False)
    assert isinstance(quantised(layer), Int8Linear)


def test_shortcuts_halve_and_widen() -> None:
    block = resnet.Block(4, 8, stride=2)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    inputs = torch.rand(2, 4, 7, 7, generator=generator(0, "test shortcuts"))
    outputs = block.eval()(inputs)
    assert torch.equal(outputs[:, :4], inputs[:, :, ::2, ::2])
    assert not outputs[:, 4:].any()
