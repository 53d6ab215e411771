"""Automata by name."""

from dataclasses import dataclass

from planaria.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The shape of an automaton.

    Attributes:
        name: how tables call it.
        channels: state channels in all: weight, known, hint, survey, then hidden ones.
        hidden: width of the rule's hidden layer.
        steps: steps of a repair.
        laplacian: whether cells also perceive the Laplacian (Sobel filters alone hold no average).
        fire_rate: probability that a cell acts at a step.
        hints: channels for a hint: 0, or 1 where repairs are given one and start from it.
        modes: smooth fields in the automaton's survey of the survivors, see `survey.py`; 0 for no survey, as with a
            hint. Their coefficients are parameters beside the rule's.
        frequencies: cosine frequencies of a field along each axis.
        cooling: step `t` is scaled by `cooling ** t`. Below 1 the sum of all steps is finite, so a rollout of any
            length converges; at 1 nothing bounds a rollout longer than those trained on.
        known_cells_rest: whether a known cell keeps its hidden channels too: another reading of the talk's clamp.
        outputs_fixed: whether the rule also answers for the fixed channels, whose change the clamp then discards
            (the talk's shape; it only costs parameters).
    """

    name: str
    channels: int = 8
    hidden: int
    steps: int
    laplacian: bool
    fire_rate: float
    hints: int = 0
    modes: int = 0
    frequencies: int = 7
    cooling: float = 1.0
    known_cells_rest: bool = False
    outputs_fixed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fire_rate <= 1:
            raise InvalidInput(f"A recipe's fire_rate lies in (0, 1], not {self.fire_rate}.")
        if not 0 < self.cooling <= 1:
            raise InvalidInput(f"A recipe's cooling lies in (0, 1], not {self.cooling}.")
        if self.hints not in (0, 1):
            raise InvalidInput(f"A recipe has 0 or 1 channels for hints, not {self.hints}.")
        if self.modes < 0 or self.frequencies < 1:
            raise InvalidInput(
                f"A recipe has at least 0 modes of at least 1 frequency, not {self.modes} of {self.frequencies}."
            )
        if self.hints and self.modes:
            raise InvalidInput(f"A recipe starts from a hint or from a survey, not from {self.modes} modes and a hint.")
        if self.steps < 1:
            raise InvalidInput(f"A recipe has at least 1 step, not {self.steps}.")

    @staticmethod
    def named(name: str) -> "Recipe":
        """The recipe called `name`."""
        if name != DEFAULT.name:
            raise InvalidInput(f"Unknown recipe {name!r}. There is {DEFAULT.name!r}.")
        return DEFAULT


DEFAULT = Recipe(name="default", channels=8, hidden=10, steps=20, laplacian=True, fire_rate=1.0, modes=14, cooling=0.88)
"""The automaton that planaria uses: 1,072 parameters in 2-D, 687 of them in the survey."""
