"""The guard is left alone."""

import torch

from planaria_lab.campaigns.tampering.base import Tampering, Tensors


class NoTampering(Tampering):
    """The control: the attacker breaks the model and leaves the guard as it is."""

    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        return content
