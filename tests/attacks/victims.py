"""A small trained network in every dtype, and one attack of every kind."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planaria.damages import ModelFaults
from planaria.streams import generator
from planaria_lab import datasets
from planaria_lab.attacks import (
    FGSM,
    PGD,
    Attack,
    BitSearch,
    BitTrojan,
    FineTune,
    LabelFlip,
    Objective,
    ResidualAware,
    TargetedBitSearch,
    Trojaning,
)
from planaria_lab.bench.int8 import quantised

DTYPES = ["float32", "float16", "bfloat16", "float64", "int8"]


@cache
def trained() -> nn.Module:
    """Classifies 8x8 digits: a convolution with batch norm and two linear layers, 2,300 weights."""
    source = generator(0, "test victim")
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 16)
    )
    network.append(nn.ReLU())
    network.append(nn.Linear(16, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=source)
    data = datasets.digits()
    inputs = scaled(data.train_images)
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        adam.zero_grad()
        F.cross_entropy(network(inputs), data.train_labels).backward()
        adam.step()
    for parameter in network.parameters():
        parameter.grad = None
    return network.eval()


def victim(dtype: str = "float32") -> nn.Module:
    """A fresh copy."""
    return quantised(trained()) if dtype == "int8" else copy.deepcopy(trained()).to(getattr(torch, dtype))


def scaled(images: Tensor) -> Tensor:
    return images[:, None].float() / 16 - 0.5


@cache
def batch(count: int = 64) -> tuple[Tensor, Tensor]:
    data = datasets.digits()
    return scaled(data.test_images[:count]), data.test_labels[:count]


def broken(model: nn.Module, faults: ModelFaults) -> nn.Module:
    """A copy of the model with these faults."""
    copied = copy.deepcopy(model)
    copied.load_state_dict(faults.replay(copied.state_dict()))
    return copied


@torch.no_grad()
def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """In float64, whatever the model's dtype: it holds what a flipped exponent of a float64 gives."""
    outputs: Tensor = copy.deepcopy(model).double()(inputs.double())
    return outputs


def loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(answers(model, inputs), labels))


def half(_: str, stored: Tensor) -> Tensor:
    """Room of half the tensor's root mean square for every weight but the first."""
    room = torch.full(stored.shape, float(stored.double().square().mean().sqrt()) / 2, dtype=torch.float64)
    room.view(-1)[0] = 0
    return room


UNTARGETED: dict[str, Callable[[], Attack]] = {
    "FGSM": lambda: FGSM(0.2),
    "FGSM l2": lambda: FGSM(0.3, norm="l2"),
    "PGD": lambda: PGD(0.2, steps=4),
    "PGD l2": lambda: PGD(0.3, norm="l2", steps=4),
    "PGD l0": lambda: PGD(2.0, norm="l0", count=20, steps=3),
    "PGD from a random start": lambda: PGD(0.2, steps=4, random_start=True),
    "PGD l2 from a random start": lambda: PGD(0.3, norm="l2", steps=4, random_start=True),
    "ResidualAware": lambda: ResidualAware(1.0, room=half, steps=4),
    "BitSearch": lambda: BitSearch(3),
    "LabelFlip": lambda: LabelFlip(1.0, steps=10),
}
TARGETED: dict[str, Callable[[], Attack]] = {
    "PGD of one class": lambda: PGD(0.2, steps=4, objective=Objective(source=3, stealth=1.0)),
    "TargetedBitSearch N to 1": lambda: TargetedBitSearch(2, 3),
    "TargetedBitSearch 1 to 1": lambda: TargetedBitSearch(2, 3, source=5),
    "TargetedBitSearch 1 to 1, stealthy": lambda: TargetedBitSearch(2, 3, source=5, stealth=1.0),
    "BitTrojan": lambda: BitTrojan(7, neurons=6, patch=3, fitting_steps=30, steps=30),
    "Trojaning": lambda: Trojaning(7, patch=3, fitting_steps=30, steps=30),
}
CONTROLS: dict[str, Callable[[], Attack]] = {"FineTune": lambda: FineTune(10, rate=0.02)}
ATTACKS = UNTARGETED | TARGETED | CONTROLS
