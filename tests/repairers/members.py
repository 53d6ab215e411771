"""Every repairer there is, the library's and the laboratory's: what the contract suite runs over."""

from collections.abc import Callable

import torch
from helpers import drawn, moving

from planaria.automaton import DEFAULT, Recipe
from planaria.layouts import Flat, Layout, Sheet
from planaria.pretrained import RECIPE, PretrainedRule, Prior
from planaria.pretrained.prior import TOLD
from planaria.repairers import Regrow, RegrowPretrained, Repairer, SpectralKriging
from planaria_lab.reference import REFERENCE
from planaria_lab.repairers import (
    Kriging,
    LowRank,
    MeanFill,
    NeighbourFill,
    RescaledZero,
    RowKriging,
    SurvivorKriging,
    ZeroFill,
)

Maker = Callable[[Layout, tuple[int, int]], Repairer]


def _regrow(recipe: Recipe, precision: str) -> Maker:
    def make(layout: Layout, shape: tuple[int, int]) -> Repairer:
        return Regrow(moving(recipe, dimensions=layout.dimensions), layout, precision=precision)

    return make


def pretrained() -> PretrainedRule:
    """One of one kind, of small grids, that changes things."""
    prior = Prior(0.1 * drawn(1, 3, 4, 4, name="fields"), torch.ones(1, 4, 4))
    return PretrainedRule("test-1", prior, moving(RECIPE), 0.1 * drawn(RECIPE.hidden, TOLD), {"trained on": "nothing"})


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
    "regrow, frozen": lambda layout, shape: RegrowPretrained(
        pretrained(), layout if layout.dimensions == 2 else Flat()
    ),
}
