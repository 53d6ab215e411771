"""A model broken and repaired many times: what its guard restores, beside par2 at equal bytes; false alarms."""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from planaria import streams
from planaria.damages import ModelFaults
from planaria.dtypes import integers
from planaria.errors import LooksDifferent
from planaria.guard import Guard, Region
from planaria_lab.bench.guard_subjects import GuardSubject, Tell, drawn, module_of
from planaria_lab.bench.par2 import Blocks, broken_blocks
from planaria_lab.bench.statistics import median, proportion, summary


def campaign(subject: GuardSubject, guard: Guard, damage: str, *, runs: int, seed: int, tell: Tell) -> dict[str, Any]:
    """Breaks and repairs the model in memory `runs` times; ready for JSON.

    Every budget and every method meets the same faults. par2 gets the bytes of the guard and, for each damage anew, the
    block size that recovers most of these very runs; the guard gets no tuning.
    """
    choices = Blocks.choices(subject.nbytes, guard.size)
    attacks = []
    for number in range(runs):
        tell(f"{number} of {runs}")
        draws = streams.generator(seed, f"{subject.name}, {damage.removesuffix(', known')}, {number}")
        faults = drawn(damage, subject.tensors, draws)
        attacks.append(_attack(subject, guard, faults, known=damage.endswith(", known"), choices=choices))
    blocks = max(
        choices,
        key=lambda one: (
            sum(attack["blocks"][one.size] <= one.recovery for attack in attacks),
            -sum(attack["blocks"][one.size] for attack in attacks) / one.recovery,
        ),
        default=None,
    )
    for attack in attacks:
        broken = attack.pop("blocks")
        recovered = not attack["weights"] or (blocks is not None and broken[blocks.size] <= blocks.recovery)
        attack["par2_exact"] = float(recovered)
        attack["par2_restored"] = recovered
        attack["par2_error"] = 0.0 if recovered else attack["unrepaired_error"]
        if subject.accuracy:
            intact = subject.accuracy(subject.tensors)
            attack["par2_accuracy"] = intact if recovered else attack["unrepaired_accuracy"]
    by_name = {name: [attack[name] for attack in attacks] for name in attacks[0]}
    methods = ("unrepaired", "par2", "guard")
    result = {
        **_described(subject, guard),
        "damage": damage,
        "seed": seed,
        "weights": sum(by_name["weights"]) / runs,
        "par2": None if blocks is None else asdict(blocks) | {"nbytes": blocks.nbytes},
        "restored": {method: asdict(proportion(by_name[f"{method}_restored"])) for method in ("par2", "guard")},
        "exact": {method: asdict(summary([by_name[f"{method}_exact"]])) for method in ("par2", "guard")},
        "error": {method: _finite(median(by_name[f"{method}_error"]).median) for method in methods},
        "seconds": asdict(summary([by_name["seconds"]])) | {"maximum": max(by_name["seconds"])},
        **{name: sum(by_name[name]) for name in ("unseen", "silent", "refused")},
    }
    if subject.accuracy:
        accuracies = {method: asdict(summary([by_name[f"{method}_accuracy"]])) for method in methods}
        result["accuracy"] = {"intact": subject.accuracy(subject.tensors)} | accuracies
    return result | {"runs": {name: [_finite(value) for value in values] for name, values in by_name.items()}}


def _attack(
    subject: GuardSubject, guard: Guard, faults: ModelFaults, *, known: bool, choices: Sequence[Blocks]
) -> dict[str, Any]:
    """One damage and its repair.

    "unseen" are damaged weights outside of all reported regions, "silent" those that are wrong after the repair where
    the report does not say so. "refused" is 1 if the guard wanted to be forced, since the model looks fine-tuned.
    """
    model = faults.replay(subject.tensors)
    told: dict[str, Any] = {"unrepaired_accuracy": subject.accuracy(model)} if subject.accuracy else {}
    mask = faults.known if known else None
    began = time.perf_counter()
    try:
        report = guard.repair(model, known=mask)
        told["refused"] = 0
    except LooksDifferent:
        report = guard.repair(model, known=mask, force=True)
        told["refused"] = 1
    told["seconds"] = round(time.perf_counter() - began, 4)
    if subject.accuracy:
        told["guard_accuracy"] = subject.accuracy(model)
    regions = {tensor.name: tensor.regions for tensor in report.tensors}
    weights = inexact = all_wrong = unseen = silent = 0
    before = after = norm = 0.0
    for name, intact in subject.tensors.items():
        fault, size = faults.tensors[name], intact.element_size()
        wrong = (integers(model[name]) != integers(intact)).flatten().nonzero().flatten()
        weights += len(fault.index)
        all_wrong += len(wrong)
        inexact += int(torch.isin(fault.index, wrong).sum())
        unseen += _outside(fault.index * size, regions[name])
        silent += _outside(wrong * size, [region for region in regions[name] if region.verdict != "exact"])
        if len(fault.index) and intact.is_floating_point():
            norm += _squares(intact)
            before += _squares(fault.new.double() - fault.old.double())
            after += _squares(model[name].flatten()[wrong].double() - intact.flatten()[wrong].double())
    return told | {
        "weights": weights,
        "guard_restored": all_wrong == 0,
        "guard_exact": 1 - inexact / max(weights, 1),
        "guard_error": _ratio(after, norm),
        "unrepaired_error": _ratio(before, norm),
        "unseen": unseen,
        "silent": silent,
        "blocks": broken_blocks(subject, faults, choices),
    }


def _outside(starts: Tensor, regions: Sequence[Region]) -> int:
    """How many weights, by the byte with which they start, lie in none of these ascending regions."""
    if not regions:
        return len(starts)
    begins, ends = (torch.tensor([getattr(region, end) for region in regions]) for end in ("start", "stop"))
    at = torch.searchsorted(begins, starts, right=True) - 1
    return int(((at < 0) | (starts >= ends[at])).sum())


def _squares(values: Float[Tensor, "*any"]) -> float:
    return float(values.double().square().sum())


def _ratio(squares: float, of: float) -> float:
    """The root of a ratio; infinite where a weight is no number."""
    ratio = (squares / of) ** 0.5 if of else 0.0
    return ratio if math.isfinite(ratio) else math.inf


def false_alarms(subject: GuardSubject, guard: Guard, *, checks: int, tell: Tell) -> dict[str, Any]:
    """Checks the intact model through its file, as a module and as a state dict; ready for JSON."""
    alarms = {}
    for how, model in (("file", subject.file), ("module", module_of(subject.tensors)), ("state dict", subject.tensors)):
        tell(how)
        alarms[how] = sum(guard.check(model).verdict != "intact" for _ in range(checks))
    return {**_described(subject, guard), "checks": checks, "alarms": alarms}


def _described(subject: GuardSubject, guard: Guard) -> dict[str, Any]:
    return {
        "model": subject.name,
        "model_bytes": subject.nbytes,
        "sha256": hashlib.sha256(subject.file.read_bytes()).hexdigest(),
        "guard_bytes": guard.size,
        "tiers": guard.tier_bytes(),
    }


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if math.isfinite(value) else None
