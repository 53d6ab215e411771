"""Missing weights of each tensor by a repairer of its own."""

from collections.abc import Mapping

import torch

from planaria.repairers import Record, Repairer
from planaria_lab.network_repairers.base import Masks, NetworkRepairer, Progress, Shapes, Stack
from planaria_lab.zoo import Population


class ByLayer(NetworkRepairer):
    """Repairers of single tensors, by the tensor's name; all others read as zeros. It learns nothing.

    Their records are empty, since nobody saw the intact network: those that need one raise `InvalidInput`.

    Args:
        repairers: of the tensors that are repaired.
    """

    def __init__(self, repairers: Mapping[str, Repairer]) -> None:
        super().__init__()
        self.repairers = dict(repairers)

    def refusal(self, shapes: Shapes, learned: Shapes) -> str | None:
        lacking = sorted(self.repairers.keys() - shapes.keys())
        return f"they have no {', '.join(lacking)}, but {', '.join(shapes)}" if lacking else None

    def _learn(self, population: Population, *, seed: int, progress: Progress) -> None:
        pass

    def _fill(self, visible: Stack, known: Masks) -> Stack:
        filled = dict(visible)
        for name, repairer in self.repairers.items():
            pairs = zip(visible[name], known[name], strict=True)
            filled[name] = torch.stack([repairer.restore(tensor, there, Record()) for tensor, there in pairs])
        return filled
