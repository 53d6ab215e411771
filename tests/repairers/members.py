"""Every repairer there is, for a layout and weights of a shape: what the contract suite runs over."""

from collections.abc import Callable

from helpers import drawn, moving

from planaria.automaton import DEFAULT, HINTED, REFERENCE, Recipe
from planaria.layouts import Flat, Layout, Sheet
from planaria.repairers import (
    Kriging,
    LowRank,
    MeanFill,
    NeighbourFill,
    Regrow,
    Repairer,
    RescaledZero,
    RowKriging,
    SpectralKriging,
    SurvivorKriging,
    ZeroFill,
)

Maker = Callable[[Layout, tuple[int, int]], Repairer]


def _regrow(recipe: Recipe, precision: str) -> Maker:
    def make(layout: Layout, shape: tuple[int, int]) -> Repairer:
        hint = drawn(*shape, name="hint") if recipe.hints else None
        return Regrow(moving(recipe, dimensions=layout.dimensions), layout, precision=precision, hint=hint)

    return make


def _spectral(layout: Layout, shape: tuple[int, int]) -> Repairer:
    return SpectralKriging(layout.space if isinstance(layout, Sheet) else (shape[1],))


MEMBERS: dict[str, Maker] = {
    "zero": lambda layout, shape: ZeroFill(),
    "mean": lambda layout, shape: MeanFill(),
    "neighbour": lambda layout, shape: NeighbourFill(layout),
    "neighbour, always flat": lambda layout, shape: NeighbourFill(Flat()),
    "rescaled zero": lambda layout, shape: RescaledZero(),
    "low rank": lambda layout, shape: LowRank(),
    "kriging": lambda layout, shape: Kriging(layout),
    "kriging, always flat": lambda layout, shape: Kriging(Flat()),
    "row kriging": lambda layout, shape: RowKriging(layout),
    "spectral kriging": _spectral,
    "survivor kriging": lambda layout, shape: SurvivorKriging(layout),
    "regrow, reference recipe": _regrow(REFERENCE, "half"),
    "regrow, single": _regrow(DEFAULT, "single"),
    "regrow, half": _regrow(DEFAULT, "half"),
    "regrow, byte": _regrow(DEFAULT, "byte"),
    "regrow, hinted": _regrow(HINTED, "half"),
}
