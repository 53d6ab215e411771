"""What the parity leaves uncorrected."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planaria.guard.manifest import ParityShape

CROWDED = 0.9  # share of failed codewords from which damage may be anything


@dataclass(frozen=True)
class Unsolved:
    """What the parity could not correct.

    Attributes:
        failed: codewords, of shape `(segments, width)`, that could not be corrected, or not with enough certainty.
        doubted: codewords of which nothing is proven: the failed ones; of a code that is too weak, all.
        explained: whether each tile has, or shares its digest with one that has, a symbol of these. One that does not
            match though all its codewords do was decoded wrongly: none of it can be believed.
        density: share of the symbols of damaged tiles in them that must at least be wrong, since fewer would have been
            corrected; the largest of all segments.
    """

    failed: NDArray[np.bool_]
    doubted: NDArray[np.bool_]
    explained: NDArray[np.bool_]
    density: float

    @property
    def scattered(self) -> bool:
        """Whether codewords that are right are so many that no tile can be lost whole: it would touch them all."""
        return bool(self.failed.any(1).any()) and bool((self.failed.mean(1) < CROWDED).all())

    def doubtful(self, start: int, stop: int, shape: ParityShape) -> NDArray[np.bool_]:
        """Whether each of the symbols `[start, stop)` of the layout lies in a codeword of which nothing is proven."""
        found = np.empty(stop - start, np.bool_)
        for segment in range(start // shape.segment, -(-stop // shape.segment)):
            begin = max(start, segment * shape.segment)
            end = min(stop, (segment + 1) * shape.segment)
            column = (begin - segment * shape.segment) % shape.width
            found[begin - start : end - start] = np.resize(np.roll(self.doubted[segment], -column), end - begin)
        return found
