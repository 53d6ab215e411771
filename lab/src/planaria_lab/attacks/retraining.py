"""Training as an attacker does it: some tensors, a few hundred steps, on the labels the attacker wants."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from planaria_lab.attacks.victim import Victim, Weights, trainable

BATCH = 128


def retrained(
    victim: Victim,
    names: list[str],
    loss: Callable[[Weights, Int64[Tensor, " rows"]], Float[Tensor, ""]],
    *,
    steps: int,
    rate: float,
    generator: torch.Generator,
    allowed: dict[str, Tensor] | None = None,
) -> Weights:
    """The named tensors after `steps` of Adam on `loss`, which is given them and the rows of the batch to use.

    Each tensor learns at `rate` times its own root mean square, so that int8 steps and floats are served alike. Batches
    of up to 128 are drawn from the generator, each row once before any is drawn again. Where `allowed` is False a
    weight stays as it is.
    """
    weights = trainable({name: victim.weights[name] for name in names})
    adam = torch.optim.Adam(
        [{"params": [weight], "lr": rate * _size(weight), "eps": 1e-12} for weight in weights.values()]
    )
    rows = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(rows) == 0:
            rows = torch.randperm(len(victim.inputs), generator=generator)
        batch, rows = rows[:BATCH], rows[BATCH:]
        gradients = victim.gradients(loss(weights, batch.to(victim.inputs.device)), weights)
        for name, weight in weights.items():
            weight.grad = gradients[name] if allowed is None else gradients[name] * allowed[name]
        adam.step()
    return {name: weight.detach() for name, weight in weights.items()}


def _size(weight: Tensor) -> float:
    return float(weight.detach().double().square().mean().sqrt().clamp_min(1e-12))
