"""How much single tensors count, found by asking a judge: what an error in one does to the next no layer's output says.

The baselines are tuned by the same functions as planaria.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from planaria import streams

Judge = Callable[[Mapping[str, Tensor]], float]
"""From restored tensors, float32, to how well the network does; at most 1, for as well as the intact one."""
LEVEL = 0.002  # what is no difference in what a judge says: it sees few inputs
JUDGED_RATES, JUDGED_MASKS = (0.1, 0.5, 0.7, 0.9, 1.0), 10
TUNED, MOST_TUNED = 3, 12  # plans that are tuned, if they are of at most so many tensors: of more, it takes hours
LIKED = 5  # plans of one tuning that are asked again: what a judge likes most by a little, it likes by chance
STRESSES, TRIES = (4.0, 2.0, 1.4), 48  # of single tensors, one after the other
Plan = TypeVar("Plan")


def balanced_masks(
    shapes: Mapping[str, tuple[int, ...]], expect: float | None, *, seed: int, again: bool = False
) -> Iterator[tuple[float, dict[str, Bool[Tensor, "..."]]]]:
    """Rates, and which weights of each tensor are known when so many are missing.

    Every weight is missing equally often, to one mask: of a few independent masks, some would spare those that matter.

    Args:
        expect: the rate of all masks; None for two masks at each of a few rates.
        again: other masks, three times as many. What was tuned on the first ones fits them.
    """
    # There is but one mask of all weights.
    rates = 2 * JUDGED_RATES if expect is None else (expect,) * (JUDGED_MASKS if expect < 1 else 1)
    rates *= 3 if again and expect != 1 else 1
    for number, rate in enumerate(rates):
        draws = streams.generator(seed, "other masks of plans" if again else "masks of plans")
        yield (
            rate,
            {
                name: (torch.rand(shape, generator=draws) + number / len(rates)) % 1 >= rate
                for name, shape in shapes.items()
            },
        )


def softened(moments: Tensor, believed: float) -> Tensor:
    """Moments whose correlations and differences are only in part believed: inputs change as layers before them do."""
    return believed * moments + (1 - believed) * moments.diagonal().mean() * torch.eye(len(moments))


def worth_tuning(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are tensors to weigh against each other, and few enough."""
    return 1 < len(weights) <= MOST_TUNED


def tuned(
    plan: Plan,
    names: Mapping[str, object],
    planned: Callable[[Mapping[str, float]], Plan | None],
    judged: Callable[[Plan], float],
) -> list[Plan]:
    """The plan and others with other stresses of single tensors, of all that were tried those the judge likes most.

    Each tensor's stress is multiplied and divided by ever smaller factors; what helps is kept. At most 48 plans are
    judged.

    Args:
        plan: with stresses of 1.
        names: of the tensors.
        planned: from stresses by tensor, how much more its error counts, to a plan; None if there is none.
        judged: what the judge says of a plan.
    """
    stresses = dict.fromkeys(names, 1.0)
    highest, left = judged(plan), TRIES
    found, seen = [(highest, plan)], [stresses]
    for factor in STRESSES:
        moved = True
        while moved and highest < 1 - LEVEL and left:
            moved = False
            for name, change in product(names, (factor, 1 / factor)):
                tried = stresses | {name: stresses[name] * change}
                if not left or tried in seen:
                    continue
                left -= 1
                seen.append(tried)
                other = planned(tried)
                if other is None:
                    continue
                merit = judged(other)
                found.append((merit, other))
                if merit > highest:
                    stresses, highest, moved = tried, merit, True
    return [other for _, other in sorted(found, key=lambda one: -one[0])[:LIKED]]
