"""`planaria-lab bench frontier`: every method on every network, by bytes and by the share of weights lost.

A point is a network, a budget, a method and the rate that is planned for. Each is written to a file of its own as soon
as it is measured, so that a campaign can be cut, go on later, and be shared among processes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planaria import streams
from planaria.damages import Erasure, ModelFaults
from planaria.errors import InvalidInput
from planaria_lab.bench.frontier.base import FrontierSubject, SideMemory, Weights
from planaria_lab.bench.frontier.image_subjects import convnet_subject, tinymlp_subject
from planaria_lab.bench.frontier.important_weights import ImportantWeights
from planaria_lab.bench.frontier.kriging_frequencies import KrigedFrequencies
from planaria_lab.bench.frontier.low_bit_copy import LowBitCopy
from planaria_lab.bench.frontier.low_rank import LowRankMethod
from planaria_lab.bench.frontier.method import Method
from planaria_lab.bench.frontier.minilm_subject import minilm_subject
from planaria_lab.bench.frontier.output_error import output_error
from planaria_lab.bench.frontier.parity import Parity
from planaria_lab.bench.frontier.planaria import Planaria
from planaria_lab.bench.frontier.rule import RuleAlone
from planaria_lab.bench.frontier.signs import StoredSigns
from planaria_lab.bench.frontier.zero_fill import ZeroFillMethod
from planaria_lab.bench.guard_subjects import MINILM
from planaria_lab.bench.points import collect_points, measure_points
from planaria_lab.bench.statistics import summary
from planaria_lab.toml_files import packaged_toml

METHODS: tuple[Method, ...] = (
    ZeroFillMethod(),
    RuleAlone(),
    Parity(),
    StoredSigns(),
    LowBitCopy(),
    ImportantWeights(),
    LowRankMethod(),
    KrigedFrequencies(),
    Planaria(),
)
SUBJECTS: Mapping[str, Callable[[], FrontierSubject]] = {
    "TinyMLP A": partial(tinymlp_subject, "A"),
    "TinyMLP B": partial(tinymlp_subject, "B"),
    "ConvNet": convnet_subject,
    MINILM: minilm_subject,
}
EXACT_BITS = 24
"""Of precision, that a weight restored bit for bit counts with: those of a float32 significand."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FrontierSettings:
    """How much is measured.

    Attributes:
        seed: of the masks.
        budgets: bytes of the side memory, as shares of the float32 bytes of the tensors that lose weights.
        rates: shares of the weights lost.
        masks: how many at each rate, by subject; those named are the subjects. At a rate of 1 there is only one.
        fewer: by subject, the "budgets" it is measured at and the rates that are "planned" for, where not all are.
    """

    seed: int
    budgets: Sequence[float]
    rates: Sequence[float]
    masks: Mapping[str, int]
    fewer: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = (self.masks.keys() | self.fewer.keys()) - SUBJECTS.keys()
        if unknown:
            raise InvalidInput(f"Unknown subject {min(unknown)!r}. Subjects are: {', '.join(SUBJECTS)}.")
        if not all(0 < rate <= 1 for rate in self.rates) or not all(0 < budget < 1 for budget in self.budgets):
            raise InvalidInput("Rates lie in (0, 1] and budgets in (0, 1).")
        if not (self.rates and self.budgets and self.masks) or min(self.masks.values()) < 1:
            raise InvalidInput("The bench needs at least one subject, budget and rate, and one mask of each.")
        every = {"budgets": self.budgets, "planned": self.rates}
        for name, few in self.fewer.items():
            if not all(what in every and set(some) <= set(every[what]) for what, some in few.items()):
                raise InvalidInput(f'Of {name!r} fewer "budgets" or "planned" rates are chosen from all, not {few}.')

    def of(self, subject: str) -> tuple[Sequence[float], Sequence[float]]:
        """The budgets of a subject, and the rates that are planned for."""
        few = self.fewer.get(subject, {})
        return few.get("budgets", self.budgets), few.get("planned", self.rates)

    @classmethod
    def packaged(cls) -> "FrontierSettings":
        """Those that come with the package."""
        return cls(**packaged_toml("frontier"))


def stored_faults(subject: FrontierSubject, *, rate: float, mask: int, seed: int) -> ModelFaults:
    """The faults that every method and budget faces: mask number `mask` at `rate`."""
    draws = streams.generator(seed, f"{subject.name}, rate {rate}, mask {mask}")
    return Erasure(rate).apply_to_model(subject.weights, draws)


def precision(intact: Weights, restored: Weights, known: Mapping[str, Tensor]) -> float:
    """Bits of precision recovered of each missing weight, log2(s2 / d) / 2, at most `EXACT_BITS`; 0 is zero fill.

    s2 is the mean square of a tensor's weights and d that of the error of its missing ones; the mean over tensors by
    the number of weights missing.
    """
    bits = missing = 0.0
    for name, weight in intact.items():
        there = ~known[name]
        error = float((restored[name] - weight)[there].double().square().mean()) if there.any() else 0.0
        share = max(error / max(float(weight.double().square().mean()), 1e-300), 4.0**-EXACT_BITS)
        count = int(there.count_nonzero())
        bits, missing = bits - 0.5 * count * math.log2(share), missing + count
    return bits / missing if missing else float(EXACT_BITS)


def measure(
    subject: FrontierSubject,
    method: Method,
    *,
    budget: float,
    planned: float | None,
    rates: Sequence[float],
    masks: int,
    seed: int,
    tell: Tell,
) -> dict[str, Any]:
    """One point, ready for JSON. Where the method keeps nothing in so few bytes, "nbytes" is None and nothing measured.

    Args:
        budget: share of the subject's bytes.
        planned: the rate that the method is told; None for none in particular.
        rates: at which it is measured.
        masks: at each rate but 1.

    Raises:
        InvalidInput: if the method keeps more bytes than it may, or changes a weight that was not lost.
    """
    allowed = math.floor(budget * subject.nbytes)
    tell("preparing")
    began = time.perf_counter()
    memory = method.prepare(
        subject.weights,
        nbytes=allowed,
        rate=planned,
        moments=subject.moments,
        spaces=subject.spaces,
        judge=subject.judge,
    )
    seconds = time.perf_counter() - began
    if memory is not None and memory.nbytes > allowed:
        raise InvalidInput(f"{method.name} kept {memory.nbytes} bytes where {allowed} were allowed. Correct it.")
    cells = {}
    for rate in rates if memory is not None else ():
        assert memory is not None
        tell(f"{rate:.0%} lost")
        runs = [
            _restored(subject, method, memory, stored_faults(subject, rate=rate, mask=mask, seed=seed))
            for mask in range(masks if rate < 1 else 1)
        ]
        by_name = {name: [run[name] for run in runs] for name in runs[0]}
        cells[str(rate)] = {name: asdict(summary([values])) | {"runs": values} for name, values in by_name.items()}
    return {
        "subject": subject.name,
        "method": method.name,
        "budget": budget,
        "planned": planned,
        "metric": subject.metric,
        "nbytes": None if memory is None else memory.nbytes,
        "allowed": allowed,
        "subject_bytes": subject.nbytes,
        "intact": subject.evaluate(subject.weights),
        "seed": seed,
        "seconds": round(seconds, 2),
        "rates": cells,
    }


def _restored(subject: FrontierSubject, method: Method, memory: SideMemory, faults: ModelFaults) -> dict[str, float]:
    """The metrics after one damage, the output error of the layers, and the precision of the missing weights."""
    known = faults.known
    damaged = faults.replay(subject.weights)
    restored = memory.restore(damaged, known)
    for name, weight in damaged.items():
        if not torch.equal(restored[name][known[name]], weight[known[name]]):
            raise InvalidInput(f"{method.name} changed weights of {name} that were not lost. Correct it.")
    return subject.evaluate(restored) | {
        "output_error": output_error(subject.weights, restored, subject.moments),
        "bits": precision(subject.weights, restored, known),
    }


def points(
    settings: FrontierSettings, methods: Sequence[Method] = METHODS
) -> dict[str, Callable[[Tell], dict[str, Any]]]:
    """What measures each point, by its name. Planned for a rate a point is measured at that rate, else at all."""
    subject = cache(lambda name: SUBJECTS[name]())

    def measured(name: str, tell: Tell, **told: Any) -> dict[str, Any]:
        tell("loading")
        return measure(subject(name), masks=settings.masks[name], seed=settings.seed, tell=tell, **told)

    return {
        f"{name}, {100 * budget:g} %, {method.name}, for {'any rate' if planned is None else f'{100 * planned:g} %'}": (
            partial(
                measured,
                name,
                method=method,
                budget=budget,
                planned=planned,
                rates=settings.rates if planned is None else (planned,),
            )
        )
        for name in settings.masks
        for method in methods
        for budget in settings.of(name)[0][: None if method.spends else 1]
        for planned in ((None, *settings.of(name)[1]) if method.plans else (None,))
    }


def run(
    settings: FrontierSettings,
    folder: Path,
    *,
    only: str = "",
    again: bool = False,
    methods: Sequence[Method] = METHODS,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Measures the points with `only` in their names that `folder` lacks, or all of them `again`; see `collected`.

    Raises:
        InvalidInput: if no point has that name.
        DataNotFound: if a model is not installed.
        InvalidFile: if a point or an earlier result in the folder is none.
        OutputFailed: if a point cannot be written.
    """
    possible = points(settings, methods)
    measure_points(possible, folder, earlier="frontier.json", only=only, again=again, progress=progress)
    return collected(settings, folder, methods)


def collected(settings: FrontierSettings, folder: Path, methods: Sequence[Method] = METHODS) -> dict[str, Any]:
    """All points that the folder has, ready for JSON. Raises `InvalidFile` if a file there is no point."""
    found = collect_points(points(settings, methods), folder, check=lambda point: point["rates"].items())
    return {
        "settings": asdict(settings),
        "better": {
            **dict.fromkeys(("accuracy", "cosine", "spearman", "nearest", "bits"), "higher"),
            **dict.fromkeys(("output_error", "nbytes", "seconds"), "lower"),
        },
        "points": found,
    }
