"""An attacker who knows the detector stays below its threshold."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.attacks.objective import Objective
from planaria_lab.attacks.pgd import PGD, Norm
from planaria_lab.attacks.victim import Victim, Weights

Room = Callable[[str, Shaped[Tensor, "*weight"]], Float[Tensor, "*weight"]]
"""From a tensor's name and its stored values to how far each of them may move without being noticed."""


class ResidualAware(PGD):
    """`PGD` that moves each weight only as far as a detector will not notice.

    An adaptive attack: the detector and its threshold are known to the attacker (Carlini and Wagner 2017, "Adversarial
    Examples Are Not Easily Detected"; Tramer et al. 2020), and every step is projected to stay below. Like the budget,
    the room holds exactly in the stored numbers. A detector that predicts weights from their neighbours must be
    answered with the room that is left when the neighbours move too.

    Args:
        budget, norm, steps, count, random_start, objective, names: as for `PGD`.
        room: the tensor's name and its stored values come in; how far each weight may move goes out: a tensor of its
            shape, 0 or more, infinite where nothing is noticed. Of int8 weights it is in steps.

    Raises `InvalidInput` as `PGD` does, and if a room is negative, not a number or of another shape.
    """

    def __init__(
        self,
        budget: float,
        *,
        room: Room,
        norm: Norm = "linf",
        steps: int = 10,
        count: int | None = None,
        random_start: bool = False,
        objective: Objective | None = None,
        names: str | Sequence[str] | None = None,
    ):
        super().__init__(
            budget,
            norm=norm,
            steps=steps,
            count=count,
            random_start=random_start,
            objective=objective,
            names=names,
        )
        self.room = room

    def _rooms(self, victim: Victim) -> Weights:
        rooms = super()._rooms(victim)
        for name, stored in victim.stored.items():
            room = torch.as_tensor(self.room(name, stored.clone()), dtype=torch.float64)
            if room.shape != stored.shape or not (room >= 0).all():
                raise InvalidInput(
                    f"The room of tensor {name!r} must be 0 or more for each of its weights, in shape "
                    f"{tuple(stored.shape)}; it has shape {tuple(room.shape)}."
                )
            rooms[name] = torch.minimum(rooms[name], room.to(stored.device))
        return rooms
