"""Automata by name: the talk's, and the one that planaria uses."""

from dataclasses import dataclass

from planaria.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The shape of an automaton.

    Attributes:
        name: how tables call it.
        channels: state channels in all: weight, known, survey, then hidden ones.
        hidden: width of the rule's hidden layer.
        steps: steps of a repair.
        laplacian: whether cells also perceive the Laplacian (Sobel filters alone hold no average).
        fire_rate: probability that a cell acts at a step.
        survey: whether each cell has three fixed channels with averages of the survivors further away, see
            `survey.py`. They follow from the damaged weights, so they cost no bytes.
        cooling: step `t` is scaled by `cooling ** t`. Below 1 the sum of all steps is finite, so a rollout of any
            length converges; at 1 nothing bounds a rollout longer than those trained on.
        outputs_fixed: whether the rule also answers for the fixed channels, whose change the clamp then discards
            (the talk's shape; it only costs parameters).
    """

    name: str
    channels: int = 8
    hidden: int
    steps: int
    laplacian: bool
    fire_rate: float
    survey: bool = False
    cooling: float = 1.0
    outputs_fixed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fire_rate <= 1:
            raise InvalidInput(f"A recipe's fire_rate lies in (0, 1], not {self.fire_rate}.")
        if not 0 < self.cooling <= 1:
            raise InvalidInput(f"A recipe's cooling lies in (0, 1], not {self.cooling}.")
        if self.steps < 1:
            raise InvalidInput(f"A recipe has at least 1 step, not {self.steps}.")

    @staticmethod
    def named(name: str) -> "Recipe":
        """The recipe called `name`."""
        for recipe in (REFERENCE, DEFAULT):
            if recipe.name == name:
                return recipe
        raise InvalidInput(f"Unknown recipe {name!r}. Recipes are: {REFERENCE.name}, {DEFAULT.name}.")


REFERENCE = Recipe(
    name="reference", channels=8, hidden=32, steps=12, laplacian=False, fire_rate=0.5, outputs_fixed=True
)
"""The talk's automaton to the letter: identity and Sobel filters, 8 channels, 1,064 parameters in 2-D."""

DEFAULT = Recipe(
    name="default", channels=10, hidden=23, steps=16, laplacian=True, fire_rate=1.0, survey=True, cooling=0.92
)
