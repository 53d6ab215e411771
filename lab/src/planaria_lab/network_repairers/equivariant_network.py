"""Missing weights by a network that commutes with permutations of hidden neurons."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from planaria.errors import InvalidInput
from planaria_lab.network_repairers.base import Masks, Stack
from planaria_lab.network_repairers.chain import Chain
from planaria_lab.network_repairers.fitting import Behaviour, Units
from planaria_lab.network_repairers.learned_module import LearnedModule


class EquivariantNetwork(LearnedModule):
    """Three NP-linear layers (Zhou et al. 2023, "Permutation Equivariant Neural Functionals", section 3 and appendix on
    input-output encoding) on weights and masks as two channels; package `nfn`.

    Args:
        channels: of the hidden layers.

    Raises `InvalidInput` if `nfn` is not installed.
    """

    stream = "equivariant network"

    def __init__(
        self,
        *,
        channels: int = 32,
        steps: int = 1500,
        batch: int = 32,
        learning_rate: float = 2e-2,
        behaviour: Behaviour | None = None,
    ) -> None:
        if find_spec("nfn") is None:
            raise InvalidInput("This repairer needs the package nfn. Install it: pip install 'planaria-lab[bench]'.")
        super().__init__(steps=steps, batch=batch, learning_rate=learning_rate, behaviour=behaviour)
        self.channels = channels

    def _made(self, stack: Stack, units: Units) -> nn.Module:
        return _Module(stack, units, self.channels)


class _Module(nn.Module):
    def __init__(self, stack: Stack, units: Units, channels: int) -> None:
        from nfn.common import network_spec_from_wsfeat
        from nfn.layers import NPLinear, TupleOp

        super().__init__()
        self.units = units
        self.chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in stack.items()})
        spec = network_spec_from_wsfeat(self._features([{name: tensor[:1] for name, tensor in stack.items()}]))
        self.layers = nn.Sequential(
            NPLinear(spec, 2, channels, io_embed=True),
            TupleOp(nn.ReLU()),
            NPLinear(spec, channels, channels, io_embed=True),
            TupleOp(nn.ReLU()),
            NPLinear(spec, channels, 1, io_embed=True),
        )

    def forward(self, visible: Stack, known: Masks) -> Stack:
        there = {name: mask.float() for name, mask in known.items()}
        scaled = {name: tensor * there[name] for name, tensor in self.units.into(visible).items()}
        told = self.layers(self._features([scaled, there]))
        names = (*self.chain.weights, *self.chain.biases)
        return self.units.out_of(
            {name: tensor[:, 0] for name, tensor in zip(names, (*told.weights, *told.biases), strict=True)}
        )

    def _features(self, channels: list[Stack]) -> Any:
        from nfn.common import WeightSpaceFeatures

        def stacked(names: tuple[str, ...]) -> tuple[Tensor, ...]:
            return tuple(torch.stack([stack[name] for stack in channels], 1) for name in names)

        return WeightSpaceFeatures(stacked(self.chain.weights), stacked(self.chain.biases))
