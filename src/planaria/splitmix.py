"""Words of 64 bits, as numba's kernels use them: pseudo-random ones, and the place of a bit.

Random words are those of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), of which any costs as little as the next:
output number i, from 0, of the generator seeded with s is `mixed(s + (i + 1) * STEP)`, in uint64 that wraps around.
"""

# numba's decorators have no types.
# mypy: disable-error-code="import-untyped"
# mypy: disallow-untyped-decorators=False

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, register_jitable
from numpy.typing import NDArray

STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@register_jitable
def mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output in a state: of one uint64 in what numba compiles, of an array of them anywhere."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


@intrinsic
def lowest(typing: Any, word: Any) -> Any:
    """The position of the lowest set bit of a uint64 that is not 0; for what numba compiles."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, 1))

    return types.uint64(types.uint64), generate
