"""How a rule is learned: lengths, rates, losses, and when to stop."""

from dataclasses import dataclass

from planaria.automaton import Recipe
from planaria.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The settings of a fit.

    Attributes:
        iterations: at most so many parameter updates.
        batch: grids an update, each with a mask of its own.
        learning_rate: peak of Adam's rate; it rises over the first tenth and falls to 0 (one-cycle, Smith 2018).
        rates: smallest and largest share of missing weights; each iteration draws one between them.
        rates_power: a uniform number to this power places the rate between them; below 1 heavy damage comes more often.
        lengths: fewest and most steps of a training rollout; each iteration draws one uniformly.
        output_share: share of the layer-output error in the loss when second moments are given, in [0, 1].
        warm_start: whether the rule starts at a linear smoother instead of at nothing, see `warm_start.py`.
        check_every: iterations between looks at the held-out masks.
        patience: looks without improvement after which the fit stops.
        long_rollout: the held-out masks are repaired with so many times the longest training rollout; the best
            rule by that measure is kept, so that a rule that explodes later is never chosen.
    """

    iterations: int = 3000
    batch: int = 8
    learning_rate: float = 6e-3
    rates: tuple[float, float] = (0.05, 0.95)
    rates_power: float = 0.5
    lengths: tuple[int, int] = (24, 24)
    output_share: float = 0.5
    warm_start: bool = True
    check_every: int = 300
    patience: int = 5
    long_rollout: int = 4

    def __post_init__(self) -> None:
        low, high = self.rates
        if not 0 < low <= high <= 1:
            raise InvalidInput(f"rates are two shares with 0 < low <= high <= 1, not {self.rates}.")
        if not 1 <= self.lengths[0] <= self.lengths[1]:
            raise InvalidInput(f"lengths are two step counts with 1 <= low <= high, not {self.lengths}.")
        if not 0 <= self.output_share <= 1:
            raise InvalidInput(f"output_share lies in [0, 1], not {self.output_share}.")
        for name in ("iterations", "batch", "check_every", "patience", "long_rollout"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is at least 1, not {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise InvalidInput(f"learning_rate is above 0, not {self.learning_rate}.")

    @staticmethod
    def of(recipe: Recipe) -> "Schedule":
        """The default schedule for a recipe: rollouts of its own length."""
        return Schedule(lengths=(recipe.steps, recipe.steps))
