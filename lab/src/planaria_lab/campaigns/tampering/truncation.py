"""The file ends early."""

import torch

from planaria.errors import InvalidInput
from planaria_lab.campaigns.tampering.base import Tampering, Tensors


class Truncation(Tampering):
    """Only the first bytes stay.

    Args:
        share: of the bytes that stay, in [0, 1).

    Raises `InvalidInput` on another share.
    """

    def __init__(self, share: float = 0.5):
        if not 0 <= share < 1:
            raise InvalidInput(f"The share of bytes that stay lies in [0, 1), not {share}.")
        self.share = share

    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        return content[: int(self.share * len(content))]
