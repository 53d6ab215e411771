"""One step along the sign of the gradient."""

from collections.abc import Sequence
from typing import Literal

from planaria_lab.attacks.objective import Objective
from planaria_lab.attacks.pgd import PGD


class FGSM(PGD):
    """Moves every weight by the whole budget at once, along the sign of its gradient.

    The fast gradient sign method (Goodfellow, Shlens, Szegedy 2015, section 4), on weights instead of inputs, with the
    budget of each layer relative to its own size as in `PGD`. Under "l2" the step follows the gradient itself.
    """

    def __init__(
        self,
        budget: float,
        *,
        norm: Literal["linf", "l2"] = "linf",
        objective: Objective | None = None,
        names: str | Sequence[str] | None = None,
    ):
        super().__init__(budget, norm=norm, steps=1, objective=objective, names=names)
