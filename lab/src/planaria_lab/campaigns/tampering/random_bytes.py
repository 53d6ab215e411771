"""Wrong bytes anywhere."""

import torch

from planaria.errors import InvalidInput
from planaria_lab.campaigns.tampering.base import Tampering, Tensors


class RandomBytes(Tampering):
    """Each byte becomes any other with probability `rate`, the guard's own parity included: nothing is resealed.

    Args:
        rate: in (0, 1]. About .01 is mended by the guard itself, see FORMAT.md, section 2.

    Raises `InvalidInput` on another rate.
    """

    def __init__(self, rate: float):
        if not 0 < rate <= 1:
            raise InvalidInput(f"A rate of wrong bytes lies in (0, 1], not {rate}.")
        self.rate = rate

    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        found = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        wrong = torch.randint(1, 256, found.shape, generator=generator, dtype=torch.uint8)
        struck = torch.rand(found.shape, generator=generator) < self.rate
        return bytes(torch.where(struck, found ^ wrong, found).numpy().tobytes())
