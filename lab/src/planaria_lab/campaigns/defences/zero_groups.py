"""Groups of weights whose signature no longer fits are set to zero."""

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from planaria import streams
from planaria.errors import InvalidInput
from planaria_lab.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors, verdict

KEY_BYTES = 8


class ZeroGroups(Defence):
    """Two bits for every group of weights, from a keyed sum of them; where they differ, the whole group becomes 0.

    RADAR (Li, Rakin, He, Fan, Chakrabarti, DATE 2021, sections IV and V): weights of a group are added with signs that
    a key decides, and bits 7 and 8 of the sum are the signature, so that one flipped top bit always shows. Groups are
    interleaved: neighbours lie in different ones. Theirs is for int8; of floats, here the byte with the sign and the
    top of the exponent is added, and bits 6 and 7 are kept, so that one flip of either always shows. Its key is 16
    bits, repeated; ours seeds a stream as long as the tensor.

    Args:
        group: weights of a group, 1 or more.
        seed: the key.
    """

    def __init__(self, group: int = 8, *, seed: int = 0):
        if group < 1:
            raise InvalidInput(f"A group has 1 or more weights, not {group}.")
        self.group = group
        self.seed = seed

    def prepare(self, tensors: Tensors) -> Protection:
        return _Signatures(self, {name: self.signatures(name, tensor) for name, tensor in tensors.items()})

    def signatures(self, name: str, tensor: Tensor) -> UInt8[Tensor, " groups"]:
        """Two bits for each group."""
        groups = self.groups(tensor)
        draws = streams.generator(self.seed, f"signs of {name}")
        signs = torch.randint(2, (tensor.numel(),), generator=draws) * 2 - 1
        sums = torch.zeros(int(groups.max()) + 1 if len(groups) else 0, dtype=torch.int64)
        sums.index_add_(0, groups, signs * _top_bytes(tensor))
        return (sums >> (6 if tensor.is_floating_point() else 7) & 3).to(torch.uint8)

    def groups(self, tensor: Tensor) -> Int64[Tensor, " weights"]:
        """Of each weight its group; a group's weights are as far from each other as they can be."""
        count = -(-tensor.numel() // self.group)
        return torch.arange(tensor.numel()) % max(count, 1)


class _Signatures(Protection):
    def __init__(self, how: ZeroGroups, signatures: dict[str, Tensor]):
        self.how, self.signatures = how, signatures

    @property
    def nbytes(self) -> int:
        return KEY_BYTES + sum(-(-len(of) // 4) for of in self.signatures.values())

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        mended, verdicts = {}, {}
        for name, tensor in tensors.items():
            wrong = self._wrong(name, tensor)
            mended[name] = torch.where(wrong, torch.zeros_like(tensor), tensor)
            verdicts[name] = verdict(wrong, "lost")
        return Restored(mended, verdicts)

    def _wrong(self, name: str, tensor: Tensor) -> Bool[Tensor, "*weight"]:
        broken = self.how.signatures(name, tensor) != self.signatures[name]
        return broken[self.how.groups(tensor)].view(tensor.shape)


def _top_bytes(tensor: Tensor) -> Int64[Tensor, " weights"]:
    """The most significant byte of each weight, as a signed number."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.int8).view(len(flat), flat.element_size())[:, -1].long()
