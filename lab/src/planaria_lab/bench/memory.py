"""Side memory beside its limits: distance to the bound, light damage in a guard, what a transformer's guard costs."""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from planaria import streams
from planaria.damages import Erasure
from planaria.errors import DataNotFound
from planaria.guard import protect
from planaria.memory import Planner
from planaria.tables import markdown
from planaria_lab.bench import tinymlp
from planaria_lab.bench.guard_memory import peak_of_this_process
from planaria_lab.bench.guard_subjects import MINILM, model_file
from planaria_lab.bench.provenance import provenance
from planaria_lab.bench.statistics import summary
from planaria_lab.bounds import erasure_distortion

MISSING = (0.1, 0.3, 0.5, 0.7, 0.9)
WEIGHTS = (2**20, 2**22)
COLUMNS = 1024
BUDGET = 0.03
LIGHT = 0.02  # of bytes, and of weights lost
MASKS = 20

Progress = Callable[[int, int, str], None]


def run(
    *, progress: Progress, weights: Sequence[int] = WEIGHTS, missing: Sequence[float] = MISSING, masks: int = MASKS
) -> dict[str, Any]:
    """All three measurements, ready for JSON. Those of a model that is not installed are None."""
    total = len(weights) * len(missing) + 2
    distances: dict[str, dict[str, Any]] = {}
    for number, count in enumerate(weights):
        for place, share in enumerate(missing):
            progress(number * len(missing) + place, total, f"{count:,} weights, {share:.0%} lost")
            distances.setdefault(str(count), {})[str(share)] = distance(count, share)
    progress(total - 2, total, "light damage")
    light = light_damage(masks)
    progress(total - 1, total, MINILM)
    try:
        cost = guard_cost()
    except DataNotFound:
        cost = None
    progress(total, total, "done")
    return {
        "budget": BUDGET,
        "distances": distances,
        "light": light,
        "guard": cost,
        "better": {
            **dict.fromkeys(("decibels", "seconds", "peak", "largest_error", "nbytes"), "lower"),
            **dict.fromkeys(("exact", "within_8_bits"), "higher"),
        },
        "provenance": provenance(),
    }


def distance(count: int, missing: float, *, seed: int = 0) -> dict[str, float]:
    """Decibels between a planned memory of Gaussian weights and 2^(-2 r / p), r all bits that it takes, a weight."""
    draws = streams.generator(seed, f"{count} weights, {missing} missing")
    weights = {"weight": torch.randn(count // COLUMNS, COLUMNS, generator=draws)}
    memory = Planner(weights).encode(int(BUDGET * 4 * count), expect=missing)
    faults = Erasure(missing).apply_to_model(weights, draws)
    restored = memory.restore(faults.replay(weights), faults.known)["weight"]
    wrong = (restored - weights["weight"])[~faults.known["weight"]]
    bound = erasure_distortion(8 * memory.nbytes / count, missing)
    return {
        "nbytes": memory.nbytes,
        "decibels": 10 * math.log10(float(wrong.double().square().mean()) / bound),
    }


def light_damage(masks: int, *, seed: int = 0) -> dict[str, Any]:
    """TinyMLP A under a guard of 2 % for 2 % of its first layer lost, at places that a fault map tells."""
    network = {name: tensor.detach() for name, tensor in tinymlp.shipped("A").state_dict().items()}
    guard = protect(network, budget=LIGHT, expect=LIGHT)
    intact = network["fc1.weight"]
    step = float(intact.max() - intact.min()) / 255  # of an 8-bit copy
    runs: dict[str, list[float]] = {"exact": [], "within_8_bits": [], "largest_error": []}
    for mask in range(masks):
        draws = streams.generator(seed, f"light damage {mask}")
        faults = Erasure(LIGHT).apply_to_model({"fc1.weight": intact}, draws)
        damaged = {name: tensor.clone() for name, tensor in network.items()} | faults.replay({"fc1.weight": intact})
        guard.repair(damaged, known=faults.known)
        error = (damaged["fc1.weight"] - intact).abs()[~faults.known["fc1.weight"]]
        runs["exact"].append(float((error == 0).double().mean()))
        runs["within_8_bits"].append(float((error <= step / 2).double().mean()))
        runs["largest_error"].append(float(error.max()) / step)
    return {
        "guard_bytes": len(guard.to_bytes()),
        "budget_bytes": int(LIGHT * sum(tensor.nbytes for tensor in network.values())),
        "tiers": guard.tier_bytes(),
        **{name: vars(summary([values])) | {"runs": values} for name, values in runs.items()},
    }


def guard_cost() -> dict[str, float]:
    """Seconds and peak memory of protecting the transformer's file without calibration, in a process of its own."""
    command = [sys.executable, "-m", __name__, str(model_file(MINILM))]
    seconds, peak, nbytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {"seconds": float(seconds), "peak": int(peak), "nbytes": int(nbytes)}


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    distances = result["distances"]
    shares = list(next(iter(distances.values())))
    lines = [
        [f"{int(count):,}", *(f"{by_share[share]['decibels']:.2f}" for share in shares)]
        for count, by_share in distances.items()
    ]
    light, cost, made = result["light"], result["guard"], result["provenance"]
    parts = [
        f"**Distance to 2^(-2 r / p)**, decibels; Gaussian weights, {result['budget']:.0%} of their bytes\n\n"
        + markdown(["weights", *(f"{float(share):.0%} lost" for share in shares)], lines),
        f"**TinyMLP A, {LIGHT:.0%} of FC1 lost**, places known; guard of {light['guard_bytes']:,} bytes where "
        f"{light['budget_bytes']:,} are allowed; {light['exact']['count']} masks\n\n"
        + markdown(
            ["of the lost weights", "mean", "minimum"],
            [
                ["exact", f"{light['exact']['mean']:.3f}", f"{light['exact']['minimum']:.3f}"],
                [
                    "as near as 8 bits",
                    f"{light['within_8_bits']['mean']:.3f}",
                    f"{light['within_8_bits']['minimum']:.3f}",
                ],
            ],
        ),
    ]
    if cost is not None:
        parts.append(
            f"**Protecting {MINILM}**, no calibration, a budget of {result['budget']:.0%}: {cost['seconds']:.0f} s, "
            f"peak memory {cost['peak'] / 1e6:,.0f} MB, guard {cost['nbytes']:,} bytes\n"
        )
    parts.append(
        f"planaria {made['versions']['planaria']} ({str(made['commit'])[:7]}), torch {made['versions']['torch']}, "
        f"{made['machine']['processor']}, {made['machine']['threads']} threads, {made['time'][:10]}.\n"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    began = time.perf_counter()
    made = protect(Path(sys.argv[1]), budget=BUDGET, threads=2)
    print(time.perf_counter() - began, peak_of_this_process(), len(made.to_bytes()))
