"""Weights that are no finite number."""

import math

from planaria.damages.set_value import SetValue
from planaria.errors import InvalidInput


class NonFinite(SetValue):
    """Gives weights, drawn uniformly without replacement, NaN or an infinity: what injectors count as detected,
    unrecoverable errors.

    Args:
        value: NaN, or positive or negative infinity.
        rate, count: as of `WeightDamage`.

    Raises:
        InvalidInput: as `SetValue` does, and on a finite value. Integers hold no such value, nor do some floats of 8
            bits hold infinities.
    """

    def __init__(self, rate: float | None = None, *, value: float = math.nan, count: int | None = None):
        super().__init__(rate, value=value, count=count)
        if math.isfinite(value):
            raise InvalidInput(f"NaN, inf and -inf are not finite; {value} is. Set such a value with SetValue.")
