"""Plays many draws, and tells what came of them."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from referee.guards import PAIR
from referee.judge import Calibration
from referee.play import Outcome, play

OFF = 2.0  # factor from which a stated error is told by itself


def play_all(draws: int, *, seed: int = 0, jobs: int = 1) -> Iterator[Outcome]:
    """Draws `seed * 10**9` and following, in order; those of one model and guard in one process."""
    first = seed * 10**9
    parts = [range(start, min(start + PAIR, first + draws)) for start in range(first, first + draws, PAIR)]
    if jobs == 1:
        for part in parts:
            yield from _played(part)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for outcomes in pool.map(_played, parts):
            yield from outcomes


def _played(seeds: Sequence[int]) -> list[Outcome]:
    torch.set_num_threads(1)
    return [play(seed) for seed in seeds]


class Tally:
    """Counts over draws, and all draws with a violation."""

    def __init__(self) -> None:
        self.draws = 0
        self.by_rule: Counter[str] = Counter()
        self.first: dict[str, list[int]] = defaultdict(list)
        self.verdicts: Counter[str] = Counter()
        self.masks: Counter[str] = Counter()
        self.failed: list[Outcome] = []
        self.calibrations: list[tuple[int, Calibration]] = []

    def add(self, outcome: Outcome) -> None:
        self.draws += 1
        self.verdicts[outcome.verdict] += 1
        self.masks[outcome.mask] += 1
        self.calibrations += [(outcome.seed, one) for one in outcome.calibrations]
        if outcome.violations:
            self.failed.append(outcome)
        for rule in dict.fromkeys(violation.rule for violation in outcome.violations):
            self.by_rule[rule] += 1
            self.first[rule].append(outcome.seed)

    def __str__(self) -> str:
        lines = [f"{self.draws:,} draws, {len(self.failed):,} with a violation"]
        lines += [f"  {_counts(self.verdicts)}", f"  masks: {_counts(self.masks)}", ""]
        lines += [f"{'rule broken':<56} {'draws':>7} {'of 1,000':>9}  first seeds"]
        for rule, count in self.by_rule.most_common():
            seeds = ", ".join(map(str, self.first[rule][:4]))
            lines.append(f"{rule:<56} {count:>7,} {1000 * count / self.draws:>9.2f}  {seeds}")
        lines += ["", "true error of estimated weights, in units of the stated one:"]
        lines.append(
            f"{'method':<16} {'tensors':>8} {'5 %':>7} {'25 %':>7} {'median':>7} {'75 %':>7} {'95 %':>7} {'max':>9}"
        )
        for method, row in self.calibration().items():
            values = " ".join(f"{row[name]:>7.2f}" for name in ("5%", "25%", "50%", "75%", "95%"))
            lines.append(f"{method:<16} {row['tensors']:>8,} {values} {row['max']:>9.3g}")
        return "\n".join(lines)

    def calibration(self) -> dict[str, dict[str, float]]:
        """By method: quantiles of true over stated error, over tensors of which 8 weights or more were estimated."""
        ratios: dict[str, list[float]] = defaultdict(list)
        for _, one in self.calibrations:
            if one.count >= 8:
                ratios[one.method].append(one.true / one.stated)
        table = {}
        for method, values in sorted(ratios.items()):
            quantiles = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
            names = ("5%", "25%", "50%", "75%", "95%")
            table[method] = {
                "tensors": len(values),
                "max": max(values),
                **dict(zip(names, map(float, quantiles), strict=True)),
            }
        return table

    def to_json(self) -> dict[str, Any]:
        """All of it, but only the seeds of draws that broke a rule, by rule."""
        off = [
            {"seed": seed, "method": one.method, "count": one.count, "stated": one.stated, "true": one.true}
            for seed, one in self.calibrations
            if one.count >= 8 and one.true > OFF * one.stated
        ]
        return {
            "draws": self.draws,
            "with_a_violation": len(self.failed),
            "rules": {rule: {"draws": count, "seeds": self.first[rule]} for rule, count in self.by_rule.most_common()},
            "verdicts": dict(self.verdicts.most_common()),
            "masks": dict(self.masks.most_common()),
            "calibration": self.calibration(),
            "errors_understated": off,
        }


def tally(outcomes: Iterable[Outcome], *, told: bool, save: Callable[[Tally], None]) -> Tally:
    """Counts them, and saves the counts after every thousand and in the end; prints failures as they come if `told`."""
    counts = Tally()
    for outcome in outcomes:
        counts.add(outcome)
        if told and outcome.violations:
            print(outcome, flush=True)
        if counts.draws % 1000 == 0:
            save(counts)
    save(counts)
    return counts


def written(counts: Tally) -> str:
    return json.dumps(counts.to_json(), indent=1) + "\n"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())
