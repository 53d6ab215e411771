"""Missing weights by a transformer over neurons."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from planaria_lab.network_repairers.base import Masks, Stack
from planaria_lab.network_repairers.chain import Chain
from planaria_lab.network_repairers.fitting import Behaviour, Units
from planaria_lab.network_repairers.learned_module import LearnedModule


class MaskedTransformer(LearnedModule):
    """A transformer over neurons as tokens, after hyper-representations (Schuerholt, Kostadinov and Borth 2021, section
    3; layer-wise normalised loss: Schuerholt et al. 2022, section 3.1), but with clean weights as the target of damaged
    ones, and no position: neurons of a layer may come in any order.

    Args:
        width, depth, heads: of the transformer.
    """

    stream = "masked transformer"

    def __init__(
        self,
        *,
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        steps: int = 3000,
        batch: int = 32,
        learning_rate: float = 2e-3,
        behaviour: Behaviour | None = None,
    ) -> None:
        super().__init__(steps=steps, batch=batch, learning_rate=learning_rate, behaviour=behaviour)
        self.width, self.depth, self.heads = width, depth, heads

    def _made(self, stack: Stack, units: Units) -> nn.Module:
        chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in stack.items()})
        return _Module(chain, units, self.width, self.depth, self.heads)


class _Module(nn.Module):
    def __init__(self, chain: Chain, units: Units, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.chain, self.units = chain, units
        before, after = chain.sizes[:-2], chain.sizes[2:]
        sizes = [one + 1 + two for one, two in zip(before, after, strict=True)] + [chain.sizes[-1]]
        self.embed = nn.ModuleList(nn.Linear(2 * size, width) for size in sizes)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.read = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, visible: Stack, known: Masks) -> Stack:
        last = self.chain.biases[-1]
        there = {name: mask.float() for name, mask in known.items()}
        scaled = {name: tensor * there[name] for name, tensor in self.units.into(visible).items()}
        values = [*self.chain.tokens(scaled), scaled[last][:, None]]
        masks = [*self.chain.tokens(there), there[last][:, None]]
        embedded = [embed(torch.cat(pair, -1)) for embed, *pair in zip(self.embed, values, masks, strict=True)]
        hidden: Float[Tensor, "networks tokens width"] = self.norm(self.encoder(torch.cat(embedded, 1)))
        ends = torch.tensor([0, *(part.shape[1] for part in embedded)]).cumsum(0).tolist()
        told = [read(hidden[:, begin:end]) for read, (begin, end) in zip(self.read, pairwise(ends), strict=True)]
        return self.units.out_of(self.chain.stack(told[:-1], told[-1][:, 0]))
