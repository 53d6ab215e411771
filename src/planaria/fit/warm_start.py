"""A rule that smooths before it has learned anything.

The conditional mean of a Gaussian Markov random field given noisy survivors is the fixed point of a local linear
iteration, and a ReLU layer holds linear maps exactly as pairs relu(z) - relu(-z). So eight of the rule's hidden units
are set to that iteration, in heavy-ball form (Polyak 1964) so that news travels a distance proportional to the number
of steps rather than to its square root. Fitting then starts near kriging instead of at nothing. The source does not do
this; nothing about the automaton changes but its first parameters.

With w the weight, m what a missing one starts at (hint and survey; 0 without them), and two hidden channels, u the
smooth deviation from m and v its velocity:

    r = smoothing * laplacian(u) - leak * u + pull * known * (w - m - u)
    v <- momentum * v + r        u <- u + v        w <- m + u
"""

import torch
from torch import Tensor

from planaria.automaton import Automaton
from planaria.automaton.automaton import KNOWN, WEIGHT

SMOOTHING, LEAK, PULL, MOMENTUM = 0.8, 0.003, 0.8, 0.8
GATE = 8.0  # above any |w - u| in standard deviations: switches a unit off where known is 0
SHRUNK = 0.1  # of the random first layer, in the units that are set here
UNITS = 8


def can_warm_start(automaton: Automaton) -> bool:
    """Whether the rule has the parts that this needs: the Laplacian, two hidden channels and eight hidden units."""
    recipe = automaton.recipe
    hidden_channels = recipe.channels - 1 - automaton.fixed
    return recipe.laplacian and not recipe.outputs_fixed and hidden_channels >= 2 and recipe.hidden >= UNITS


@torch.no_grad()
def warm_start(automaton: Automaton) -> None:
    """Writes the smoother into the first eight hidden units; the others keep their random values and no effect."""
    rule = automaton.rule
    filters, channels = len(automaton.perception.filters), automaton.recipe.channels
    smooth = 1 + automaton.fixed
    velocity = smooth + 1
    perceived = rule.hidden_weight.view(-1, filters, channels)
    perceived[:UNITS] *= SHRUNK
    rule.hidden_bias[:UNITS] = 0
    identity, laplacian = 0, filters - 1

    def set_pair(unit: int, terms: dict[tuple[int, int], float]) -> None:
        """Units `unit` and `unit + 1` become relu(z) and relu(-z), z the sum of the terms."""
        for (filter_index, channel), factor in terms.items():
            perceived[unit, filter_index, channel] += factor
            perceived[unit + 1, filter_index, channel] -= factor

    def add_pair(unit: int, output: Tensor, factor: float) -> None:
        output[unit] += factor
        output[unit + 1] -= factor

    set_pair(
        0,
        {(laplacian, smooth): SMOOTHING, (identity, smooth): -LEAK, (identity, velocity): -(1 - MOMENTUM)},
    )
    expected = {(identity, smooth): 1.0} | ({(identity, automaton.fixed): 1.0} if automaton.fixed > 1 else {})
    set_pair(2, {(identity, WEIGHT): 1.0} | {term: -factor for term, factor in expected.items()})
    perceived[2:4, identity, KNOWN] += GATE
    rule.hidden_bias[2:4] = -GATE
    set_pair(4, {(identity, velocity): 1.0})
    set_pair(6, expected | {(identity, WEIGHT): -1.0})

    # The rule's outputs: the weight, then the hidden channels.
    to_weight, to_smooth, to_velocity = rule.delta_weight[0], rule.delta_weight[1], rule.delta_weight[2]
    for output in (to_smooth, to_velocity):
        add_pair(0, output, 1.0)
        add_pair(2, output, PULL)
    add_pair(4, to_smooth, 1.0)
    add_pair(6, to_weight, 1.0)
