"""Every repairer there is, for a layout: what the contract suite runs over."""

from collections.abc import Callable

from helpers import moving

from planaria.automaton import DEFAULT, REFERENCE, Recipe
from planaria.layouts import Flat, Layout
from planaria.repairers import (
    Kriging,
    LowRank,
    MeanFill,
    NeighbourFill,
    Regrow,
    Repairer,
    RescaledZero,
    ZeroFill,
)

Maker = Callable[[Layout], Repairer]


def _regrow(recipe: Recipe, precision: str) -> Maker:
    def make(layout: Layout) -> Repairer:
        return Regrow(moving(recipe, dimensions=layout.dimensions), layout, precision=precision)

    return make


MEMBERS: dict[str, Maker] = {
    "zero": lambda layout: ZeroFill(),
    "mean": lambda layout: MeanFill(),
    "neighbour": NeighbourFill,
    "neighbour, always flat": lambda layout: NeighbourFill(Flat()),
    "rescaled zero": lambda layout: RescaledZero(),
    "low rank": lambda layout: LowRank(),
    "kriging": Kriging,
    "kriging, always flat": lambda layout: Kriging(Flat()),
    "regrow, reference recipe": _regrow(REFERENCE, "half"),
    "regrow, single": _regrow(DEFAULT, "single"),
    "regrow, half": _regrow(DEFAULT, "half"),
    "regrow, byte": _regrow(DEFAULT, "byte"),
}
