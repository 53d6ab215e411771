"""Weights that their neighbours do not predict are found, and filled in from them: no digest, no parity."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from planaria.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors, verdict
from planaria.detectors import Residual
from planaria.layouts import Flat, Sheet
from planaria.records import Record
from planaria.repairers import Kriging


class ResidualRepair(Defence):
    """The residual detector alone, with kriging as its predictor, which also fills in what the detector names.

    Args:
        spaces: by tensor, the axes that each neuron's inputs end with, such as (28, 28); an empty row for none. Other
            tensors are left alone.
        rate: share of intact weights that may be named damaged.
    """

    def __init__(self, spaces: Mapping[str, Sequence[int]], *, rate: float = 0.0):
        self.spaces = {name: tuple(space) for name, space in spaces.items()}
        self.rate = rate

    def prepare(self, tensors: Tensors) -> Protection:
        detectors, records = {}, {}
        for name, space in self.spaces.items():
            predictor = Kriging(Sheet(space) if space else Flat())
            detectors[name] = Residual(predictor, rate=self.rate), predictor
            records[name] = detectors[name][0].prepare(tensors[name]), predictor.prepare(tensors[name].float())
        return _Predictors(detectors, records)


class _Predictors(Protection):
    def __init__(self, detectors: Mapping[str, tuple[Residual, Kriging]], records: Mapping[str, tuple[Record, Record]]):
        self.detectors, self.records = detectors, records

    @property
    def nbytes(self) -> int:
        return sum(noted.nbytes for noted, _ in self.records.values())  # the predictor's record is in the detector's

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        mended: dict[str, Tensor] = dict(tensors)
        verdicts, scores = {}, {}
        for name, (detector, predictor) in self.detectors.items():
            noted, of_predictor = self.records[name]
            sound = detector.find(tensors[name], noted)
            filled = predictor.restore(tensors[name].float(), sound, of_predictor)
            mended[name] = filled.to(tensors[name].dtype)
            verdicts[name] = verdict(~sound, "estimated")
            scores[name] = detector.scores(tensors[name], noted)
        return Restored(mended, verdicts, scores)
