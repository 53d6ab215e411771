"""The contract of a tampering."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor

Tensors = Mapping[str, Shaped[Tensor, "..."]]


class Tampering(ABC):
    """A way to rewrite a guard file.

    The attacker can read and write guard and model and knows the format, the code and the intact weights; they lack the
    key. They have damaged the model already, and want its owner to believe the damaged weights.
    """

    @abstractmethod
    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        """The file that the attacker leaves. The same generator state gives the same bytes.

        Args:
            content: the victim's sound guard file.
            intact: the model that it guards: names, shapes and types.
            damaged: the model as the attacker leaves it.
            generator: what chance decides is drawn from.

        Raises:
            InvalidInput: if no such file can be made of this guard; the message says why.
        """
