"""What of a model nothing proves, once the codes have been tried: symbol by symbol, and weight by weight."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Entry
from planaria.guard.byte_layout import SYMBOL
from planaria.guard.estimate import HIGH_HALF
from planaria.guard.examine import Examination
from planaria.guard.file import GuardFile
from planaria.guard.known import Known
from planaria.guard.locate import Located, locate
from planaria.guard.manifest import RuleShape
from planaria.guard.pieces import doubtful_weights, part_of, pieces, weights_of
from planaria.guard.statistics import FLOATS, Statistics
from planaria.guard.tiers import RuleTier
from planaria.repairers import Repairer


@dataclass(frozen=True)
class Doubts:
    """The doubtful parts of a model.

    Attributes:
        guard: of the model.
        examination: what digests and codes say.
        known: what a hardware test says, by tensor; tensors left out are all good. None without a test.
    """

    guard: GuardFile
    examination: Examination
    known: Known | None

    @property
    def mapped(self) -> bool:
        """Whether a hardware test said what is missing."""
        return self.known is not None

    def mask(self, index: int) -> Bool[Tensor, "*weight"] | None:
        """True where the test found a weight of this tensor good; None without a test."""
        entry = self.guard.entries[index]
        return None if self.known is None else self.known.get(entry.name, torch.ones(entry.shape, dtype=torch.bool))

    def rule(self, index: int) -> tuple[RuleShape | None, Repairer | None]:
        """The tensor's rule, if there is one and it is not lost."""
        return RuleTier.rule_of(self.guard, index)

    def pieces(self, index: int) -> Iterable[Entry]:
        """The parts in which a tensor is estimated: a rule needs it whole, and there is none for a large one."""
        entry = self.guard.entries[index]
        whole = Entry(entry.name, entry.dtype, entry.shape, entry.nbytes)
        return [whole] if self.rule(index)[1] else pieces(entry, self.guard.layout.tile)

    def symbols(self, index: int, piece: Entry) -> NDArray[np.bool_]:
        """Symbols of a piece that neither digest nor parity proves."""
        layout, shape, examination = self.guard.layout, self.guard.manifest.parity, self.examination
        start = layout.starts[index] + piece.start // SYMBOL
        stop = start + -(-piece.nbytes // SYMBOL)
        first = layout.tiles_of_tensor(index).start + piece.start // layout.tile
        tiles = slice(first, first + -(-piece.nbytes // layout.tile))

        def by_symbol(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return np.repeat(mask[tiles], layout.tile // SYMBOL)[: stop - start]

        doubtful = by_symbol(examination.unproven)
        if examination.unsolved is None or shape is None:
            return doubtful
        failed = examination.unsolved.doubtful(start, stop, shape) | by_symbol(examination.changed)
        return doubtful & (failed | ~by_symbol(examination.unsolved.explained))

    def located(self, index: int, piece: Entry, statistics: Statistics) -> Located:
        """What is to be distrusted of a piece."""
        entry, mask = self.guard.entries[index], self.mask(index)
        doubtful = self.symbols(index, piece)
        content = self.examination.overlay.read(entry.name, piece.start, piece.start + piece.nbytes)
        zeros_tell = mask is None and statistics.all_finite and not statistics.zeros
        if zeros_tell and doubtful.all() and not content.any():
            every = torch.ones(piece.shape, dtype=torch.bool)  # as `locate` would say: no zero of these can be right
            return Located(every, ~every, every, every, ~every)
        return locate(
            content,
            piece,
            doubtful,
            tile=self.guard.layout.tile,
            sound=self.examination.sound,
            statistics=statistics,
            rule=self.rule(index)[1],
            known=None if mask is None else part_of(mask, piece, entry),
        )

    def located_whole(self, index: int, statistics: Statistics) -> Located:
        """What is to be distrusted of a tensor, piece by piece."""
        found = [self.located(index, piece, statistics) for piece in self.pieces(index)]
        masks = (
            [piece_masks.doubtful, piece_masks.bounded, piece_masks.missing, piece_masks.certain, piece_masks.kept]
            for piece_masks in found
        )
        shape = self.guard.entries[index].shape
        return Located(
            *(
                torch.cat([part.flatten() for part in piece_masks]).view(shape)
                for piece_masks in zip(*masks, strict=True)
            )
        )

    def settle_parts_of_weights(self) -> None:
        """Of weights that the parity corrected in part: what keeps them from becoming worse than they were found.

        A proven first half with a doubtful rest gets the rest that is nearest to what was found, since the weight lies
        in the interval that the first half leaves. Any other part of a correction is taken back: it may make a number
        that neither was nor was found.
        """
        overlay, layout, examination = self.examination.overlay, self.guard.layout, self.examination
        if examination.unsolved is None:
            return
        for index, entry in enumerate(self.guard.entries):
            if entry.nbytes <= SYMBOL or not examination.unproven[layout.tiles_of_tensor(index)].any():
                continue
            for piece in pieces(entry, layout.tile):
                any_doubt, high_doubt = doubtful_weights(self.symbols(index, piece), piece)
                doubt = high_doubt if entry.dtype in FLOATS else any_doubt
                bounds = np.arange(len(doubt) + 1) * piece.nbytes // max(len(doubt), 1)
                symbols = np.repeat(doubt, np.diff(bounds))[::SYMBOL].nonzero()[0]
                overlay.forget(layout.starts[index] + piece.start // SYMBOL + symbols)
                if entry.dtype in HIGH_HALF and (any_doubt & ~high_doubt).any():
                    stop = piece.start + piece.nbytes
                    found = overlay.found(entry.name, piece.start, stop).view("<u2").reshape(len(doubt), -1)
                    content = overlay.read(entry.name, piece.start, stop).view("<u2").reshape(len(doubt), -1).copy()
                    settled = any_doubt & ~high_doubt & (found[:, -1] != content[:, -1])
                    smaller = (found[:, -1] & 0x7FFF) < (content[:, -1] & 0x7FFF)
                    smaller |= (found[:, -1] ^ content[:, -1]) >> 15 == 1  # of the other sign
                    # No other bit of what is no number is set in infinities, nor in NaN as it is computed.
                    smaller |= ~weights_of(content.reshape(-1).view(np.uint8), piece).isfinite().flatten().numpy()
                    content[settled, :-1] = np.where(smaller[settled], 0, 0xFFFF)[:, None]
                    overlay.replace(entry.name, piece.start, content.reshape(-1).view(np.uint8))
