"""Small things that many tests need."""

import torch
from hypothesis import settings
from torch import Tensor

from planaria.automaton import Automaton, Recipe
from planaria.streams import generator

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def examples(count: int) -> settings:
    """So many drawn examples of a test in CI, and in proportion more where the profile draws more."""
    return settings(max_examples=count * settings.default.max_examples // settings.get_profile("planaria").max_examples)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal shape, dtype and bits: tells -0.0 from 0.0 and takes a NaN for itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = BITS[one.element_size()]
    return torch.equal(one.contiguous().view(bits), other.contiguous().view(bits))


def drawn(*shape: int, seed: int = 0, name: str = "test") -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=generator(seed, name))


def mask(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    """True for about `share` of the cells."""
    return torch.rand(shape, generator=generator(seed, "test mask")) < share


def moving(recipe: Recipe, *, dimensions: int = 2, seed: int = 0, scale: float = 0.05) -> Automaton:
    """An automaton whose rule and survey, unlike a new one's, change things."""
    automaton = Automaton(recipe, dimensions=dimensions, seed=seed)
    source = generator(seed, "test rule")
    with torch.no_grad():
        automaton.rule.delta_weight.normal_(0, scale, generator=source)
        automaton.rule.delta_bias.normal_(0, scale, generator=source)
        if automaton.survey:
            automaton.survey.fields.normal_(0, 0.3, generator=source)
    return automaton


def smooth_sheets(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Weights `(count, height * width)`, each row a smooth image, of unit-like scale."""
    rough = drawn(count, 1, height + 8, width + 8, seed=seed, name="test sheets")
    for _ in range(2):
        rough = torch.nn.functional.avg_pool2d(rough, 5, stride=1)
    return (rough / rough.std()).reshape(count, height * width)
