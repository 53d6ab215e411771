"""What a method notes about an intact tensor and needs again when the tensor is damaged."""

from dataclasses import dataclass, field

from torch import Tensor

from planaria.errors import InvalidInput


@dataclass(frozen=True)
class Record:
    """What a repairer or detector noted about the intact tensor. Everything in it counts as guard bytes."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def __getitem__(self, name: str) -> Tensor:
        """A tensor by name. Raises `InvalidInput` if the record was prepared by another method, and so lacks it."""
        if name not in self.tensors:
            raise InvalidInput(
                f"The record holds {sorted(self.tensors)} and not {name!r}. Hand over the record that this same method "
                "prepared."
            )
        return self.tensors[name]
