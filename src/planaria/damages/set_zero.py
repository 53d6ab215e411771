"""Weights that are zero."""

from planaria.damages.set_value import SetValue


class SetZero(SetValue):
    """Gives weights, drawn uniformly without replacement, zero, as pytorchfi does (Mahmoud et al., DSN-W 2020).

    Args:
        rate, count: as of `WeightDamage`.
    """

    def __init__(self, rate: float | None = None, *, count: int | None = None):
        super().__init__(rate, value=0.0, count=count)
