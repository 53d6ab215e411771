"""Missing weights are their conditional mean given all others, once neurons are in the order of the population."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from planaria_lab.network_repairers.base import Masks, NetworkRepairer, Progress, Shapes, Stack
from planaria_lab.network_repairers.chain import Chain, refusal_of_chain
from planaria_lab.zoo import Population

SWEEPS = 3  # over hidden layers: the order of one says more when its neighbours have theirs
MEANS = 15  # times the mean network is matched to anew
FLOOR = 1e-2  # least noise, as a share of the mean variance
PIECE = 16  # networks at once
WORST = 1e30  # cost of a neuron in a slot
Orders = list[Int64[Tensor, "networks _"]]
Costs = Callable[[int, Float[Tensor, "networks width size"], Bool[Tensor, "networks width size"]], Tensor]


class MatchedPCA(NetworkRepairer):
    """Probabilistic PCA (Tipping and Bishop 1999, section 3.3) after weight matching (Ainsworth, Hayase and Srinivasa
    2023, algorithm 1), with a noise of its own for each weight, as in factor analysis.

    Learning matches all networks to their mean, by turns. A damaged network is matched by what survived: a neuron costs
    in a slot what the negative log-likelihood of its known weights is, under the Gaussian of that slot's neurons in the
    population; the cheapest assignment is found exactly, layer by layer. Then the whole network is one Gaussian vector.

    MLPs alone.

    Cost: learning, one singular value decomposition of all networks; repair, for each network an assignment and a
    Cholesky factor of size `rank`.

    Args:
        rank: principal directions of whole networks; at most half as many as networks.
        neuron_rank: of the neurons in a slot.
    """

    def __init__(self, *, rank: int = 256, neuron_rank: int = 12) -> None:
        super().__init__()
        self.rank = rank
        self.neuron_rank = neuron_rank

    def refusal(self, shapes: Shapes, learned: Shapes) -> str | None:
        return refusal_of_chain(shapes) or super().refusal(shapes, learned)

    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        stack = population.stack
        self._chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in stack.items()})
        known = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in stack.items()}
        mean = {name: tensor[:1] for name, tensor in stack.items()}
        orders: Orders = []
        for turn in range(MEANS):
            progress(turn, MEANS, "matching")
            unlike = partial(_unlike, [tokens[0] for tokens in self._chain.tokens(mean)])
            before, orders = orders, self._matched(stack, known, unlike)
            aligned = self._chain.reordered(stack, orders)
            if before and all(torch.equal(one, other) for one, other in zip(before, orders, strict=True)):
                break
            mean = {name: tensor.mean(0, keepdim=True) for name, tensor in aligned.items()}
        self._whole = Factors.of(_flat(aligned)[:, None], self.rank)
        self._slots = [Factors.of(tokens, self.neuron_rank) for tokens in self._chain.tokens(aligned)]
        progress(MEANS, MEANS, "matching")

    def _fill(self, visible: Stack, known: Masks) -> Stack:
        orders = self._matched(
            visible, known, lambda layer, tokens, there: self._slots[layer].surprise(tokens, there.to(tokens))
        )
        aligned = self._chain.reordered(visible, orders)
        flat, there = _flat(aligned), _flat(self._chain.reordered(known, orders))
        pieces = zip(flat.split(PIECE), there.split(PIECE), strict=True)
        filled = torch.cat([self._whole.conditional(some, mask.to(some)) for some, mask in pieces])
        parts = filled.split([tensor[0].numel() for tensor in aligned.values()], 1)
        restored = {name: part.view_as(aligned[name]) for name, part in zip(aligned, parts, strict=True)}
        return self._chain.reordered(restored, [order.argsort(1) for order in orders])

    def _matched(self, stack: Stack, known: Masks, costs: Costs) -> Orders:
        """For each slot of each hidden layer, the neuron that belongs there; costs are (networks, neurons, slots)."""
        count = len(next(iter(stack.values())))
        orders = [torch.arange(width).expand(count, width) for width in self._chain.sizes[1:-1]]
        for sweep in range(SWEEPS if len(orders) > 1 else 1):
            for layer in range(len(orders)):
                others = [
                    *orders[:layer],
                    torch.arange(self._chain.sizes[layer + 1]).expand(count, -1),
                    *orders[layer + 1 :],
                ]
                tokens = self._chain.tokens(self._chain.reordered(stack, others))[layer]
                there = self._chain.tokens(self._chain.reordered(known, others))[layer]
                if sweep == 0 and layer < len(orders) - 1:  # the layer above has no order yet
                    ordered = torch.arange(tokens.shape[2]) <= self._chain.sizes[layer]
                    tokens, there = tokens * ordered, there & ordered
                orders[layer] = _assigned(costs(layer, tokens, there))
        return orders


@dataclass(frozen=True)
class Factors:
    """Gaussian vectors, one kind a slot: a mean, a few directions, and a noise of its own for each entry."""

    mean: Float[Tensor, "slots size"]
    directions: Float[Tensor, "slots size rank"]
    noise: Float[Tensor, "slots size"]

    @classmethod
    def of(cls, samples: Float[Tensor, "samples slots size"], rank: int) -> "Factors":
        """From many of each kind. The rank is at most half their number: more would leave nothing for the noise."""
        count = len(samples)
        mean = samples.double().mean(0)
        centred = (samples.double() - mean).transpose(0, 1)
        rank = min(rank, count // 2, samples.shape[2])
        _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
        directions = vectors[:, :rank].mT * values[:, None, :rank] / count**0.5
        total = centred.square().mean(1)
        # Directions were fitted to these same samples: what they leave is too small by this factor.
        noise = (total - directions.square().sum(-1)).clamp_min(0) * count / (count - rank)
        noise = noise.clamp_min(FLOOR * total.mean()).clamp_min(1e-12)
        return cls(mean.float(), directions.float(), noise.float())

    def conditional(
        self, visible: Float[Tensor, "batch size"], mask: Float[Tensor, "batch size"]
    ) -> Float[Tensor, "batch size"]:
        """Means of the first kind given what is known; `mask` is 1 there."""
        directions = self.directions[0]
        weighed = (mask / self.noise[0])[:, :, None] * directions
        within = weighed.mT @ directions + torch.eye(directions.shape[1])
        along = weighed.mT @ ((visible - self.mean[0]) * mask)[..., None]
        found = torch.cholesky_solve(along, torch.linalg.cholesky(within))
        return self.mean[0] + (directions @ found)[..., 0]

    def surprise(
        self, visible: Float[Tensor, "networks width size"], mask: Float[Tensor, "networks width size"]
    ) -> Float[Tensor, "networks width slots"]:
        """Negative log-likelihoods of known entries under each kind, up to what is the same for all."""
        rank = self.directions.shape[2]
        squares = (self.directions[..., None] * self.directions[..., None, :] / self.noise[..., None, None]).flatten(2)
        within = torch.einsum("nwd,sdk->nwsk", mask, squares).unflatten(-1, (rank, rank)) + torch.eye(rank)
        weighed = self.directions / self.noise[..., None]
        along = torch.einsum("nwd,sdr->nwsr", visible * mask, weighed)
        along -= torch.einsum("nwd,sdr->nwsr", mask, weighed * self.mean[..., None])
        distance = torch.einsum("nwd,sd->nws", mask, self.mean.square() / self.noise + self.noise.log())
        distance += torch.einsum("nwd,sd->nws", visible.square() * mask, 1 / self.noise)
        distance -= 2 * torch.einsum("nwd,sd->nws", visible * mask, self.mean / self.noise)
        factor = torch.linalg.cholesky(within)
        explained = torch.linalg.solve_triangular(factor, along[..., None], upper=False)[..., 0].square().sum(-1)
        return (distance - explained) / 2 + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _unlike(slots: list[Tensor], layer: int, tokens: Tensor, _: Tensor) -> Tensor:
    """The squared distance, up to what does not depend on the order."""
    return -(tokens @ slots[layer].mT)


def _assigned(costs: Float[Tensor, "networks width slots"]) -> Int64[Tensor, "networks slots"]:
    sound = costs.mT.double().nan_to_num(WORST, WORST, -WORST)  # known weights may be any number
    return torch.stack([torch.from_numpy(linear_sum_assignment(one)[1]) for one in sound.numpy()])


def _flat(stack: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in stack.values()], 1)
