"""Damage of chosen tensors alone: scales, zero points, statistics, one layer."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.base import Damage
from planaria.damages.faults import Faults
from planaria.damages.model_faults import ModelFaults
from planaria.errors import InvalidInput


class OnTensors(Damage):
    """Breaks only those tensors of a model whose name matches a pattern, as if it had no others.

    Of batch norm's statistics ("*running_mean", "*running_var") or a quantiser's scales and zero points ("*scale",
    "*zero_point"), GoldenEye calls it metadata errors (Mahmoud et al., DSN 2022).

    Args:
        damage: what breaks them. `apply` takes its tensor as chosen: a lone one has no name.
        names: patterns as of `fnmatch`, case-sensitive: * stands for anything, ? for one character.

    Raises:
        InvalidInput: without patterns; when applied to a model, if no name matches, and as the damage does.
    """

    def __init__(self, damage: Damage, *, names: Sequence[str]):
        if isinstance(names, str) or not names:
            raise InvalidInput(f"Names are a list of one or more patterns, not {names!r}.")
        if not isinstance(damage, Damage):
            raise InvalidInput(f"Tensors are broken by a damage, such as BitFlip(count=1), not by {damage!r}.")
        self.damage = damage
        self.names = tuple(names)

    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        return self.damage.apply(weight, generator)

    def apply_to_model(self, tensors: Mapping[str, Shaped[Tensor, "..."]], generator: torch.Generator) -> ModelFaults:
        chosen = [name for name in tensors if any(fnmatchcase(name, pattern) for pattern in self.names)]
        if not chosen:
            raise InvalidInput(
                f"No name of {len(tensors)} tensors matches {' or '.join(self.names)}. The first is "
                f"{next(iter(tensors), 'missing')!r}."
            )
        struck = self.damage.apply_to_model(_Chosen(tensors, chosen), generator).tensors
        return ModelFaults({name: struck[name] if name in struck else Faults.none(tensors[name]) for name in tensors})


class _Chosen(Mapping[str, Tensor]):
    """Some tensors of a model, each still loaded when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], names: Sequence[str]):
        self.tensors = tensors
        self.names = names

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
