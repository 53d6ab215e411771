"""How a number of bytes is spent on tensors: which sketch each gets, and how strong the refinement is."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.memory.analysis import EVEN_BITS, PlannedTensor
from planaria.memory.memory import CODECS, Memory, matrix_shape
from planaria.memory.search import RATES, Candidate, Search

SHARES = (0.0, 0.5, 0.75, 1.0)  # of the bytes, for sketches
SHOWN = 8  # plans of which people are told


class Planner:
    """Plans what to keep of tensors that may all lose weights at once.

    Analysis is done once, so that several budgets and rates can be planned for.

    Args:
        weights: float tensors by name, finite and not empty; the first axis is the outputs.
        moments: by name, second moments of the layer's inputs, `[columns, columns]`; see `planaria.calibration`. With
            them errors count by what they do to the layer's output, without as they are.
        spaces: by name, the spatial axes that a layer's inputs end with, where there are any.
        seed: of the held-out masks and samples.
        threads: to compute with; the result does not depend on them.

    Raises:
        InvalidInput: on an empty or not finite tensor, or moments and spaces that do not fit.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        moments: Mapping[str, Tensor] | None = None,
        spaces: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        threads: int = 1,
    ):
        self.weights = {name: weight.detach() for name, weight in weights.items()}
        self.moments, self.spaces = dict(moments or {}), dict(spaces or {})
        self.seed, self.threads = seed, threads
        for name, weight in self.weights.items():
            _check(name, weight, self.moments.get(name), tuple(self.spaces.get(name, ())))
        self._searches: dict[float | None, Search] = {}

    def encode(self, nbytes: int, *, expect: float | None = None, shares: Sequence[float] | None = None) -> Memory:
        """The best memory of at most `nbytes` that was found.

        Args:
            nbytes: all of it.
            expect: share of the weights that is expected to be lost, in (0, 1]; None for any.
            shares: of the bytes, for sketches, that are compared: (1.0,) for sketches alone, (0.0,) for a refinement
                alone.

        Raises:
            InvalidInput: on other numbers.
        """
        if nbytes < 0 or (expect is not None and not 0 < expect <= 1):
            raise InvalidInput(f"A memory has 0 bytes or more and expects a share in (0, 1], not {nbytes}, {expect}.")
        if expect not in self._searches:
            self._searches[expect] = self.search(expect)
        search = self._searches[expect]
        ranked = sorted(search.candidates(nbytes, shares or SHARES), key=lambda candidate: -candidate.merit)
        reasons = [
            f"{' ' if number else '*'} {_described(candidate)}" for number, candidate in enumerate(ranked[:SHOWN])
        ]
        return search.made(ranked[0], nbytes, reasons)

    def search(
        self,
        expect: float | None,
        *,
        moments: Mapping[str, Tensor] | None = None,
        emphasis: float = 0.5,
        codecs: Sequence[str] = (*CODECS, EVEN_BITS),
    ) -> Search:
        """All plans for a rate, or any.

        Args:
            expect: as of `encode`.
            moments: in the place of the planner's own.
            emphasis: how much more the errors of large tensors count, see `PlannedTensor`.
            codecs: each the favourite of one choice of codecs, see `Search`.
        """
        moments = self.moments if moments is None else moments
        rates = RATES if expect is None else (expect,)
        subjects = [
            PlannedTensor.of(
                name, weight, moments.get(name), tuple(self.spaces.get(name, ())), rates, emphasis=emphasis
            )
            for name, weight in self.weights.items()
        ]
        return Search(subjects, expect, _codec_choices(subjects, codecs), seed=self.seed, threads=self.threads)


def _codec_choices(subjects: Sequence[PlannedTensor], favourites: Sequence[str]) -> list[dict[str, str]]:
    """By tensor the codec to use: a favourite where it can be, else the first that can.

    The codecs of one choice are compared by what they make of the whole model: equal levels are not equal errors with
    different codecs, so that choosing for each tensor would give some too few bytes.
    """
    choices: list[dict[str, str]] = []
    possible = {subject.name: subject.codecs() for subject in subjects if subject.codecs()}
    for favourite in favourites:
        names = {name: favourite if favourite in codecs else codecs[0] for name, codecs in possible.items()}
        if names not in choices:
            choices.append(names)
    return choices


def _check(name: str, weight: Tensor, moments: Tensor | None, space: tuple[int, ...]) -> None:
    """Raises `InvalidInput` if one of them does not fit."""
    if not weight.is_floating_point() or weight.numel() == 0 or not weight.float().isfinite().all():
        raise InvalidInput(
            f"A memory is of tensors of at least one weight, all floating-point and finite in float32; {name!r}, "
            f"{weight.dtype} of shape {tuple(weight.shape)}, is none. Leave it out."
        )
    _, columns = matrix_shape(weight.shape)
    if moments is not None and (tuple(moments.shape) != (columns, columns) or not moments.isfinite().all()):
        raise InvalidInput(
            f"Second moments of {name!r} have shape ({columns}, {columns}) and are finite; not {tuple(moments.shape)}."
        )
    if space and (min(space) < 1 or columns % int(np.prod(space))):
        raise InvalidInput(f"{name!r} has {columns} columns, which are not laid out over {space}.")


def _described(candidate: Candidate) -> str:
    strengths = ", ".join(f"{strength:.0%}" for strength in candidate.strengths)
    refinement = f"refinement up to {strengths}" if strengths else "no refinement"
    errors = ", ".join(f"{rate:.0%}: {error:.3g}" for rate, error in candidate.errors.items())
    return f"{candidate.sketch_bytes or 0:,} bytes of sketches, {refinement}: output error at {errors}"
