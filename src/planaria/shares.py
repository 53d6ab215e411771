"""Shares of a whole, as people write them."""

from math import nan

from planaria.errors import InvalidInput


def share_of(value: float | str, name: str) -> float:
    """A share more than 0 and up to 1: a number, or a text like `2%` or `0.02`.

    Args:
        value: what was given.
        name: of the argument or option, for the error.

    Raises:
        InvalidInput: if it is none.
    """
    try:
        number = float(value.removesuffix("%")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = nan
    share = number / 100 if isinstance(value, str) and value.endswith("%") else number
    if not 0 < share <= 1:
        raise InvalidInput(f"{name} is a share, as 2% or 0.02, more than 0 and up to 100%; not {value!r}.")
    return share
