"""The talk's automaton (Paladini, Tuba, Mariot, ACANCOS 2026), which planaria's own is compared with."""

from planaria.automaton import Recipe
from planaria.fit import Schedule

REFERENCE = Recipe(
    name="reference", channels=8, hidden=32, steps=12, laplacian=False, fire_rate=0.5, outputs_fixed=True
)
"""To the letter: identity and Sobel filters, 8 channels, 1,064 parameters in 2-D."""

SCHEDULE = Schedule(
    batch=1,
    lengths=(REFERENCE.steps, REFERENCE.steps),
    output_share=0.0,
    warm_start=False,
    rates_power=1.0,
    iterations=600,
    learning_rate=8e-3,
    long_rollout=1,  # without cooling nearly every rule explodes later, and the untrained one would be chosen
)
"""As the talk fits it."""


def schedule_of(recipe: Recipe) -> Schedule:
    """The schedule that belongs to a recipe: the talk's, or the default one for any other."""
    return SCHEDULE if recipe.name == REFERENCE.name else Schedule.of(recipe)
