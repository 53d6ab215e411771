"""A whole second copy."""

from planaria.dtypes import integers
from planaria_lab.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors, verdict


class StoredCopy(Defence):
    """Keeps all weights a second time, in memory that never fails: the ceiling, at 100 % of the bytes."""

    def prepare(self, tensors: Tensors) -> Protection:
        return _Copy({name: tensor.detach().clone() for name, tensor in tensors.items()})


class _Copy(Protection):
    def __init__(self, tensors: Tensors):
        self.tensors = tensors

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        found = {
            name: integers(tensor.contiguous()) != integers(self.tensors[name].contiguous())
            for name, tensor in tensors.items()
        }
        return Restored(dict(self.tensors), {name: verdict(wrong, "exact") for name, wrong in found.items()})
