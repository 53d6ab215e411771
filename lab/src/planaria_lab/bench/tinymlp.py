"""The talk's network: one hidden ReLU layer over MNIST images. Two of them ship with the package."""

import copy
import hashlib
from dataclasses import dataclass
from importlib import resources

import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import load
from torch import Tensor, nn

from planaria import streams
from planaria.errors import InvalidFile, InvalidInput
from planaria_lab import datasets
from planaria_lab.bench.unset import unset

PIXEL_MEAN, PIXEL_DEVIATION = 0.1307, 0.3081  # of MNIST's training images, in [0, 1]


@dataclass(frozen=True)
class Setting:
    """How one of the shipped networks is trained: 3 epochs of Adam at 1e-3, batch 128, standardised inputs."""

    hidden: int
    first_layer_scale: float
    """Factor on PyTorch's default initialisation of the first layer."""
    sha256: str
    """Of the shipped file."""


NETWORKS = {
    "A": Setting(
        hidden=64, first_layer_scale=1.0, sha256="cae76c76837c4e54f33493a437058d94eabe0e8ee21107fd62b23b5f3580ff44"
    ),
    "B": Setting(
        hidden=128, first_layer_scale=0.1, sha256="4946857b8afd46fd574d7edbab4eb8b849d0225b96188d4024ee2ea6fde0479b"
    ),
}


class TinyMLP(nn.Module):
    """784 inputs, one hidden ReLU layer, 10 outputs. Weights are drawn from `generator`, as PyTorch's default does.

    Uniform in +-1/sqrt(inputs), weights and biases alike; the first layer's are multiplied by `first_layer_scale`.
    """

    def __init__(self, hidden: int, *, generator: torch.Generator, first_layer_scale: float = 1.0):
        super().__init__()
        self.fc1 = unset(nn.Linear, 784, hidden)
        self.fc2 = unset(nn.Linear, hidden, 10)
        with torch.no_grad():
            for layer in (self.fc1, self.fc2):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            for parameter in self.fc1.parameters():
                parameter.mul_(first_layer_scale)

    def forward(self, inputs: Float[Tensor, "batch 784"]) -> Float[Tensor, "batch 10"]:
        outputs: Tensor = self.fc2(torch.relu(self.fc1(inputs)))
        return outputs

    def with_first_layer(self, weight: Float[Tensor, "hidden 784"]) -> "TinyMLP":
        """A copy with another FC1 weight."""
        network = copy.deepcopy(self)
        network.fc1.weight.data = weight
        return network

    @torch.no_grad()
    def accuracy(self, inputs: Float[Tensor, "images 784"], labels: Int64[Tensor, " images"]) -> float:
        """Share of images classified right, in percent."""
        return 100 * (self(inputs).argmax(1) == labels).double().mean().item()


def standardised(images: UInt8[Tensor, "images 28 28"]) -> Float[Tensor, "images 784"]:
    """Images as the networks take them: flattened, in units of the training pixels' deviation around their mean."""
    return ((images.float() / 255 - PIXEL_MEAN) / PIXEL_DEVIATION).flatten(1)


def train(name: str, data: datasets.Dataset, *, seed: int = 0, epochs: int = 3) -> TinyMLP:
    """Trains network A or B on MNIST; initialisation and batches draw from streams of their own."""
    setting = _setting(name)
    network = TinyMLP(
        setting.hidden,
        generator=streams.generator(seed, "network initialisation"),
        first_layer_scale=setting.first_layer_scale,
    )
    inputs, labels = standardised(data.train_images), data.train_labels
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    order = streams.generator(seed, "network batches")
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=order).split(128):
            adam.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            adam.step()
    return network


def shipped(name: str) -> TinyMLP:
    """The trained network A or B that comes with the package. Raises `InvalidFile` if its file has changed."""
    setting = _setting(name)
    file = resources.files("planaria_lab") / "data" / "tinymlp" / f"{name.lower()}.safetensors"
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != setting.sha256:
        raise InvalidFile(f"The shipped network {name} has changed on disk ({file}). Install planaria again.")
    network = TinyMLP(setting.hidden, generator=streams.generator(0, "overwritten"))
    network.load_state_dict(load(content))
    return network


def _setting(name: str) -> Setting:
    if name not in NETWORKS:
        raise InvalidInput(f"Unknown network {name!r}. Networks are: {', '.join(NETWORKS)}.")
    return NETWORKS[name]
