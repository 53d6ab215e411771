"""A small convolutional network over MNIST images; a trained one ships with the package."""

import hashlib
from importlib import resources

import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

from planaria import streams
from planaria.errors import InvalidFile
from planaria_lab import datasets
from planaria_lab.bench import tinymlp
from planaria_lab.bench.unset import unset

SHA256 = "3bb42a6b96fde9617c76e2e3d27cbc858a51e89c248e0b02853893452b8caeb9"
"""Of the shipped file."""


class ConvNet(nn.Module):
    """Two 5x5 convolutions of 16 and 32 channels, each with ReLU and 2x2 pooling, then linear layers 512-32-10.

    29,904 weights beside 90 biases, drawn from `generator` as PyTorch's default does: uniform in +-1/sqrt(inputs).
    """

    def __init__(self, *, generator: torch.Generator):
        super().__init__()
        self.conv1 = unset(nn.Conv2d, 1, 16, 5)
        self.conv2 = unset(nn.Conv2d, 16, 32, 5)
        self.fc1 = unset(nn.Linear, 512, 32)
        self.fc2 = unset(nn.Linear, 32, 10)
        with torch.no_grad():
            for layer in (self.conv1, self.conv2, self.fc1, self.fc2):
                bound = layer.weight[0].numel() ** -0.5
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, inputs: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10"]:
        for layer in (self.conv1, self.conv2):
            inputs = torch.relu(_pooled(layer(inputs)))
        outputs: Tensor = self.fc2(torch.relu(self.fc1(inputs.flatten(1))))
        return outputs


def _pooled(
    maps: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels half_height half_width"]:
    """The largest of each 2x2 pixels. On a CPU twice as fast as `max_pool2d`, and a judge asks thousands of times."""
    columns = torch.maximum(maps[..., ::2], maps[..., 1::2])
    return torch.maximum(columns[..., ::2, :], columns[..., 1::2, :])


def images_in(images: Tensor) -> Float[Tensor, "images 1 28 28"]:
    """Images as the network takes them: in units of the training pixels' deviation around their mean."""
    return tinymlp.standardised(images).view(-1, 1, 28, 28)


def train(data: datasets.Dataset, *, seed: int = 0, epochs: int = 4) -> ConvNet:
    """Trains on MNIST by Adam, batch 128, the rate falling from 2e-3; drawn from streams of its own."""
    network = ConvNet(generator=streams.generator(seed, "convolutional network initialisation"))
    inputs, labels = images_in(data.train_images), data.train_labels
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * -(-len(inputs) // 128))
    order = streams.generator(seed, "convolutional network batches")
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=order).split(128):
            adam.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            adam.step()
            falling.step()
    return network


def shipped() -> ConvNet:
    """The trained network that comes with the package. Raises `InvalidFile` if its file has changed."""
    file = resources.files("planaria_lab") / "data" / "convnet" / "mnist.safetensors"
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InvalidFile(f"The shipped convolutional network has changed on disk ({file}). Install planaria again.")
    network = ConvNet(generator=streams.generator(0, "overwritten"))
    network.load_state_dict(load(content))
    return network
