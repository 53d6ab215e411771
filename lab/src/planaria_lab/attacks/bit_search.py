"""The few bits that hurt most, found one by one."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from planaria.damages.bits import Field, known_bits, positions_of
from planaria.dtypes import integers
from planaria.errors import InvalidInput
from planaria_lab.attacks.base import ObjectiveAttack
from planaria_lab.attacks.objective import Objective
from planaria_lab.attacks.victim import Victim, Weights, trainable, working


class BitSearch(ObjectiveAttack):
    """Progressive bit search: flips the bit that raises the loss most, again and again.

    The bit-flip attack of Rakin, He, Fan 2019 ("Bit-Flip Attack: Crushing Neural Network With Progressive Bit Search",
    section 4). For each flip: in every tensor the weights of largest gradient are looked at, and the flip that gains
    most to first order, gradient times change of the weight, is tried; the tensor whose trial raises the loss most
    keeps its flip. A weight may be flipped again, in another bit; a bit is not flipped back. The random control is
    `planaria.damages.BitFlip(count=...)`. What is found depends on the batch: a greedy search may settle on ruining
    one class.

    Differs from the paper: the change of the weight is that of its number format, so two's complement and IEEE floats
    are served alike; only flips that gain to first order are tried; and where the best trial of no tensor raises the
    loss, the next best of each are tried, not groups of several bits. The search ends early if none does: `count` is
    the most that flips.

    Floats: a flip that makes a weight infinite or not a number is never taken, nor one whose loss is not finite: the
    attacker wants wrong answers that look like answers. First-order gain is a poor guide to so large changes, the trial
    is what decides. Trials run in float32, so a float16 model may still overflow where it computes in float16.

    Args:
        count: how many bits to flip, 1 or more.
        bits: which may flip: "all"; "msb", the top bit; "sign", "exponent" or "mantissa", of floats only; or positions,
            0 being the lowest bit.
        candidates: how many weights of each tensor are looked at, those of largest gradient.
        objective: what to raise; by default the cross-entropy of the batch.
        names: as for `Attack`.

    Cost: a gradient and, for each tensor, one or a few runs of the batch a flip; memory for two copies of the weights.
    Raises `InvalidInput` on settings outside these ranges and, when applied, if a tensor's dtype lacks the bits.
    """

    def __init__(
        self,
        count: int = 10,
        *,
        bits: Field | Sequence[int] = "all",
        candidates: int = 10,
        objective: Objective | None = None,
        names: str | Sequence[str] | None = None,
    ):
        super().__init__(objective=objective, names=names)
        if count < 1 or candidates < 1:
            raise InvalidInput(f"Flips and candidates are 1 or more, not {count} and {candidates}.")
        self.count = count
        self.bits = known_bits(bits)
        self.candidates = candidates

    def _attacked(self, victim: Victim, generator: torch.Generator) -> Weights:
        self.objective.require(victim.labels, victim.classes)
        allowed = {name: positions_of(self.bits, stored.dtype) for name, stored in victim.stored.items()}
        stored = {name: tensor.clone() for name, tensor in victim.stored.items()}
        weights = trainable(victim.weights)
        for _ in range(self.count):
            reached = self._value(victim, weights)
            gradients = victim.gradients(reached, weights)
            flips = {
                name: self._flips(tensor, victim.stored[name], gradients[name], allowed[name])
                for name, tensor in stored.items()
            }
            best = self._best(victim, weights, flips, float(reached.detach()))
            if best is None:
                break
            name, index, new = best
            integers(stored[name]).view(-1)[index] = integers(new)
            with torch.no_grad():
                weights[name].view(-1)[index] = working(new)
        return stored

    def _flips(
        self, stored: Tensor, intact: Tensor, gradient: Tensor, allowed: Sequence[int]
    ) -> tuple[Int64[Tensor, " flips"], Shaped[Tensor, " flips"]]:
        """The positions and new values of the weights to try, best first."""
        slopes = gradient.flatten()
        top = slopes.abs().argsort(descending=True, stable=True)[: self.candidates]
        old = integers(stored).view(-1)[top]
        masks = torch.tensor([1 << bit if bit < 63 else -(1 << 63) for bit in allowed], device=old.device).to(old.dtype)
        new = (old[:, None] ^ masks).flatten()
        # A bit that differs from the intact model has been flipped already.
        fresh = ((old ^ integers(intact).view(-1)[top])[:, None] & masks).flatten() == 0
        index = top.repeat_interleave(len(masks))
        values = new.view(stored.dtype).double()
        gains = slopes[index].double() * (values - integers(stored).view(-1)[index].view(stored.dtype).double())
        order = gains.argsort(descending=True, stable=True)
        order = order[(fresh & values.isfinite() & (gains > 0))[order]]
        return index[order], new[order].view(stored.dtype)

    @torch.no_grad()
    def _best(
        self, victim: Victim, weights: Weights, flips: dict[str, tuple[Tensor, Tensor]], reached: float
    ) -> tuple[str, Tensor, Tensor] | None:
        """The flip, one of each tensor tried, that raises the objective most above what is reached; or none."""
        best = None
        for rank in range(max(len(index) for index, _ in flips.values())):
            for name, (index, new) in flips.items():
                if rank < len(index):
                    value = self._tried(victim, weights, name, index[rank], new[rank])
                    if reached < value < float("inf"):
                        best, reached = (name, index[rank], new[rank]), value
            if best is not None:
                return best
        return None

    def _tried(self, victim: Victim, weights: Weights, name: str, index: Tensor, new: Tensor) -> float:
        values = weights[name].view(-1)
        old = values[index].clone()
        values[index] = working(new)
        try:
            return float(self._value(victim, weights))
        finally:
            values[index] = old
