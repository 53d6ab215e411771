"""Missing weights by a cellular automaton on the grid of neurons and their weights, after two frozen posteriors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from planaria import streams
from planaria_lab.network_repairers.base import Masks, NetworkRepairer, Progress, Shapes, Stack
from planaria_lab.network_repairers.chain import Chain, refusal_of_chain
from planaria_lab.network_repairers.fitting import (
    Behaviour,
    FittingObjective,
    Units,
    drawn_masks,
    drawn_parameters,
    fit,
)
from planaria_lab.network_repairers.gaussian import moments
from planaria_lab.network_repairers.matched_pca import MatchedPCA
from planaria_lab.network_repairers.neuron_wiener import NeuronWiener
from planaria_lab.zoo import Population

FOLDS = 2
HELD_OUT = 8  # every eighth network is not trained on, and says whether the rule is worth its place
PIECE = 64  # networks at once
Some = dict[str, Tensor]  # of any number of networks
Example = tuple[Some, Some, tuple[Some, ...]]
Grid = Float[Tensor, "networks rows columns _"]


class CrossbarAutomaton(NetworkRepairer):
    """One small rule, iterated in every cell: cells are the weights of hidden neurons (rows), by their place in the
    token (columns). With one hidden layer, neurons may come in any order.

    A cell sees its own channels and what its row and its column sum, as the wires of a crossbar do. Some channels are
    fixed: whether the weight is known, the weight, a learned code of its place, and what `NeuronWiener` and
    `MatchedPCA` say of it. It starts from the latter's answer. If one of both is better than the rule on networks that
    the rule was not trained on, that one answers instead.

    For training, the posteriors of a network come from a `MatchedPCA` that did not learn from it; otherwise the rule
    would trust them too much.

    MLPs alone.

    Cost: learning, those of both others, `drawings` repairs of each network by them, and `steps` passes over `batch`
    networks; repair, those of both others and `iterations` of the rule.

    Args:
        channels, hidden, places: of a cell, of the rule's hidden layer, of the code of a place.
        iterations: of the rule.
        drawings: damages of each network that are trained on.
        behaviour: the loss that follows the function; None for the error of weights alone.
        rank: of `MatchedPCA`.
    """

    def __init__(
        self,
        *,
        channels: int = 12,
        hidden: int = 32,
        places: int = 8,
        iterations: int = 6,
        drawings: int = 3,
        steps: int = 4000,
        batch: int = 16,
        learning_rate: float = 3e-3,
        behaviour: Behaviour | None = None,
        rank: int = 256,
    ) -> None:
        super().__init__()
        self.channels, self.hidden, self.places, self.iterations = channels, hidden, places, iterations
        self.drawings, self.steps, self.batch, self.learning_rate = drawings, steps, batch, learning_rate
        self.behaviour = behaviour
        self.rank = rank

    def refusal(self, shapes: Shapes, learned: Shapes) -> str | None:
        return refusal_of_chain(shapes) or super().refusal(shapes, learned)

    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        self._frozen = NeuronWiener(), MatchedPCA(rank=self.rank)
        for repairer in self._frozen:
            repairer.learn(population)
        bank = self._bank(population, seed, progress)
        network = torch.arange(len(population)).repeat_interleave(self.drawings)
        unseen = (network % HELD_OUT == 0) & (len(population) > HELD_OUT)
        taught = (~unseen).nonzero()[:, 0]

        def examples(generator: torch.Generator) -> Example:
            some = taught[torch.randint(len(taught), (self.batch,), generator=generator)]
            return _picked(bank, some)

        objective = FittingObjective(Units(population.stack), self.behaviour)
        with drawn_parameters(seed, "crossbar automaton"):
            chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in population.stack.items()})
            neurons = chain.tokens(objective.units.into(population.stack))
            places = min(self.places, *(tokens.shape[2] for tokens in neurons))
            codes = [_codes(tokens, places) for tokens in neurons]
            self._rule = _Rule(chain, objective.units, codes, self.channels, self.hidden, self.iterations)
        fit(
            self._rule,
            examples,
            objective,
            steps=self.steps,
            learning_rate=self.learning_rate,
            seed=seed,
            progress=progress,
        )
        self._answers = 0
        if unseen.any():
            intact, known, said = _picked(bank, unseen.nonzero()[:, 0])
            losses = [
                objective(intact, known, told, streams.generator(seed, "crossbar automaton choice"))
                for told in (self._ruled(intact, known, said), *said)
            ]
            self._answers = int(torch.stack(losses).nan_to_num(torch.inf).argmin())

    def _bank(self, population: Population, seed: int, progress: Progress) -> Example:
        """Damaged networks, what of them is known, and what both others say, after learning from other folds."""
        generator = streams.generator(seed, "crossbar automaton damage")
        intact = {name: tensor.repeat_interleave(self.drawings, 0) for name, tensor in population.stack.items()}
        known = drawn_masks(intact, generator)
        said: tuple[Stack, ...] = tuple(
            {name: torch.empty_like(tensor) for name, tensor in intact.items()} for _ in range(2)
        )
        folds = torch.arange(len(population)) % min(FOLDS, len(population))
        for fold in folds.unique().tolist():
            progress(fold, FOLDS, "posteriors")
            others = (folds != fold) | (len(population) == 1)
            here = (folds == fold).repeat_interleave(self.drawings)
            some, there = ({name: tensor[here] for name, tensor in of.items()} for of in (intact, known))
            for repairer, told in zip((NeuronWiener(), MatchedPCA(rank=self.rank)), said, strict=True):
                repairer.learn(_of(population, others))
                for name, tensor in repairer.restore(some, there).items():
                    told[name][here] = tensor
        return intact, known, said

    def _fill(self, visible: Stack, known: Masks) -> Stack:
        said = tuple(repairer.restore(visible, known) for repairer in self._frozen)
        return said[self._answers - 1] if self._answers else self._ruled(visible, dict(known), said)

    @torch.no_grad()
    def _ruled(self, stack: Some, known: Some, said: tuple[Some, ...]) -> Some:
        pieces = []
        for some in torch.arange(len(next(iter(stack.values())))).split(PIECE):
            part, there, told = _picked((stack, known, said), some)
            pieces.append(self._rule(part, there, *told))
        return {name: torch.cat([piece[name] for piece in pieces]) for name in stack}


def _picked(example: Example, some: Tensor) -> Example:
    stack, known, said = example
    return (
        {name: tensor[some] for name, tensor in stack.items()},
        {name: tensor[some] for name, tensor in known.items()},
        tuple({name: tensor[some] for name, tensor in told.items()} for told in said),
    )


def _codes(tokens: Float[Tensor, "networks width size"], count: int) -> Float[Tensor, "size places"]:
    """Of places in a token: the principal directions of all neurons, in units of a place."""
    _, covariance = moments(tokens.flatten(0, 1))
    return (torch.linalg.eigh(covariance)[1][:, -count:] * len(covariance) ** 0.5).float()


def _of(population: Population, chosen: Tensor) -> Population:
    at = chosen.nonzero().flatten().tolist()
    return Population(
        {name: tensor[at] for name, tensor in population.stack.items()},
        tuple(population.names[one] for one in at),
        tuple(population.split[one] for one in at),
        tuple(population.accuracies[one] for one in at),
    )


class _Rule(nn.Module):
    def __init__(
        self, chain: Chain, units: Units, codes: list[Tensor], channels: int, hidden: int, iterations: int
    ) -> None:
        super().__init__()
        self.chain, self.units, self.iterations, self.channels = chain, units, iterations, channels
        self.places = nn.ParameterList(codes)
        places = codes[0].shape[1]
        fixed = 4
        self.code = nn.Linear(places, hidden)
        self.own_fixed, self.own = nn.Linear(fixed, hidden), nn.Linear(channels, hidden)
        self.wires_fixed, self.wires = _Wires(fixed, places, hidden), _Wires(channels, places, hidden)
        self.change = nn.Linear(hidden, channels)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, visible: Stack, known: Masks, wiener: Stack, matched: Stack) -> Stack:
        there = {name: mask.float() for name, mask in known.items()}
        into = self.units.into
        seen = {name: tensor * there[name] for name, tensor in into(visible).items()}
        channels = [self._grids(of) for of in (there, seen, into(wiener), into(matched))]
        grids = [self._run(torch.stack(of, -1), places) for places, *of in zip(self.places, *channels, strict=True)]
        bias = grids[-1][:, -1, -self.chain.sizes[-1] :]
        return self.units.out_of(self.chain.stack([*grids[:-1], grids[-1][:, :-1]], bias))

    def _grids(self, stack: Stack) -> list[Tensor]:
        """Tokens; the last bias is the outgoing weights of one more neuron, which is always on."""
        tokens = self.chain.tokens(stack)
        bias = F.pad(stack[self.chain.biases[-1]], (tokens[-1].shape[2] - self.chain.sizes[-1], 0))
        return [*tokens[:-1], torch.cat([tokens[-1], bias[:, None]], 1)]

    def _run(self, fixed: Grid, places: Float[Tensor, "columns places"]) -> Float[Tensor, "networks rows columns"]:
        always = self.own_fixed(fixed) + self.wires_fixed(fixed, places) + self.code(places)
        state = F.pad(fixed[..., -1:], (0, self.channels - 1))
        for _ in range(self.iterations):
            state = state + self.change((always + self.own(state) + self.wires(state, places)).relu())
        return state[..., 0]


class _Wires(nn.Module):
    """What wires along rows and columns sum: a row, its cells by the codes of their places; a column, its cells by what
    the rows found. It is a product with a crossbar's matrix, and one with its transpose."""

    def __init__(self, channels: int, places: int, hidden: int) -> None:
        super().__init__()
        self.drive = nn.Linear(channels * places, places)
        self.row, self.column = nn.Linear(channels * places, hidden), nn.Linear(channels * places, hidden)

    def forward(self, grid: Grid, places: Float[Tensor, "columns places"]) -> Grid:
        row = torch.einsum("nrck,cp->nrkp", grid, places).flatten(2) / grid.shape[2] ** 0.5
        column = torch.einsum("nrck,nrp->nckp", grid, self.drive(row).tanh()).flatten(2) / grid.shape[1] ** 0.5
        return self.row(row)[:, :, None] + self.column(column)[:, None]
