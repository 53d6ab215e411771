"""The shipped networks, and how they are trained."""

import pytest
import torch
from helpers import drawn, same_bits

from planaria.errors import InvalidFile, InvalidInput
from planaria.streams import generator
from planaria_lab import datasets
from planaria_lab.bench import tinymlp


@pytest.mark.parametrize(("name", "hidden"), [("A", 64), ("B", 128)])
def test_the_shipped_networks_classify_mnist(name: str, hidden: int) -> None:
    network = tinymlp.shipped(name)
    images, labels = datasets.mnist_test()
    assert network.fc1.weight.shape == (hidden, 784)
    assert network.accuracy(tinymlp.standardised(images), labels) > 96


def test_a_changed_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tinymlp.Setting(hidden=64, first_layer_scale=1.0, sha256="0" * 64)
    monkeypatch.setitem(tinymlp.NETWORKS, "A", setting)
    with pytest.raises(InvalidFile, match="has changed on disk"):
        tinymlp.shipped("A")


def test_an_unknown_network_is_answered_with_those_that_exist() -> None:
    with pytest.raises(InvalidInput, match=r"'C'.*A, B"):
        tinymlp.shipped("C")


def test_another_first_layer_makes_a_copy() -> None:
    network = tinymlp.TinyMLP(8, generator=generator(0, "test network"))
    before, other = network.fc1.weight.detach().clone(), drawn(8, 784)
    copy = network.with_first_layer(other)
    assert same_bits(copy.fc1.weight.detach(), other)
    assert same_bits(network.fc1.weight.detach(), before)
    assert same_bits(copy.fc2.weight.detach(), network.fc2.weight.detach())


def test_images_are_standardised_by_the_training_pixels() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(392).view(1, 28, 28)
    expected = torch.tensor([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081]).repeat(392)[None]
    torch.testing.assert_close(tinymlp.standardised(images), expected)


def test_the_first_layer_is_scaled_and_all_weights_come_from_the_stream() -> None:
    plain, scaled = (
        tinymlp.TinyMLP(8, generator=generator(0, "test network"), first_layer_scale=scale) for scale in (1.0, 0.1)
    )
    torch.testing.assert_close(scaled.fc1.weight, plain.fc1.weight * 0.1)
    torch.testing.assert_close(scaled.fc1.bias, plain.fc1.bias * 0.1)
    assert same_bits(scaled.fc2.weight.detach(), plain.fc2.weight.detach())
    assert plain.fc1.weight.abs().max() <= 784**-0.5 < plain.fc2.weight.abs().max() <= 8**-0.5


def test_accuracy_is_the_percentage_of_right_answers() -> None:
    network = tinymlp.TinyMLP(8, generator=generator(0, "test network"))
    inputs = drawn(50, 784)
    answers = network(inputs).argmax(1)
    assert network.accuracy(inputs, answers) == 100
    wrong = answers.clone()
    wrong[:5] = (wrong[:5] + 1) % 10
    assert network.accuracy(inputs, wrong) == pytest.approx(90)
