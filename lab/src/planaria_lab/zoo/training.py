"""Training many networks in one go."""

from collections.abc import Callable, Sequence
from math import ceil, cos, pi

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from planaria import streams
from planaria.errors import InvalidInput
from planaria_lab.zoo.architectures import Architecture
from planaria_lab.zoo.recipe import TrainingRecipe

BATCH = 128  # images a step and network
PIECE = 1000  # images that are answered at a time
MOMENTUM, SECOND, EPSILON = 0.9, 0.999, 1e-8
Stack = dict[str, Float[Tensor, "networks ..."]]


def initial_stack(
    architecture: Architecture, recipes: Sequence[TrainingRecipe], *, seed: int, first: int, shared: bool
) -> Stack:
    """The networks before training; `first` is the number of the first of them in the zoo.

    Args:
        shared: whether all start from the same numbers. Then the mean network is nearly the answer to any damage: an
            easy control, and no measure of a repairer.
    """
    drawn = [
        architecture.drawn(streams.generator(seed, f"zoo network {0 if shared else first + at}"), recipe.initial_scale)
        for at, recipe in enumerate(recipes)
    ]
    return {name: torch.stack([one[name] for one in drawn]) for name in architecture.shapes}


def train_together(
    architecture: Architecture,
    recipes: Sequence[TrainingRecipe],
    images: Float[Tensor, "images pixels"],
    labels: Int64[Tensor, " images"],
    *,
    seed: int,
    first: int = 0,
    shared: bool = False,
    device: torch.device | str = "cpu",
    told: Callable[[int, int], None] = lambda step, steps: None,
) -> Stack:
    """Networks of one architecture, each after its own recipe and on batches of its own.

    A network that is done keeps its weights while others go on. The same seed and numbers give the same networks,
    whatever else is trained beside them, up to the rounding of matrix products.

    Args:
        first: number of the first network in the zoo: initialisation and batches depend on the numbers.
        shared: as of `initial_stack`.
        told: called with (step, steps) after each.

    Cost: one forward and backward pass of all networks a step; memory, about six times the weights and
    `len(recipes) * 128` images.

    Raises:
        InvalidInput: without recipes or images.
    """
    if not recipes or not len(images):
        raise InvalidInput(f"Training takes one network and one image or more, not {len(recipes)} and {len(images)}.")
    stack = initial_stack(architecture, recipes, seed=seed, first=first, shared=shared)
    stack = {name: tensor.to(device).requires_grad_() for name, tensor in stack.items()}
    images, labels = images.to(device), labels.to(device)
    means = {name: torch.zeros_like(tensor) for name, tensor in stack.items()}
    squares = {name: torch.zeros_like(tensor) for name, tensor in stack.items()}
    draws = [streams.generator(seed, f"zoo batches {first + at}") for at in range(len(recipes))]
    lengths = [max(1, ceil(recipe.epochs * len(images) / BATCH)) for recipe in recipes]
    decays = torch.tensor([recipe.weight_decay for recipe in recipes], device=device)
    adam = torch.tensor([recipe.optimiser == "adam" for recipe in recipes], device=device)
    for step in range(max(lengths)):
        batch = torch.stack([torch.randint(len(images), (BATCH,), generator=draw) for draw in draws]).to(device)
        logits = architecture.answers(stack, images[batch])
        losses = F.cross_entropy(logits.flatten(0, 1), labels[batch].flatten(), reduction="none")
        gradients = torch.autograd.grad(losses.view(len(recipes), BATCH).mean(1).sum(), list(stack.values()))
        rates = torch.tensor(
            [
                recipe.learning_rate * (1 + cos(pi * min(step / length, 1.0))) / 2
                for recipe, length in zip(recipes, lengths, strict=True)
            ],
            device=device,
        )
        with torch.no_grad():
            for (name, weight), gradient in zip(stack.items(), gradients, strict=True):
                shape = (-1, *[1] * (weight.dim() - 1))
                rate, decay, is_adam = rates.view(shape), decays.view(shape), adam.view(shape)
                means[name].mul_(MOMENTUM).add_(torch.where(is_adam, (1 - MOMENTUM) * gradient, gradient))
                squares[name].mul_(SECOND).addcmul_(gradient, gradient, value=1 - SECOND)
                scaled = means[name] / (1 - MOMENTUM ** (step + 1))
                scaled /= (squares[name] / (1 - SECOND ** (step + 1))).sqrt() + EPSILON
                weight -= rate * (torch.where(is_adam, scaled, means[name]) + decay * weight)
        told(step + 1, max(lengths))
    return {name: tensor.detach().cpu() for name, tensor in stack.items()}


@torch.no_grad()
def accuracies(
    architecture: Architecture,
    stack: Stack,
    images: Float[Tensor, "images pixels"],
    labels: Int64[Tensor, " images"],
) -> Float[Tensor, " networks"]:
    """Share of images that each network classifies right; 0 where its answers are no numbers."""
    networks = next(iter(stack.values())).shape[0]
    right = torch.zeros(networks, dtype=torch.float64)
    for some, truth in zip(images.split(PIECE), labels.split(PIECE), strict=True):
        logits = architecture.answers(stack, some.expand(networks, *some.shape))
        sound = logits.isfinite().all(2)
        right += ((logits.argmax(2) == truth) & sound).sum(1)
    return right / len(images)
