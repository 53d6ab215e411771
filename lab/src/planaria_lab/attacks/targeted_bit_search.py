"""Bits that send inputs to one class."""

from collections.abc import Sequence

from planaria.damages.bits import Field
from planaria_lab.attacks.bit_search import BitSearch
from planaria_lab.attacks.objective import Objective


class TargetedBitSearch(BitSearch):
    """Flips the bits that most lower the cross-entropy of inputs against a class that they do not have.

    T-BFA, Rakin et al. 2021 ("T-BFA: Targeted Bit-Flip Adversarial Weight Attack", section 4): N-to-1 without a source,
    1-to-1 with one, 1-to-1 stealthy with `stealth=1`. Each is the progressive search of `BitSearch`.

    Args:
        target: the class to be answered.
        count, bits, candidates, names: as for `BitSearch`.
        source: the only class to be attacked; none means all inputs.
        stealth: weight, 0 or more, of keeping the answers to other inputs.
    """

    def __init__(
        self,
        target: int,
        count: int = 10,
        *,
        source: int | None = None,
        stealth: float = 0.0,
        bits: Field | Sequence[int] = "all",
        candidates: int = 10,
        names: str | Sequence[str] | None = None,
    ):
        objective = Objective(target=target, source=source, stealth=stealth)
        super().__init__(count, bits=bits, candidates=candidates, objective=objective, names=names)
