"""The contract of a repairer of whole networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab.zoo import Population

Stack = dict[str, Float[Tensor, "networks ..."]]
Masks = Mapping[str, Bool[Tensor, "networks ..."]]
Shapes = Mapping[str, tuple[int, ...]]
Progress = Callable[[int, int, str], None]


class NetworkRepairer(ABC):
    """Fills the missing weights of networks that it has never seen, from others of a population.

    `learn` looks at intact networks; `restore` is handed damaged ones, many at a time, each repaired on its own, and
    nothing else: what was learned is frozen before they existed, so that a repair costs no stored byte. What a missing
    weight holds is never looked at: it may be NaN. Results are finite, known weights come back bit for bit, and the
    same input gives the same result, whatever other networks are restored beside it.

    Stacks are float32, by the name of the tensor, with the networks on the first axis, as a `Population` has them.

    Subclasses implement `_learn` and `_fill`, and `refusal` if there are networks that they cannot repair.
    """

    def __init__(self) -> None:
        self._learned: dict[str, tuple[int, ...]] | None = None

    def learn(
        self,
        population: Population,
        *,
        seed: int = 0,
        progress: Progress = lambda done, total, note: None,
    ) -> None:
        """Learns from these networks: hand it the training part of a zoo. The same seed learns the same.

        Args:
            progress: called with (done, total, what).

        Raises:
            InvalidInput: without a network, or if the method cannot learn from such networks.
        """
        if not len(population):
            raise InvalidInput("There is nothing to learn from no network. Take a larger zoo.")
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in population.stack.items()}
        self._require(self.refusal(shapes, shapes))
        self._learn(population, seed=seed, progress=progress)
        self._learned = shapes

    def restore(self, stack: Mapping[str, Shaped[Tensor, "..."]], known: Mapping[str, Shaped[Tensor, "..."]]) -> Stack:
        """Repaired copies. Nothing known and everything known are both legal.

        Raises:
            InvalidInput: before anything was learned; if stack and masks differ in names or shapes, types are not
                float32 and bool, a known weight is no number, or the method cannot repair networks of these shapes.
        """
        if self._learned is None:
            raise InvalidInput(f"{type(self).__name__} has learned nothing yet. Call learn first.")
        if stack.keys() != known.keys():
            raise InvalidInput(f"Weights have the names {sorted(stack)} and masks {sorted(known)}; make them equal.")
        for name, tensor in stack.items():
            if tensor.shape != known[name].shape:
                raise InvalidInput(
                    f"{name} has shape {tuple(tensor.shape)} and its mask {tuple(known[name].shape)}; make them equal."
                )
            if tensor.dtype != torch.float32 or known[name].dtype != torch.bool:
                raise InvalidInput(
                    f"{name} and its mask are float32 and bool, not {tensor.dtype} and {known[name].dtype}."
                )
            if not tensor[known[name]].isfinite().all():
                raise InvalidInput(f"{name} has known weights that are no numbers. Mark them as missing.")
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in stack.items()}
        self._require(self.refusal(shapes, self._learned))
        visible = {name: torch.where(known[name], tensor, 0.0) for name, tensor in stack.items()}
        if all(bool(mask.all()) for mask in known.values()):
            return visible
        limit = torch.finfo(torch.float32).max
        filled = self._fill(visible, known)
        return {
            name: torch.where(known[name], tensor, filled[name].nan_to_num(0.0).clamp(-limit, limit))
            for name, tensor in stack.items()
        }

    def refusal(self, shapes: Shapes, learned: Shapes) -> str | None:
        """Why networks of these shapes cannot be repaired after learning from such; None if they can.

        By default, shapes must be equal.
        """
        if dict(shapes) == dict(learned):
            return None
        return f"it learned from networks of shapes {dict(learned)}, and these have {dict(shapes)}"

    @abstractmethod
    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        """Learns from one network or more."""

    @abstractmethod
    def _fill(self, visible: Stack, known: Masks) -> Stack:
        """All networks with missing weights filled; `visible` is 0 where missing."""

    def _require(self, refusal: str | None) -> None:
        if refusal is not None:
            raise InvalidInput(f"{type(self).__name__} cannot repair these networks: {refusal}.")
