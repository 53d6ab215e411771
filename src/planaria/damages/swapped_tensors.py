"""Tensors under each other's names."""

from collections.abc import Mapping
from itertools import combinations

import torch
from jaxtyping import Shaped
from torch import Tensor

from planaria.damages.base import Damage
from planaria.damages.faults import Faults
from planaria.damages.model_faults import ModelFaults
from planaria.damages.sampling import few_without_replacement
from planaria.errors import InvalidInput


class SwappedTensors(Damage):
    """Two tensors of one shape and dtype exchange their contents: a pair drawn uniformly from all such pairs.

    A wrong key map or a mixed-up shard does so. The faults list only weights whose bits changed. Cost: memory for two
    tensors.

    Raises:
        InvalidInput: when applied, if no two tensors that are not empty have one shape and dtype; so always by `apply`,
            as a lone tensor has no partner.
    """

    def apply(
        self, weight: Shaped[Tensor, "*weight"], generator: torch.Generator
    ) -> tuple[Shaped[Tensor, "*weight"], Faults]:
        raise InvalidInput("A lone tensor has no partner to be swapped with. Use apply_to_model.")

    def apply_to_model(self, tensors: Mapping[str, Shaped[Tensor, "..."]], generator: torch.Generator) -> ModelFaults:
        faults: dict[str, Faults] = {}
        alike: dict[tuple[torch.Size, torch.dtype], list[str]] = {}
        for name in tensors:
            weight = tensors[name]
            faults[name] = Faults.none(weight)
            if weight.numel():
                alike.setdefault((weight.shape, weight.dtype), []).append(name)
            del weight  # before the next one is loaded
        pairs = [pair for names in alike.values() for pair in combinations(names, 2)]
        if not pairs:
            raise InvalidInput(
                f"None of {len(faults)} tensors has the shape and dtype of another. None can be swapped."
            )
        left, right = pairs[int(few_without_replacement(1, len(pairs), generator))]
        first, second = tensors[left], tensors[right]
        faults[left] = Faults.between(first, second)
        faults[right] = Faults.between(second, first)
        return ModelFaults(faults)
