"""Weights move as far as the residual detector lets them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from planaria.detectors import Residual
from planaria.errors import InvalidInput
from planaria.layouts import Flat, Sheet
from planaria.records import Record
from planaria_lab.attacks import Objective, ResidualAware
from planaria_lab.attacks.pgd import Norm
from planaria_lab.attacks.rounding import nearest
from planaria_lab.attacks.victim import Victim, Weights
from planaria_lab.repairers import Kriging

INSIDE = 0.999  # of the way to the limit: predictions are rounded
ROUNDS = 6  # of shrinking; what the detector still sees before the last is given up


class BelowResidual(ResidualAware):
    """`ResidualAware` against the defence `ResidualRepair`: the residual detector names none of the attacked weights.

    The attacker has the detector, its record and so its limit. Each weight may move by a share of what its own miss
    leaves below the limit, and not beyond the intact range. Since its neighbours move too, and with them its
    prediction, the change is then shrunk, sheet by sheet (on the flat layout as a whole), until every miss is below the
    limit: predictions are linear in the weights, so a miss grows at most evenly on the way from the intact tensor to
    the attacked one.

    Args:
        budget, norm, steps, objective: as for `PGD`.
        spaces: as for `ResidualRepair`: by tensor, the axes that each neuron's inputs end with; an empty row for none.
            These tensors are attacked, and no others.
        share: of what is left below the limit that each weight may move by, in (0, 1].
        rate: of false alarms that the detector allows itself.

    Cost: that of `PGD`, and two or three passes of the detector; two more the first time in a process. Raises
    `InvalidInput` as `PGD` does, without spaces, on another share, and on a tensor that is not floating.
    """

    def __init__(
        self,
        budget: float,
        *,
        spaces: Mapping[str, Sequence[int]],
        norm: Norm = "linf",
        steps: int = 10,
        share: float = 0.5,
        rate: float = 0.0,
        objective: Objective | None = None,
    ):
        if not isinstance(spaces, Mapping) or not spaces:
            raise InvalidInput(f'Spaces are by tensor, such as spaces."fc1.weight" = [28, 28]; not {spaces!r}.')
        if not 0 < share <= 1:
            raise InvalidInput(f"The share of the room that is used lies in (0, 1], not {share}.")
        super().__init__(budget, room=self._room, norm=norm, steps=steps, objective=objective, names=list(spaces))
        self.spaces = {name: tuple(space) for name, space in spaces.items()}
        self.share = share
        self.rate = rate

    def _room(self, name: str, stored: Shaped[Tensor, "*weight"]) -> Float[Tensor, "*weight"]:
        """How far each weight may move while the others stay."""
        _, record, misses = self._known_of(name, stored)
        low, high = record["range"].double()
        weight = stored.double()
        room = self.share * (record["limits"].double()[0] - misses)
        return torch.minimum(room, torch.minimum(weight - low, high - weight)).clamp_min(0)

    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        attacked = super()._attacked(victim, generator)
        return {name: self._hidden(name, victim.stored[name], weight) for name, weight in attacked.items()}

    def _hidden(self, name: str, stored: Tensor, attacked: Tensor) -> Tensor:
        """The attacked tensor, brought back towards the intact one as far as the detector demands."""
        detector, record, misses = self._known_of(name, stored)
        limit = record["limits"].double()[0]
        way = attacked.double() - stored.double()
        for tried in range(ROUNDS):
            now = nearest(stored.double() + way, stored.dtype)
            found = detector.scores(now, record).double()
            over = (found > limit) & (misses <= limit)  # the others are false alarms of the detector's own
            if not over.any():
                return now
            part = torch.where(over, (limit - misses) / (found - misses), 1.0)
            apart = part.flatten(1).amin(1) if self.spaces[name] else part.amin().expand(len(part))
            shrunk = INSIDE * apart if tried < ROUNDS - 2 else torch.zeros_like(apart)
            way = way * torch.where(apart < 1, shrunk, 1.0).view(-1, *[1] * (way.dim() - 1))
        return stored

    def _known_of(self, name: str, stored: Tensor) -> tuple[Residual, Record, Tensor]:
        if not stored.is_floating_point():
            raise InvalidInput(f"The residual detector takes floating weights; {name!r} is {stored.dtype}. Leave it.")
        content = stored.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return _prepared(content, tuple(stored.shape), stored.dtype, self.spaces[name], self.rate)


@lru_cache(maxsize=4)
def _prepared(
    content: bytes, shape: tuple[int, ...], dtype: torch.dtype, space: tuple[int, ...], rate: float
) -> tuple[Residual, Record, Tensor]:
    """The detector of the defence, its record, and how far the intact weights are from their predictions."""
    weight = torch.frombuffer(bytearray(content), dtype=dtype).view(shape)
    detector = Residual(Kriging(Sheet(space) if space else Flat()), rate=rate)
    record = detector.prepare(weight)
    return detector, record, detector.scores(weight, record).double()
