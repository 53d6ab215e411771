"""Four repairs that wrote garbage over weights that were right, or that the user had marked good."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planaria.damages import OnTensors, SetZero, StuckAt
from planaria.dtypes import integers
from planaria.guard import Guard, protect
from planaria.streams import generator
from planaria_lab.bench import tinymlp
from planaria_lab.datasets import digits, mnist_test
from referee.guards import with_parity

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """One repair. Accuracies in percent, of the damaged model and of the repaired one; `estimated` as reported."""

    good_changed: int
    right_made_wrong: int
    estimated: int
    before: float
    after: float


@dataclass(frozen=True)
class Reproduction:
    """What is protected, how, and what befalls it.

    Attributes:
        settings: of `protect`.
        check: symbols of each codeword of about `length` others. Guards of so few were made once.
        struck: patterns of the tensors that the damage strikes.
        masked: whether the repair is told exactly which weights are bad.
    """

    name: str
    model: Callable[[], tuple[Tensors, Callable[[Tensors], float]]]
    settings: tuple[tuple[str, float], ...]
    damage: SetZero | StuckAt
    struck: tuple[str, ...]
    masked: bool
    check: int
    length: int = 1024

    def play(self, seed: int) -> Run:
        """The repair of damage that `seed` draws."""
        intact, accuracy = self.model()
        damage = OnTensors(self.damage, names=self.struck)
        faults = damage.apply_to_model(intact, generator(seed, "reproduction damage"))
        damaged, known = faults.replay(intact), faults.known
        repaired = {name: tensor.clone() for name, tensor in damaged.items()}
        guard = _guard(self.model, self.settings, self.check, self.length)
        report = guard.repair(repaired, known=known if self.masked else None, threads=1)
        changed, wrong = (
            {name: integers(repaired[name]) != integers(other[name]) for name in intact} for other in (damaged, intact)
        )
        return Run(
            good_changed=sum(int((known[name] & changed[name]).sum()) for name in intact),
            right_made_wrong=sum(int((known[name] & wrong[name]).sum()) for name in intact),
            estimated=sum(tensor.estimated for tensor in report.tensors),
            before=accuracy(damaged),
            after=accuracy(repaired),
        )

    def intact(self) -> float:
        """Accuracy of the intact model, in percent."""
        tensors, accuracy = self.model()
        return accuracy(tensors)


@cache
def _guard(
    model: Callable[[], tuple[Tensors, Callable[[Tensors], float]]],
    settings: tuple[tuple[str, float], ...],
    check: int,
    length: int,
) -> Guard:
    tensors, _ = model()
    guard = protect(tensors, threads=1, **dict(settings))  # type: ignore[arg-type]
    return with_parity(guard, tensors, check=check, length=length)


@cache
def small_convolutional(hidden: int = 64) -> tuple[Tensors, Callable[[Tensors], float]]:
    """Trained on scikit-learn's digits for some seconds; about 98 % of its test images right."""
    data = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the initialiser of torch's layers takes no generator
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(512, hidden), nn.ReLU(), nn.Linear(hidden, 10),
        )  # fmt: skip
    train, test = (images.float()[:, None] / 8 - 1 for images in (data.train_images, data.test_images))
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    order = generator(0, "reproduction batches")
    for _ in range(20):
        for batch in torch.randperm(len(train), generator=order).split(64):
            adam.zero_grad()
            F.cross_entropy(network(train[batch]), data.train_labels[batch]).backward()
            adam.step()

    def accuracy(tensors: Tensors) -> float:
        with torch.no_grad():
            answers = torch.func.functional_call(network, tensors, (test,)).argmax(1)
        return 100 * float((answers == data.test_labels).double().mean())

    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}, accuracy


@cache
def network_a() -> tuple[Tensors, Callable[[Tensors], float]]:
    """The network that comes along, judged by every tenth of MNIST's test images."""
    network = tinymlp.shipped("A")
    images, labels = (part[::10] for part in mnist_test())
    inputs = tinymlp.standardised(images)

    def accuracy(tensors: Tensors) -> float:
        with torch.no_grad():
            answers = torch.func.functional_call(network, tensors, (inputs,)).argmax(1)
        return 100 * float((answers == labels).double().mean())

    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}, accuracy


MATRICES = ("*.weight",)
REPRODUCTIONS = (
    Reproduction(
        "small convolutional, expect .3, 10 % zeros, mask",
        small_convolutional, (("budget", 0.02), ("expect", 0.3)), SetZero(0.1), MATRICES, True, 2,
    ),
    Reproduction(
        "small convolutional, expect .5, 10 % zeros, mask",
        small_convolutional, (("budget", 0.02), ("expect", 0.5)), SetZero(0.1), MATRICES, True, 2,
    ),
    Reproduction(
        "network A, 1 %, 5 % of FC1 stuck, mask",
        network_a, (("budget", 0.01),), StuckAt(0.05 / 32, value=1), ("fc1.weight",), True, 4, 9300,
    ),
    Reproduction(
        "network A, 1 %, 5 % of FC1 stuck, no mask",
        network_a, (("budget", 0.01),), StuckAt(0.05 / 32, value=1), ("fc1.weight",), False, 4, 9300,
    ),
)  # fmt: skip
