"""What learned repairers of networks share: units of weights, losses, and the loop that trains them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from planaria import streams
from planaria.errors import InvalidInput
from planaria_lab.network_repairers.base import Masks, Progress, Stack
from planaria_lab.network_repairers.chain import Chain
from planaria_lab.zoo import Architecture

LEAST_DAMAGE, MOST_DAMAGE = 0.05, 0.95
INPUTS = 64  # of a step's behavioural loss
LARGEST_STEP = 1.0  # norm of a gradient
WARM_UP = 50  # steps over which the rate rises


@dataclass(frozen=True)
class Behaviour:
    """A loss that follows the function: divergence of the repaired network's answers from the intact network's.

    Mixed with the error of weights, it is what makes repaired networks agree with intact ones (Meynent et al. 2025,
    "Structure is not enough").

    Attributes:
        architecture: how networks answer.
        inputs: unlabelled, as the networks take them. None of those that the repair is measured on.
        share: of the whole loss, in [0, 1].

    Raises `InvalidInput` without inputs or on another share.
    """

    architecture: Architecture
    inputs: Float[Tensor, "inputs pixels"]
    share: float = 0.5

    def __post_init__(self) -> None:
        if not len(self.inputs) or not 0 <= self.share <= 1:
            raise InvalidInput(
                f"Behaviour needs inputs and a share in [0, 1], not {len(self.inputs)} and {self.share}."
            )

    def divergence(self, intact: Stack, repaired: Stack, generator: torch.Generator) -> Float[Tensor, ""]:
        """Kullback-Leibler divergence in nats, on some inputs drawn for each network."""
        count = len(next(iter(intact.values())))
        some = self.inputs[torch.randint(len(self.inputs), (count, INPUTS), generator=generator)]
        with torch.no_grad():
            right = self.architecture.answers(intact, some)
        return divergence(self.architecture.answers(repaired, some), right)


def divergence(given: Float[Tensor, "*inputs classes"], right: Float[Tensor, "*inputs classes"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of answers from the right ones, both logits, in nats, averaged over inputs."""
    return F.kl_div(given.log_softmax(-1), right.log_softmax(-1), reduction="none", log_target=True).sum(-1).mean()


class Units(nn.Module):
    """Mean and deviation of weights that play the same part, whatever the order of hidden neurons."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in stack.items()})
        hidden: dict[str, tuple[int, ...]] = {
            chain.weights[0]: (0, 1),
            chain.weights[-1]: (0, 2),
            chain.biases[-1]: (0,),
        }
        self.of: dict[str, tuple[Tensor, Tensor]] = {}
        self.variances: dict[str, float] = {}
        for name, tensor in stack.items():
            axes = hidden.get(name, tuple(range(tensor.dim())))
            self.variances[name] = max(float(tensor.var(correction=0)), 1e-12)
            spread = tensor.std(axes, correction=0, keepdim=True).clamp_min(1e-2 * self.variances[name] ** 0.5)
            self.of[name] = tensor.mean(axes, keepdim=True), spread

    def into(self, stack: Mapping[str, Tensor]) -> Stack:
        return {name: (tensor - self.of[name][0]) / self.of[name][1] for name, tensor in stack.items()}

    def out_of(self, stack: Mapping[str, Tensor]) -> Stack:
        return {name: tensor * self.of[name][1] + self.of[name][0] for name, tensor in stack.items()}

    def error(self, repaired: Stack, intact: Stack, known: Masks) -> Float[Tensor, ""]:
        """Mean squared error of missing weights, in units of each tensor's variance."""
        total = [
            ((repaired[name] - tensor).square() * ~known[name]).sum() / self.variances[name]
            for name, tensor in intact.items()
        ]
        missing = sum(int((~mask).sum()) for mask in known.values())
        return torch.stack(total).sum() / max(missing, 1)


@dataclass(frozen=True)
class FittingObjective:
    """What a repairer is trained for: the error of missing weights, mixed with that of behaviour if there is one."""

    units: Units
    behaviour: Behaviour | None

    def __call__(self, intact: Stack, known: Masks, told: Stack, generator: torch.Generator) -> Float[Tensor, ""]:
        """The loss of networks whose missing weights are as told."""
        repaired = {name: torch.where(known[name], tensor, told[name]) for name, tensor in intact.items()}
        error = self.units.error(repaired, intact, known)
        if self.behaviour is None:
            return error
        divergence = self.behaviour.divergence(intact, repaired, generator)
        return error + self.behaviour.share * (divergence - error)


def drawn_masks(stack: Stack, generator: torch.Generator) -> dict[str, Tensor]:
    """Scattered damage, of another share for each network."""
    count = len(next(iter(stack.values())))
    shares = LEAST_DAMAGE + (MOST_DAMAGE - LEAST_DAMAGE) * torch.rand(count, generator=generator)
    return {
        name: torch.rand(tensor.shape, generator=generator) >= shares.view(-1, *[1] * (tensor.dim() - 1))
        for name, tensor in stack.items()
    }


@contextmanager
def drawn_parameters(seed: int, name: str) -> Iterator[None]:
    """Modules made inside are initialised from this seed, and nobody else's random numbers change."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(streams.generator(seed, name).get_state())
        yield


def fit(
    module: nn.Module,
    examples: Callable[[torch.Generator], tuple[Stack, Masks, tuple[Stack, ...]]],
    objective: FittingObjective,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
) -> None:
    """Trains a module that maps visible weights, masks and whatever else comes with them to repaired networks.

    AdamW (Loshchilov and Hutter 2019), its rate falling along half a cosine.

    Args:
        examples: draws intact networks, what of them is known, and what else the module is told.
    """
    generator = streams.generator(seed, "network repair examples")
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=1e-2)
    module.train()
    for step in range(steps):
        intact, known, others = examples(generator)
        visible = {name: torch.where(known[name], tensor, 0.0) for name, tensor in intact.items()}
        loss = objective(intact, known, module(visible, known, *others), generator)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 + cos(pi * step / steps)) / 2 * min(1.0, (step + 1) / WARM_UP)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), LARGEST_STEP)
        optimiser.step()
        progress(step + 1, steps, f"loss {loss.item():.4f}")
    module.eval()
