"""The update that rules are learned by."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def descent(parameters: Sequence[Tensor], *, rate: float, iterations: int) -> Callable[[Tensor], None]:
    """What takes a step down a loss: Adam, each gradient tensor divided by its norm (Mordvintsev et al. 2020).

    Its rate rises to `rate` over the first tenth of the iterations and falls to 0 (one-cycle, Smith 2018).
    """
    adam = torch.optim.Adam(parameters, lr=rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=iterations + 1, pct_start=0.1)

    def step(loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= parameter.grad.norm() + 1e-8
        adam.step()
        cycle.step()

    return step
