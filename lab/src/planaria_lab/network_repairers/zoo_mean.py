"""Missing weights are those of the mean network."""

from planaria_lab.network_repairers.base import Masks, NetworkRepairer, Progress, Stack
from planaria_lab.zoo import Population


class ZooMean(NetworkRepairer):
    """The mean of all networks, weight by weight: nearly the answer if they share their initialisation, and little
    more than zeros if they do not, since units come in any order."""

    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        self._mean = {name: tensor.mean(0) for name, tensor in population.stack.items()}

    def _fill(self, visible: Stack, known: Masks) -> Stack:
        return {name: self._mean[name].expand_as(tensor) for name, tensor in visible.items()}
