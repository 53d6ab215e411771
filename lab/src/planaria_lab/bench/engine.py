"""How fast the automaton runs: cell-steps a second, against the plain formulation and the machine's own limit."""

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planaria import streams
from planaria.automaton import Automaton, Recipe
from planaria.automaton.automaton import Implementation
from planaria_lab.bench.provenance import provenance

MEASURED = Recipe(name="engine", channels=8, hidden=32, steps=12, laplacian=True, fire_rate=1.0)
"""8 channels, 4 filters, 32 hidden units, every cell at every step: the arithmetic that the recipes share."""

GRIDS = {"64 sheets of 28x28": (64, 28, 28), "one 64x784 grid": (1, 64, 784), "one 1024x1024 grid": (1, 1024, 1024)}
IMPLEMENTATIONS: tuple[Implementation, ...] = ("plain", "fused")
SECONDS = 2.0  # measured for each figure at least; the best repetition counts


def run(*, progress: Callable[[int, int, str], None], seconds: float = SECONDS) -> dict[str, Any]:
    """Measures every grid; the answer is ready for JSON.

    "plain" is the formulation of most NCA code: NCHW, a depthwise 3x3 convolution, then two 1x1 ones (as matrix
    products). The floating-point operations counted are those of the two layers, `2 hidden (filters + 1) channels`
    a cell and step (three times as many when training), not those of the filters.
    """
    peak = matrix_product_rate(seconds)
    grids = {}
    for number, name in enumerate(GRIDS):
        progress(number, len(GRIDS), name)
        grids[name] = _measure_grid(name, peak, seconds)
    progress(len(GRIDS), len(GRIDS), "done")
    return {
        "recipe": {"channels": MEASURED.channels, "hidden": MEASURED.hidden, "filters": 4, "steps": MEASURED.steps},
        "matrix_product_gflops": round(peak / 1e9, 1),
        "better": {"forward": "higher", "training": "higher", "share": "higher", "peak_bytes": "lower"},
        "grids": grids,
        "provenance": provenance(),
    }


def _measure_grid(grid: str, peak: float, seconds: float) -> dict[str, Any]:
    automaton, state = _example(GRIDS[grid])
    work = math.prod(GRIDS[grid]) * MEASURED.steps
    flops = 2 * MEASURED.hidden * (4 + 1) * MEASURED.channels
    result: dict[str, Any] = {}
    for implementation in IMPLEMENTATIONS:

        def forward(implementation: Implementation = implementation) -> None:
            with torch.no_grad():
                automaton.run(state, implementation=implementation)

        def training(implementation: Implementation = implementation) -> None:
            automaton.zero_grad()
            automaton.run(state, implementation=implementation)[:, 0].square().sum().backward()

        forward_rate, training_rate = work / _best(forward, seconds), work / _best(training, seconds)
        result[implementation] = {
            "forward": forward_rate,
            "forward_share": forward_rate * flops / peak,
            "training": training_rate,
            "training_share": training_rate * 3 * flops / peak,
            "peak_bytes": peak_memory(grid, implementation, checkpoint=False),
            "peak_bytes_checkpointed": peak_memory(grid, implementation, checkpoint=True),
        }
    return result


def matrix_product_rate(seconds: float = SECONDS) -> float:
    """Floating-point operations a second of a 1024x1024 float32 matrix product, here and now."""
    one = torch.randn(1024, 1024, generator=streams.generator(0, "matrix product"))
    out = torch.empty_like(one)
    return 2 * 1024**3 / _best(lambda: torch.mm(one, one, out=out), seconds)


def peak_memory(grid: str, implementation: Implementation, *, checkpoint: bool) -> int:
    """Bytes by which one training rollout raises the peak memory of a fresh process.

    A process of its own, because an allocator that has grown once hides what the next rollout needs.
    """
    command = [sys.executable, "-m", __name__, grid, implementation, str(int(checkpoint))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_memory_here(grid: str, implementation: Implementation, checkpoint: bool) -> int:
    def train(shape: tuple[int, ...]) -> None:
        automaton, state = _example(shape)
        automaton.run(state, implementation=implementation, checkpoint=checkpoint)[:, 0].square().sum().backward()

    def peak() -> int:
        status = Path("/proc/self/status")
        if status.exists():  # Linux hands getrusage's figure on from the parent process; this one it does not
            return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    train((1, 3, 3))  # compiles and loads what any size needs
    before = peak()
    train(GRIDS[grid])
    return peak() - before


def _example(shape: tuple[int, ...]) -> tuple[Automaton, Tensor]:
    """An automaton with a rule that does something, and a half-known grid."""
    automaton = Automaton(MEASURED, seed=0)
    draws = streams.generator(0, "engine")
    with torch.no_grad():
        automaton.rule.delta_weight.normal_(0, 0.05, generator=draws)
    weight = torch.randn(shape, generator=draws)
    return automaton, automaton.start(weight, torch.rand(shape, generator=draws) < 0.5)


def _best(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest repetition, after one that warms up."""
    work()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| grid | implementation | forward, M cell-steps/s | share of matrix-product rate | training | share |"
        " peak MB, training | checkpointed |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    ]
    for grid, by_implementation in result["grids"].items():
        plain = by_implementation["plain"]
        for implementation, cell in by_implementation.items():
            forward, training = (
                f"{cell[what] / 1e6:.1f} ({cell[what] / plain[what]:.1f}x)" for what in ("forward", "training")
            )
            peaks = [f"{cell[what] / 1e6:.0f}" for what in ("peak_bytes", "peak_bytes_checkpointed")]
            lines.append(
                f"| {grid} | {implementation} | {forward} | {cell['forward_share']:.0%} | {training} | "
                f"{cell['training_share']:.0%} | {peaks[0]} | {peaks[1]} |\n"
            )
    made = result["provenance"]["machine"]
    lines.append(
        f"\nMatrix-product rate (float32, 1024x1024): {result['matrix_product_gflops']} GFLOP/s. {made['processor']}, "
        f"{made['threads']} threads.\n"
    )
    return "".join(lines)


if __name__ == "__main__":
    name, kind, checkpointed = sys.argv[1:]
    print(_peak_memory_here(name, "fused" if kind == "fused" else "plain", checkpointed == "1"))
