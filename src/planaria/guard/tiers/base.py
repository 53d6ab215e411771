"""The contract of a tier: one kind of redundancy that a guard holds."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from planaria.errors import InvalidGuard
from planaria.guard.manifest import MORE

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making
    from planaria.guard.restoring import Restoring


# What the format calls the tiers that it knows; others have names of their own.
IN_FORMAT = {name: name for name in ("digest", "copy", "rule", "parity")} | {"sketch": "hint", "refinement": "ladder"}
Arrays = dict[str, NDArray[np.generic]]


class Tier(ABC):
    """One kind of redundancy: how it is made from an intact model, validated, used and described.

    A tier has no state. What it stores are arrays of uint8, uint16 or float32, of the name `array` or of that, a dot
    and more ("hint.3"), and settings in the manifest: a JSON object under its name in `Manifest.tiers`, or, of the
    tiers that the format knows, fields of their own.

    Attributes:
        name: what commands, reports and the file call it.
    """

    name: ClassVar[str]

    @abstractmethod
    def plan(self, making: "Making") -> None:
        """Takes its share of the budget: adds its arrays to `making.arrays`, at least in the sizes that they will have,
        and its settings to `making.manifest`. Adds nothing where `making.fits` says that there is no room.
        """

    def omit(self, making: "Making") -> None:
        """Called instead of `plan` if the tier is not asked for."""

    def make(self, making: "Making") -> None:
        """Fills in what `plan` left open, when all tiers have planned."""

    @abstractmethod
    def validate(self, guard: "GuardFile") -> None:
        """Raises `InvalidGuard` unless every count, shape and type that the tier's code relies on is sound.

        The guard comes from anywhere; nothing may be allocated from a number in it before that was compared with the
        size of the file. Arrays in `guard.lost` have the right sizes and wrong contents.
        """

    def restore(self, restoring: "Restoring") -> None:
        """Corrects in `restoring.overlay` what the tier knows exactly, and clears `restoring.unproven` where a digest
        then matches. Anything else it corrects must be taken back.
        """

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        """What `planaria inspect --json` says of it, by key. Plain values."""
        return {}

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        """What it is good for, in sentences for people."""
        yield from ()

    def kept_of(self, guard: "GuardFile", tensor: int) -> str:
        """What it keeps of this tensor, in a few words; "" if nothing."""
        return ""

    @property
    def array(self) -> str:
        """What the names of its arrays in the guard begin with."""
        return IN_FORMAT.get(self.name, f"{MORE}.{self.name}")

    def owns(self, array: str) -> bool:
        """Whether an array of the guard is this tier's."""
        return array == self.array or array.startswith(f"{self.array}.")


def require_array(guard: "GuardFile", name: str, kind: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raises `InvalidGuard` unless the guard has an array of this name, type and shape."""
    array = guard.arrays.get(name)
    if array is None or array.dtype != kind or array.shape != shape:
        came = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise InvalidGuard(f"The guard's {name} tier is {came}; it has to be {np.dtype(kind)} of shape {shape}.")
