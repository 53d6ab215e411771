"""What an attack is after: which inputs are to go wrong, how, and what is to stay right."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from planaria.errors import InvalidInput


@dataclass(frozen=True)
class Objective:
    """A number that an attack raises, from the model's answers to a batch.

    The plain objective is the cross-entropy of all inputs (untargeted). The others are those of T-BFA (Rakin et al.
    2021, section 4): every input to one class (`target`), the inputs of one class to another (`source`, `target`), and
    the latter while the other inputs keep their answers (`stealth`).

    Attributes:
        target: the class that attacked inputs shall get; none means any wrong one.
        source: only inputs of this class are attacked; none means all.
        stealth: weight, 0 or more, of the cross-entropy of the inputs that are not attacked, which is subtracted. The
            paper's stealthy attack has 1. It needs a source: else no input is left to keep.

    Raises:
        InvalidInput: on a negative class, a source that is the target, or a stealth that is negative, not finite or
            without a source.
    """

    target: int | None = None
    source: int | None = None
    stealth: float = 0.0

    def __post_init__(self) -> None:
        if min(self.target or 0, self.source or 0) < 0:
            raise InvalidInput(f"Classes are 0 or more, not target {self.target} and source {self.source}.")
        if self.target is not None and self.target == self.source:
            raise InvalidInput(f"Class {self.source} cannot be turned into itself. Choose another source or target.")
        if not 0 <= self.stealth < float("inf"):
            raise InvalidInput(f"Stealth is a finite weight of 0 or more, not {self.stealth}.")
        if self.stealth and self.source is None:
            raise InvalidInput("Stealth keeps the inputs that are not attacked: name the source class that is.")

    def require(self, labels: Int64[Tensor, " batch"], classes: int) -> None:
        """Raises `InvalidInput` unless a batch with these labels can show whether the objective is reached."""
        for name, chosen in (("target", self.target), ("source", self.source)):
            if chosen is not None and chosen >= classes:
                raise InvalidInput(f"The model knows classes 0 to {classes - 1}; the {name} is {chosen}.")
        attacked = self._attacked(labels)
        if not attacked.any():
            raise InvalidInput(f"No input of the batch has class {self.source}, the source. Add some.")
        if self.stealth and attacked.all():
            raise InvalidInput(f"Every input of the batch has class {self.source}: none is left to keep. Add others.")

    def value(self, outputs: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, ""]:
        """How far the objective is reached; higher is better for the attacker. Differentiable."""
        attacked = self._attacked(labels)
        if self.target is None:
            reached = F.cross_entropy(outputs[attacked], labels[attacked])
        else:
            reached = -F.cross_entropy(outputs[attacked], torch.full_like(labels[attacked], self.target))
        if self.stealth:
            reached = reached - self.stealth * F.cross_entropy(outputs[~attacked], labels[~attacked])
        return reached

    def _attacked(self, labels: Tensor) -> Tensor:
        return torch.ones_like(labels, dtype=torch.bool) if self.source is None else labels == self.source
