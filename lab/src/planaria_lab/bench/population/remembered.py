"""Is a repair a copy of a network that was learned from?"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from planaria_lab.bench.population.judge import TINY, Stack
from planaria_lab.network_repairers.chain import Chain


def nearness(
    networks: Stack, own: Stack, trained: Stack, *, tell: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Float[Tensor, " networks"]]:
    """How near networks of one hidden layer are to one of their own and to the nearest of many others.

    Hidden neurons of the others are matched first: of all orders, the one that is nearest (Ainsworth, Hayase and
    Srinivasa 2023, section 3.2). Distances are Euclidean, in units of the own network's norm. A repair that shrinks
    weights is nearer to everything: cosines, which do not see a scale, are told beside distances.

    Args:
        own: for each network, the one that it should be.
        tell: called with networks done and all of them.

    Cost: one assignment for each pair; memory, `width**2` numbers for each of the others.
    """
    chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in networks.items()})
    mine, theirs = _Vectors.of(chain, networks), _Vectors.of(chain, trained)
    truth = _Vectors.of(chain, own)
    scale = truth.square().sqrt().clamp_min(TINY)
    found: dict[str, list[Tensor]] = {name: [] for name in ("distance", "cosine")}
    for at in range(len(mine.tokens)):
        tell(at, len(mine.tokens))
        products = torch.einsum("wd,nvd->nwv", mine.tokens[at], theirs.tokens)
        matched = torch.stack([_matched(one) for one in products]) + theirs.last @ mine.last[at]
        square, squares = mine.square()[at], theirs.square()
        found["distance"].append((square + squares - 2 * matched).clamp_min(0).sqrt().min() / scale[at])
        found["cosine"].append((matched / (square * squares).sqrt().clamp_min(TINY)).max())
    inner = (mine.tokens * truth.tokens).sum((1, 2)) + (mine.last * truth.last).sum(1)
    return {
        "own_distance": (mine.square() + truth.square() - 2 * inner).clamp_min(0).sqrt() / scale,
        "nearest_distance": torch.stack(found["distance"]),
        "own_cosine": inner / (mine.square() * truth.square()).sqrt().clamp_min(TINY),
        "nearest_cosine": torch.stack(found["cosine"]),
    }


class _Vectors:
    """Networks as tokens, one a hidden neuron, and the last bias, which no order changes."""

    def __init__(self, tokens: Float[Tensor, "networks width size"], last: Float[Tensor, "networks outputs"]) -> None:
        self.tokens, self.last = tokens, last

    @classmethod
    def of(cls, chain: Chain, stack: Stack) -> "_Vectors":
        (tokens,) = chain.tokens(stack)
        return cls(tokens.double(), stack[chain.biases[-1]].double())

    def square(self) -> Float[Tensor, " networks"]:
        return self.tokens.square().sum((1, 2)) + self.last.square().sum(1)


def _matched(products: Float[Tensor, "width width"]) -> Float[Tensor, ""]:
    """The largest sum of products, each neuron with another."""
    rows, columns = linear_sum_assignment(products.numpy(), maximize=True)
    return products[rows, columns].sum()
