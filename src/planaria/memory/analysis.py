"""What each way to encode a tensor would cost, and what it would leave: the figures that a planner compares."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from planaria import streams
from planaria.memory.memory import EncodedTensor, Memory, codec, matrix_shape, prior_of, residual
from planaria.memory.planes import foretold_bits
from planaria.memory.quantiser import DEPTHS, FINEST, FIRST_UNIFORM, NOTHING, SIGN, refines, thresholds, tree
from planaria.memory.refinement import Depths, segments_of
from planaria.sketches import AnalysedMatrix, FirstBits

SAMPLE = 8192  # weights of a tensor that depths are tried on
LONGEST = 40  # bits of a code: more than any has
CLOSE = 0.995  # a plan that leaves fewer of its bytes unused is good enough
ROUNDS = 6
EVEN_BITS = "even bits"  # first bits with one step for all columns; stored as first bits
KINDS_AN_OCTAVE = 8  # of a column's importance
FEWEST_CELLS, WORTHWHILE = 16, 2048  # of a sheet, and of a tensor, for a prior to be tried
WORTH = 0.02  # share of the squared error that a prior must save
FEWEST_LINES = 4  # rows and columns for a low rank to be tried
MOST_FIRST_BITS = 2**17  # weights; it takes seconds to try them on more, where low rank does better
REFINES = np.array([[refines(fine, coarse) for fine in range(DEPTHS)] for coarse in range(DEPTHS)])


@dataclass
class PlannedTensor:
    """One tensor, and what is computed of it once.

    Attributes:
        name, shape: of the tensor.
        matrix: its first axis by all others, float32.
        moments: second moments of its inputs, or None if errors count as they are.
        space: spatial axes that its columns end with; empty if there are none.
        form: the moments that sketches are made for; see `of`.
        importance: of each column, the mean square of its input.
        energy: of the outputs, above 0; what errors are relative to.
        emphasis: how much more a large tensor's error counts than a small one's: as its weights to this power.
        stress: how much more its error counts than that says.
    """

    name: str
    shape: tuple[int, ...]
    matrix: Float[Tensor, "rows columns"]
    moments: Float[Tensor, "columns columns"] | None
    space: tuple[int, ...]
    form: Float[Tensor, "columns columns"] | None
    emphasis: float = 0.5
    stress: float = 1.0
    analysed: dict[str, AnalysedMatrix] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        weight: Tensor,
        moments: Tensor | None,
        space: tuple[int, ...],
        rates: Sequence[float],
        *,
        emphasis: float = 0.5,
    ) -> "PlannedTensor":
        """A tensor whose sketch is for damage of these rates: errors of two inputs meet only where both are missing."""
        form = None
        if moments is not None:
            both, lone = (sum(part) / len(rates) for part in ([q * q for q in rates], [q * (1 - q) for q in rates]))
            form = both * moments + lone * moments.diagonal().diag()
        matrix = weight.cpu().float().reshape(matrix_shape(weight.shape))
        return cls(name, tuple(weight.shape), matrix, moments, space, form, emphasis)

    def __post_init__(self) -> None:
        columns = self.matrix.shape[1]
        self.importance = np.ones(columns) if self.moments is None else self.moments.diagonal().double().numpy()
        # Inputs that calibration never saw may still come.
        self.importance = np.maximum(self.importance, 1e-3 * self.importance.mean())
        self.energy = max(self._energy(self.matrix.double()), 1e-300)

    def _energy(self, error: Float[Tensor, "rows columns"]) -> float:
        moved = error if self.moments is None else error @ self.moments.double()
        return float((moved * error).sum())

    def output_errors(self, error: Float[Tensor, "rows columns"]) -> tuple[float, float]:
        """In units of the output's energy: of all weights erring together, and of each erring alone, summed."""
        lone = float((error.square().sum(0).numpy() * self.importance).sum())
        return self._energy(error) / self.energy, lone / self.energy

    @property
    def sheets(self) -> bool:
        """Whether a prior is worth trying."""
        return bool(self.space) and int(np.prod(self.space)) >= FEWEST_CELLS and self.matrix.numel() >= WORTHWHILE

    def with_prior(self, encoded: EncodedTensor, rates: Sequence[float], *, seed: int) -> EncodedTensor:
        """The sketch, with the covariance of what it leaves where that tells enough of weights at these rates."""
        left = torch.from_numpy(residual(self.matrix, encoded.decode()))
        described = replace(encoded, space=self.space, prior=prior_of(left, self.space))
        draws = streams.generator(seed, f"masks of the prior of {self.name}")
        without = rest = 0.0
        for rate in rates:
            known = torch.rand(left.shape, generator=draws) >= rate
            without += float(left[~known].square().sum())
            rest += float((left - described.regrown(torch.where(known, left, 0.0), known))[~known].square().sum())
        return described if rest < (1 - WORTH) * without else encoded

    def share(self, weights: int) -> float:
        """The level at which its sketch is to be, for 1 as that of a tensor of so many weights.

        Equal noise in each number is more of a small tensor's output, and a large one's output counts for more.
        """
        return float((self.matrix.numel() / weights) ** (0.5 * (1 - self.emphasis)) / self.stress**0.5)

    @property
    def counts_for(self) -> float:
        """What its relative output error is multiplied by."""
        return float(self.matrix.numel()) ** self.emphasis * self.stress

    def codecs(self) -> list[str]:
        """Those worth trying."""
        worth_trying = {
            "low frequency": bool(self.space) and int(np.prod(self.space)) == self.matrix.shape[1],  # one channel
            "low rank": min(self.matrix.shape) >= FEWEST_LINES,
            "first bits": self.matrix.numel() <= MOST_FIRST_BITS,
            EVEN_BITS: self.matrix.numel() <= MOST_FIRST_BITS and self.form is not None,
        }
        return [name for name, worth in worth_trying.items() if worth]

    def analysed_by(self, name: str) -> AnalysedMatrix:
        """The tensor as a codec sees it."""
        if name not in self.analysed:
            sketch = FirstBits(even=True) if name == EVEN_BITS else codec(name, self.space)
            self.analysed[name] = sketch.analyse(self.matrix, moments=self.form)
        return self.analysed[name]


class Analysis:
    """Tensors with sketches of some size, and what each depth would do for what the sketches leave.

    Args:
        subjects: the tensors.
        encoded: their sketches and priors, in the same order.
        seed: of the sample of weights, and of held-out masks.

    Attributes:
        encoded: sketches and priors.
        nbytes: of a memory of these alone.
    """

    def __init__(self, subjects: Sequence[PlannedTensor], encoded: Sequence[EncodedTensor], *, seed: int):
        self.subjects, self.encoded, self.seed = subjects, list(encoded), seed
        self.nbytes = Memory(self.encoded).nbytes
        count, columns = len(subjects), [subject.matrix.shape[1] for subject in subjects]
        self._edges = np.cumsum([0, *columns])
        self._tensor_of = np.repeat(np.arange(count), columns)
        self._rows = np.array([subject.matrix.shape[0] for subject in subjects])
        # Of each column, the relative output error for each unit of a weight's square error.
        self._weight_of = np.concatenate(
            [subject.importance / subject.energy * subject.matrix.shape[0] for subject in subjects]
        )
        counts = np.array([subject.counts_for for subject in subjects])
        self._counts_for = counts / counts.sum()
        # Columns of a tensor that matter about alike are of one kind: depths are compared for kinds.
        importance = np.round(KINDS_AN_OCTAVE * np.log2(np.maximum(self._weight_of, 1e-300))).astype(np.int64)
        kinds = np.stack([self._tensor_of, importance])
        _, first, self._kind, sizes = np.unique(
            kinds, axis=1, return_index=True, return_inverse=True, return_counts=True
        )
        self._kind = self._kind.reshape(-1)
        self._tensor_of_kind = self._tensor_of[first]
        self._weight_of_kind = np.bincount(self._kind, self._weight_of) / sizes
        self._variance = np.zeros(count)
        self._sketch_errors = []  # all together and each alone
        # By tensor and depth: mean length of the codes, share of the codes of each length, square error.
        self._bits, self._distortion = np.zeros((count, DEPTHS)), np.zeros((count, DEPTHS))
        self._lengths = np.zeros((count, DEPTHS, LONGEST))
        self._prior_errors: dict[tuple[int, float], float] = {}
        draws = streams.generator(seed, "sample of depths")
        for index, subject in enumerate(subjects):
            left = torch.from_numpy(self.residual(index))
            self._sketch_errors.append(subject.output_errors(left))
            self._variance[index] = float(left.square().mean())
            flat = left.flatten()
            sample = flat[torch.randint(len(flat), (min(SAMPLE, len(flat)),), generator=draws)].numpy()
            self._try_depths(index, sample / self.scale(index))

    def residual(self, index: int) -> np.ndarray:
        """What the sketch leaves of a tensor."""
        return residual(self.subjects[index].matrix, self.encoded[index].decode())

    def nbytes_besides(self, strengths: Sequence[float]) -> int:
        """Of a memory with a refinement over all tensors, without the refinement itself."""
        return Memory([replace(kept, refined=True) for kept in self.encoded], strengths=strengths).nbytes

    def plan(self, strengths: tuple[float, ...], nbytes: float) -> tuple[tuple[float, ...], list[Depths]] | None:
        """Strengths and, for every stage, the depths that make the error least in about so many bytes.

        Where even the finest depths leave bytes, a single stage is made stronger. None if no refinement fits.
        """
        best, most = None, 0.0
        room = nbytes
        for _ in range(ROUNDS):
            stages = self._picked(strengths, 8 * room)
            if stages is None:
                break
            size = self._size(strengths, stages)
            if most < size <= nbytes:
                best, most = stages, size
            if size <= nbytes and (size >= CLOSE * nbytes or (stages[-1] == FINEST).all()):
                break
            room += (1 + CLOSE) / 2 * nbytes - size
        if best is None:
            return None
        if len(strengths) == 1 and (best[0] == FINEST).all() and most < CLOSE * nbytes:
            strengths = (self._strongest(strengths[0], best, nbytes),)
        return strengths, [
            [stage[start:stop].astype(np.uint8) for start, stop in pairwise(self._edges)] for stage in best
        ]

    def errors(
        self, strengths: Sequence[float], depths: Sequence[Depths], rates: Sequence[float]
    ) -> dict[float, float]:
        """Relative output error to expect at each rate, in the mean over tensors, weighted by their emphasis."""
        errors = {}
        for rate in rates:
            reached = [number for number, strength in enumerate(strengths) if rate <= strength]
            total = 0.0
            for index, (start, stop) in enumerate(pairwise(self._edges)):
                counts_for = float(self._counts_for[index])
                if not reached:
                    total += counts_for * self._sketch_error(index, rate)
                    continue
                depth = depths[reached[-1]][index]
                lone = self._weight_of[start:stop] * self._variance[index]
                # What the sketch leaves of uncovered columns errs together, rounding does not.
                uncovered = float(lone[depth == NOTHING].sum() / max(lone.sum(), 1e-300))
                rounding = float((lone * self._distortion[index][depth])[depth != NOTHING].sum())
                sketched = uncovered * self._sketch_error(index, rate) if uncovered else 0.0
                total += counts_for * (sketched + rate * rounding)
            errors[rate] = total
        return errors

    def scale(self, index: int) -> float:
        """The unit of a tensor's depths."""
        return max(float(self._variance[index]) ** 0.5, 1e-300)

    def _try_depths(self, index: int, units: np.ndarray) -> None:
        """Notes what each depth does to a sample of weights."""
        for depth in range(DEPTHS):
            quantiser_tree = tree(NOTHING, depth)
            cells = np.searchsorted(thresholds(depth), units, side="right")
            lengths = quantiser_tree.lengths[cells]
            self._bits[index, depth] = lengths.mean()
            self._lengths[index, depth] = np.bincount(lengths, minlength=LONGEST) / len(units)
            self._distortion[index, depth] = np.square(units - quantiser_tree.mean[quantiser_tree.leaves[cells]]).mean()

    def _sketch_error(self, index: int, rate: float) -> float:
        """Relative output error of sketch and prior if a share `rate` of the weights, drawn at random, is missing."""
        if not self.encoded[index].prior.size:
            # Errors of two inputs meet only where both are missing.
            together, alone = self._sketch_errors[index]
            return rate**2 * together + rate * (1 - rate) * alone
        if (index, rate) not in self._prior_errors:
            subject, left = self.subjects[index], torch.from_numpy(self.residual(index))
            draws = streams.generator(self.seed, f"mask of {index} at {rate}")
            known = torch.rand(left.shape, generator=draws) >= rate
            error = torch.where(known, 0.0, left - self.encoded[index].regrown(torch.where(known, left, 0.0), known))
            self._prior_errors[index, rate] = subject.output_errors(error)[0]
        return self._prior_errors[index, rate]

    def _picked(self, strengths: Sequence[float], room: float) -> list[np.ndarray] | None:
        """By stage, the depth of every column, for so many check bits; the first of two stages has half of them."""
        stages: list[np.ndarray] = []
        before = np.zeros(len(self._kind), np.int64)
        spent = 0.0
        for number, strength in enumerate(strengths, 1):
            pairs, at, columns = np.unique(self._kind * DEPTHS + before, return_inverse=True, return_counts=True)
            kind, coarse = np.divmod(pairs, DEPTHS)
            tensor = self._tensor_of_kind[kind]
            gain = (self._variance[:, None] * self._distortion * self._counts_for[:, None])[tensor]
            gain = gain * self._weight_of_kind[kind, None]
            cost = self._bits[tensor] - np.take_along_axis(self._bits[tensor], coarse[:, None], 1)
            cost = strength * np.maximum(cost, 0.0) * self._rows[tensor, None]
            allowed = REFINES[coarse].copy()
            if number < len(strengths):  # nothing refines these
                allowed[:, SIGN + 1 : FIRST_UNIFORM] = False
            picked = _filled(gain, cost, allowed, at, columns, room * number / len(strengths) - spent)
            if picked is None or not picked.any():
                return None
            spent += float(cost[at, picked].sum())
            stages.append(picked)
            before = picked
        return stages

    def _size(self, strengths: Sequence[float], stages: Sequence[np.ndarray]) -> float:
        """Bytes of the refinement with these depths, to a percent: lengths of codes are those of the samples."""
        weights = sum(subject.matrix.numel() for subject in self.subjects)
        segments = segments_of(weights)
        bits = 0.0
        before = np.zeros_like(stages[0])
        for strength, stage in zip(strengths, stages, strict=True):
            counts = np.zeros(LONGEST)
            used, columns = np.unique((self._tensor_of * DEPTHS + before) * DEPTHS + stage, return_counts=True)
            for tensor, coarse, fine, count in zip(
                used // DEPTHS**2, used // DEPTHS % DEPTHS, used % DEPTHS, columns, strict=True
            ):
                lengths = self._lengths[tensor, fine]
                if coarse:  # about: the shorter code is told already
                    shift = round(self._bits[tensor, fine] - self._bits[tensor, coarse])
                    lengths = np.eye(LONGEST)[max(shift, 0)]
                counts += count * self._rows[tensor] * lengths
            bits += segments * (8 + foretold_bits(counts / segments, strength, weights // segments))
            bits += 8 * len(zlib.compress(stage.astype(np.uint8).tobytes(), 1)) + 32
            before = stage
        return bits / 8 + 4 * len(self.subjects) + 5

    def _strongest(self, strength: float, stages: Sequence[np.ndarray], nbytes: float) -> float:
        """The strength up to which these depths take about so many bytes: the given one or more."""
        best = strength
        for _ in range(ROUNDS):
            size = self._size((strength,), stages)
            if size <= nbytes:
                best = max(best, strength)
                if size >= CLOSE * nbytes or strength == 1:
                    break
            strength = min(1.0, float(f"{strength * (1 + CLOSE) / 2 * nbytes / size:.4g}"))  # few digits to store
        return best


def _filled(
    gain: np.ndarray, cost: np.ndarray, allowed: np.ndarray, at: np.ndarray, columns: np.ndarray, room: float
) -> np.ndarray | None:
    """For each column the depth that makes the summed error least at a cost of at most `room` in all.

    The best for some price of a bit; between two prices, as many columns as fit are at the lower one. None if there is
    no room.

    Args:
        gain, cost, allowed: of the depths, for a column of each kind.
        at: the kind of each column.
        columns: of each kind.
    """
    if room <= 0:
        return None
    gain = np.where(allowed, gain, np.inf)
    each = np.arange(len(gain))

    def best(price: float) -> np.ndarray:
        return np.argmin(gain + price * cost, axis=1)

    def spent(picked: np.ndarray) -> float:
        return float((columns * cost[each, picked]).sum())

    low, high = 1e-40, 1e40
    if spent(best(low)) <= room:
        return best(low)[at]
    for _ in range(40):  # then prices differ by less than a billionth
        price = (low * high) ** 0.5
        low, high = (price, high) if spent(best(price)) > room else (low, price)
    rich, poor = best(low), best(high)
    more, worth = cost[each, rich] - cost[each, poor], gain[each, poor] - gain[each, rich]
    order = np.argsort((-worth / np.maximum(more, 1e-300))[at], kind="stable")
    fits = np.cumsum(more[at[order]]) <= room - spent(poor)
    picked = poor[at]
    picked[order[fits]] = rich[at[order[fits]]]
    return picked
