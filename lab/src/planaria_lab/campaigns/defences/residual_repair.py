"""Weights that their neighbours do not predict are found, and filled in from them: no digest, no parity."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from planaria.detectors import Residual
from planaria.dtypes import integers
from planaria.errors import InvalidInput
from planaria.layouts import Flat, Sheet
from planaria.records import Record
from planaria_lab.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors, verdict
from planaria_lab.detectors import FlippedBit
from planaria_lab.detectors.flipped_bit import Bits
from planaria_lab.repairers import Kriging, RowKriging

PREDICTORS = {"Kriging": Kriging, "RowKriging": RowKriging}


class ResidualRepair(Defence):
    """A residual detector alone, with kriging as its predictor, which also fills in what the detector names.

    Args:
        spaces: by tensor, the axes that each neuron's inputs end with, such as (28, 28); an empty row for none. Other
            tensors are left alone.
        rate: share of intact weights that may be named damaged.
        bits: that `FlippedBit` is to expect; without, the detector is `Residual`.
        predictor: "Kriging" or "RowKriging".

    Raises:
        InvalidInput: on another predictor, as the detectors do, or, when preparing, on a tensor that is not there.
    """

    def __init__(
        self,
        spaces: Mapping[str, Sequence[int]],
        *,
        rate: float = 0.0,
        bits: Bits | Sequence[int] | None = None,
        predictor: str = "Kriging",
    ):
        if predictor not in PREDICTORS:
            raise InvalidInput(f"Unknown predictor {predictor!r}. Predictors are: {', '.join(PREDICTORS)}.")
        self.spaces = {name: tuple(space) for name, space in spaces.items()}
        self.rate = rate
        self.bits = bits
        self.predictor = PREDICTORS[predictor]
        self._detector(Kriging(Flat()))  # refuses a wrong rate or bits here

    def prepare(self, tensors: Tensors) -> Protection:
        if missing := sorted(self.spaces.keys() - tensors.keys()):
            raise InvalidInput(f"The model has no tensor {missing[0]!r}. It has: {', '.join(tensors)}.")
        detectors, records = {}, {}
        for name, space in self.spaces.items():
            predictor = self.predictor(Sheet(space) if space else Flat())
            detectors[name] = self._detector(predictor), predictor
            records[name] = detectors[name][0].prepare(tensors[name]), predictor.prepare(tensors[name].float())
        return _Predictors(detectors, records)

    def _detector(self, predictor: Kriging) -> Residual | FlippedBit:
        if self.bits is None:
            return Residual(predictor, rate=self.rate)
        return FlippedBit(predictor, bits=self.bits, rate=self.rate)


class _Predictors(Protection):
    def __init__(
        self,
        detectors: Mapping[str, tuple[Residual | FlippedBit, Kriging]],
        records: Mapping[str, tuple[Record, Record]],
    ):
        self.detectors, self.records = detectors, records
        self._last: dict[str, tuple[Tensor, tuple[Tensor, Tensor, Tensor]]] = {}

    @property
    def nbytes(self) -> int:
        return sum(noted.nbytes for noted, _ in self.records.values())  # the predictor's record is in the detector's

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        mended: dict[str, Tensor] = dict(tensors)
        verdicts, scores = {}, {}
        for name in self.detectors:
            mended[name], verdicts[name], scores[name] = self._answer(name, tensors[name])
        return Restored(mended, verdicts, scores)

    def _answer(self, name: str, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Repair, verdicts and scores; those of the last time for the same bits, since many attacks spare a tensor."""
        if name in self._last and _same(self._last[name][0], tensor):
            return self._last[name][1]
        (detector, predictor), (noted, of_predictor) = self.detectors[name], self.records[name]
        sound = detector.find(tensor, noted)
        filled = predictor.restore(tensor.float(), sound, of_predictor).to(tensor.dtype)
        found = filled, verdict(~sound, "estimated"), detector.scores(tensor, noted)
        self._last[name] = tensor.detach().clone(), found
        return found


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((integers(one.contiguous()) == integers(other.contiguous())).all())
