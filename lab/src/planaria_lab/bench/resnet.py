"""A residual network over MNIST images whose weights are int8; a trained one ships with the package."""

import hashlib
from importlib import resources

import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from planaria import streams
from planaria.errors import InvalidFile
from planaria_lab import datasets
from planaria_lab.bench.frontier.convnet import images_in
from planaria_lab.bench.int8 import quantised
from planaria_lab.bench.unset import unset

SHA256 = "f3dd820fbf8cf20bf91705c434354d9be83a60648ef976c12d5a7edbb5f3c6c8"
"""Of the shipped file."""


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, beside a shortcut without weights (He et al. 2016, option A).

    Where the stride is 2, the shortcut takes every other pixel and has zeros for the new channels.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int):
        super().__init__()
        self.conv1 = unset(nn.Conv2d, inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = unset(nn.Conv2d, outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        maps = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(inputs)))))
        shortcut = inputs[:, :, :: self.stride, :: self.stride]
        added = maps.shape[1] - shortcut.shape[1]
        return torch.relu(maps + F.pad(shortcut, (0, 0, 0, 0, 0, added)))


class ResNet20(nn.Module):
    """ResNet-20 in its form for small images: three stages of three blocks, of 16, 32 and 64 channels.

    He, Zhang, Ren, Sun 2016, section 4.2, with 268,048 weights. Unlike there, images have one channel and the first
    convolution has stride 2, so that stages work on 14x14, 7x7 and 4x4 pixels: 28x28 digits need no more, and an attack
    that asks the network hundreds of times is four times as fast.

    Convolutions are drawn from `generator`: normal, of variance 2 / (9 outputs).
    """

    def __init__(self, *, generator: torch.Generator):
        super().__init__()
        self.conv = unset(nn.Conv2d, 1, 16, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1)]
        widths += [(32, 64, 2), (64, 64, 1), (64, 64, 1)]
        self.blocks = nn.Sequential(*(Block(inputs, outputs, stride=stride) for inputs, outputs, stride in widths))
        self.fc = unset(nn.Linear, 64, 10)
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.normal_(0, (2 / (9 * layer.out_channels)) ** 0.5, generator=generator)
            self.fc.weight.uniform_(-0.125, 0.125, generator=generator)  # 1 / sqrt(64), as PyTorch's default
            self.fc.bias.uniform_(-0.125, 0.125, generator=generator)

    def forward(self, inputs: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10"]:
        maps = self.blocks(torch.relu(self.bn(self.conv(inputs))))
        outputs: Tensor = self.fc(maps.mean((2, 3)))
        return outputs


def train(data: datasets.Dataset, *, seed: int = 0, epochs: int = 4) -> ResNet20:
    """Trains on MNIST, before quantisation: momentum .9, batch 128, the rate falling from .1 by a cosine.

    Less than a minute an epoch on one core.
    """
    network = ResNet20(generator=streams.generator(seed, "residual network initialisation"))
    inputs, labels = images_in(data.train_images), data.train_labels
    descent = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(descent, epochs * -(-len(inputs) // 128))
    order = streams.generator(seed, "residual network batches")
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=order).split(128):
            descent.zero_grad()
            F.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            descent.step()
            falling.step()
    return network.eval()


def shipped() -> nn.Module:
    """The trained int8 network that comes with the package, in evaluation mode. Raises `InvalidFile` if it changed."""
    file = resources.files("planaria_lab") / "data" / "resnet" / "mnist_int8.safetensors"
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InvalidFile(f"The shipped residual network has changed on disk ({file}). Install planaria again.")
    network = quantised(ResNet20(generator=streams.generator(0, "overwritten")))
    network.load_state_dict(load(content))
    return network.eval()
