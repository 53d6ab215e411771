"""Missing weights are their conditional mean given those of the same neuron."""

from planaria_lab.network_repairers.base import Masks, NetworkRepairer, Progress, Shapes, Stack
from planaria_lab.network_repairers.chain import Chain, refusal_of_chain
from planaria_lab.network_repairers.gaussian import conditional, moments
from planaria_lab.zoo import Population


class NeuronWiener(NetworkRepairer):
    """Wiener's filter (Wiener 1949; Rasmussen and Williams 2006, equation A.6) over neurons as tokens.

    A hidden neuron's incoming weights, bias and outgoing weights are one Gaussian vector, with the mean and covariance
    of all neurons of its layer in the population; so is the last bias. Neurons are repaired independently. With one
    hidden layer their order does not matter. Weights between hidden layers are in two tokens: the surer one counts for
    more.

    MLPs alone; with one hidden layer, networks may be wider or narrower than those that were learned from.

    Cost: learning, one pass; repair, a Cholesky factor for each neuron.
    """

    def refusal(self, shapes: Shapes, learned: Shapes) -> str | None:
        if (other := refusal_of_chain(shapes)) is not None:
            return other
        here, there = Chain.of(shapes).sizes, Chain.of(learned).sizes
        ends = (0, -1) if len(there) == 3 else range(len(there))
        if len(here) == len(there) and all(here[at] == there[at] for at in ends):
            return None
        return f"it learned from layers of the sizes {there}, and these are {here}"

    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in population.stack.items()})
        self._neurons = [moments(tokens.flatten(0, 1)) for tokens in chain.tokens(population.stack)]
        self._last = moments(population.stack[chain.biases[-1]])

    def _fill(self, visible: Stack, known: Masks) -> Stack:
        chain = Chain.of({name: tuple(tensor.shape[1:]) for name, tensor in visible.items()})
        told = [
            conditional(tokens, there, *of)
            for tokens, there, of in zip(chain.tokens(visible), chain.tokens(known), self._neurons, strict=True)
        ]
        last = chain.biases[-1]
        bias, _ = conditional(visible[last], known[last], *self._last)
        filled = chain.stack([mean for mean, _ in told], bias, [1 / spread.clamp_min(1e-12) for _, spread in told])
        return {name: tensor.float() for name, tensor in filled.items()}
