"""The contract of a damage, and the two things that damages of bits and bytes share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Int64, Integer, Shaped
from torch import Tensor

from planaria.damages.faults import Faults, integers
from planaria.damages.model_faults import ModelFaults
from planaria.errors import InvalidInput


class Damage(ABC):
    """A named way to break weights.

    `apply` leaves its input alone and answers with a broken copy and the exact list of what it broke, which replays on
    any copy of the tensor and saves to a file. `apply_to_model` lists the faults of all tensors of a model, and makes
    no copies.
    """

    @abstractmethod
    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        """A damaged copy of `weight`, and its faults. The same generator state gives the same faults."""

    def apply_to_model(self, tensors: Mapping[str, Shaped[Tensor, "..."]], generator: torch.Generator) -> ModelFaults:
        """The faults of all tensors. Unless a damage says otherwise, each tensor is broken by itself, in order.

        Cost: memory for the faults and one tensor, if `tensors` loads them one at a time.
        """
        return ModelFaults({name: self.apply(tensors[name], generator)[1] for name in tensors})


class JointDamage(Damage):
    """Damage drawn over all tensors together, as if laid end to end; one tensor is a model of one.

    It strikes places (bits, bytes or whole weights) of tensors of any dtype and shape. Subclasses say how many a weight
    has, which of all of them are struck, and what a weight then holds.
    """

    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        faults = self.apply_to_model({"weight": weight}, generator).tensors["weight"]
        return faults.replay(weight), faults

    def apply_to_model(self, tensors: Mapping[str, Shaped[Tensor, "..."]], generator: torch.Generator) -> ModelFaults:
        """The faults of all tensors, drawn over them together. Looks each tensor up twice, one at a time."""
        sizes = torch.tensor([self._size(tensors[name]) for name in tensors], dtype=torch.int64)
        ends = sizes.cumsum(0)
        struck = self._drawn(int(sizes.sum()), generator)
        bounds = torch.searchsorted(struck, torch.stack([ends - sizes, ends], dim=1)).tolist()
        return ModelFaults(
            {
                name: self._faults(tensors[name], struck[first:last] - start, generator)
                for name, (first, last), start in zip(tensors, bounds, (ends - sizes).tolist(), strict=True)
            }
        )

    def _size(self, weight: Tensor) -> int:
        return weight.numel() * self._places(weight.dtype)

    def _faults(self, weight: Tensor, struck: Tensor, generator: torch.Generator) -> Faults:
        places = self._places(weight.dtype)
        index, owner = torch.unique_consecutive(struck // places, return_inverse=True)
        # Drawn on the CPU wherever the weight is, so that the device does not decide what breaks.
        old = integers(weight.detach().reshape(-1))[index.to(weight.device)].cpu()
        new = self._broken(old, owner, struck % places, weight.dtype, generator)
        changed = new != old
        return Faults(
            shape=tuple(weight.shape),
            index=index[changed].to(weight.device),
            old=old[changed].view(weight.dtype).to(weight.device),
            new=new[changed].view(weight.dtype).to(weight.device),
        )

    @abstractmethod
    def _places(self, dtype: torch.dtype) -> int:
        """How many places a weight of that dtype has. Raises `InvalidInput` if the damage cannot break it."""

    @abstractmethod
    def _drawn(self, total: int, generator: torch.Generator) -> Int64[Tensor, " struck"]:
        """Which of `total` places are struck, ascending and unique."""

    @abstractmethod
    def _broken(
        self,
        old: Integer[Tensor, " weights"],
        owner: Int64[Tensor, " struck"],
        place: Int64[Tensor, " struck"],
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> Integer[Tensor, " weights"]:
        """The bits that weights of `dtype` hold after the strike, given the `old` ones.

        Each struck place is the `place`-th of weight `old[owner]`.
        """


class ScatteredDamage(JointDamage):
    """Strikes places drawn uniformly, without replacement: each with probability `rate`, or exactly `count` of them.

    Raises:
        InvalidInput: unless one of rate, in [0, 1], and count, not negative, is given; when applied, if there are fewer
            than `count` places.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None):
        if (rate is None) == (count is None):
            raise InvalidInput(f"Give either a rate or a count, not rate {rate} and count {count}.")
        if rate is not None and not 0 <= rate <= 1:
            raise InvalidInput(f"A rate lies in [0, 1], not {rate}.")
        if count is not None and count < 0:
            raise InvalidInput(f"A count is 0 or more, not {count}.")
        self.rate = rate
        self.count = count

    def _drawn(self, total: int, generator: torch.Generator) -> Int64[Tensor, " struck"]:
        if self.rate is not None:
            of, rate = torch.tensor([total, self.rate], dtype=torch.float64)
            return drawn_without_replacement(int(torch.binomial(of, rate, generator=generator)), total, generator)
        assert self.count is not None  # the constructor sees to it
        if self.count > total:
            raise InvalidInput(f"{self.count} places cannot break where there are {total}. Lower the count.")
        return drawn_without_replacement(self.count, total, generator)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rate={self.rate}, count={self.count})"


def drawn_without_replacement(count: int, total: int, generator: torch.Generator) -> Int64[Tensor, " {count}"]:
    """`count` of the numbers below `total`, ascending. All sets of that size are equally likely.

    Cost: memory proportional to `count`, whatever `total` is.
    """
    # Either way a round draws as many as are missing, never too many, and what was drawn before falls out.
    if 32 * count > total:  # then a mask takes no more memory than sorting would
        few = min(count, total - count)
        mask = torch.zeros(total, dtype=torch.bool)
        while missing := few - int(mask.count_nonzero()):
            mask[_drawn_with_replacement(missing, total, generator)] = True
        return (mask if few == count else ~mask).nonzero().flatten()
    drawn = torch.empty(0, dtype=torch.int64)
    while missing := count - len(drawn):
        drawn = torch.cat([drawn, _drawn_with_replacement(missing, total, generator)]).unique()
    return drawn


def _drawn_with_replacement(count: int, total: int, generator: torch.Generator) -> Tensor:
    """`count` of the numbers below `total`, or a few less: 63 random bits are cut at the last multiple of `total`.

    Their remainder would otherwise favour low numbers, as that of torch's 32 bits does: by 6 % at 250 million.
    """
    bits = torch.empty(count, dtype=torch.int64).random_(generator=generator)
    return bits[bits <= 2**63 - 1 - 2**63 % total] % total
