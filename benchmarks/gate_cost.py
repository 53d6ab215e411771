"""What check and repair cost as whole commands, and what they cost before: `python benchmarks/gate_cost.py`.

    python benchmarks/gate_cost.py [--acts] [--before OTHER/src] [--runs 5] [--output benchmarks/results/gate_cost]

makes a model of random weights in the shapes of a small sentence encoder (91 MB) and its guard of digests and parity;
then runs each command as a process of its own, in turn with the same command of another checkout's sources if they are
given, after one run of each that is not counted. The quotient is that of processor seconds, run by run, since a busy
machine hardly changes it; memory is the largest resident size, which Linux alone tells. Both checkouts have to
understand the guard, which the other one makes.

`--acts` leaves out the start of the process, most of a command's time and all of its noise: it calls `check` and
`repair` in one process a version, in turn, and takes the quotient of the shortest times.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from planaria.streams import generator

SEED = 0
LAYERS, HIDDEN, INNER, WORDS, POSITIONS = 6, 384, 1536, 30522, 512
DEVIATION = 0.05
HIT = 100  # weights
CUT = 50_000_000  # bytes that are left
SOURCES = Path(__file__).parents[1] / "src"
# Linux counts to a process what its parent held when it was started, but for the high-water mark of its own memory.
START = """
import atexit, os, re

def note():
    with open("/proc/self/status") as status, open(os.environ["PEAK"], "w") as peak:
        peak.write(re.search(r"VmHWM:[^0-9]*([0-9]+)", status.read())[1])

atexit.register(note)
from planaria.command_line import main
main()
"""
COMMANDS = {
    "check, intact": ("check", "model.safetensors"),
    f"check, {HIT} weights hit": ("check", "hit.safetensors"),
    f"check, cut to {CUT // 10**6} MB": ("check", "cut.safetensors"),
    f"check --quick, cut to {CUT // 10**6} MB": ("check", "cut.safetensors", "--quick"),
    "repair, intact": ("repair", "model.safetensors", "--output", "repaired.safetensors"),
    f"repair, {HIT} weights hit": ("repair", "hit.safetensors", "--output", "repaired.safetensors"),
    f"repair --known, {HIT} weights hit": (
        *("repair", "hit.safetensors", "--output", "repaired.safetensors"),
        *("--known", "known.safetensors"),
    ),
}
ACTS = """
import json, sys, time
from safetensors.torch import load_file
from planaria.guard import Guard

guard = Guard.load("model.guard")
masks = load_file("known.safetensors")
acts = {
    "check, intact": lambda: guard.check("model.safetensors", threads=1),
    "check, hit": lambda: guard.check("hit.safetensors", threads=1),
    "repair, intact": lambda: guard.repair("model.safetensors", "repaired.safetensors", threads=1),
    "repair, hit": lambda: guard.repair("hit.safetensors", "repaired.safetensors", threads=1),
    "repair of what a mask names, hit": lambda: guard.repair(
        "hit.safetensors", "repaired.safetensors", known=masks, threads=1
    ),
}
taken = {name: [] for name in acts}
for _ in range(int(sys.argv[1])):
    for name, act in acts.items():
        began = time.process_time()
        act()
        taken[name].append(time.process_time() - began)
print(json.dumps(taken))
"""
UNKNOWN = 3  # exit code of a command that a version does not have


def tensors() -> dict[str, Tensor]:
    """Normal weights by name."""
    draws = generator(SEED, "weights")

    def normal(*shape: int) -> Tensor:
        return DEVIATION * torch.randn(*shape, generator=draws)

    made = {"embeddings.words": normal(WORDS, HIDDEN), "embeddings.positions": normal(POSITIONS, HIDDEN)}
    for layer in range(LAYERS):
        shapes = {
            **{f"attention.{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value", "output")},
            "inner": (INNER, HIDDEN),
            "outer": (HIDDEN, INNER),
        }
        for name, shape in shapes.items():
            made[f"layers.{layer}.{name}.weight"] = normal(*shape)
            made[f"layers.{layer}.{name}.bias"] = normal(shape[0])
        for name in ("attention.norm", "norm"):
            made[f"layers.{layer}.{name}.weight"] = 1 + normal(HIDDEN)
            made[f"layers.{layer}.{name}.bias"] = normal(HIDDEN)
    return made | {"pooler.weight": normal(HIDDEN, HIDDEN), "pooler.bias": normal(HIDDEN)}


def make_files(folder: Path) -> None:
    """The model, whole, with a flipped bit in some weights, and cut; and the mask of the weights that were hit."""
    model = tensors()
    save_file(model, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:CUT])
    draws = np.random.default_rng(SEED)
    masks: dict[str, Tensor] = {}
    names = draws.choice(sorted(model), HIT)
    for name in names:
        weight = model[name].view(torch.int32).flatten()
        mask = masks.setdefault(name, torch.ones(model[name].shape, dtype=torch.bool))
        place = int(draws.integers(len(weight)))
        if mask.flatten()[place]:  # hit twice it would be right again
            weight[place] ^= 1 << int(draws.integers(31))
            mask.view(-1)[place] = False
    save_file(model, folder / "hit.safetensors")
    save_file(masks, folder / "known.safetensors")


def one_thread_of(sources: Path) -> dict[str, str]:
    """The environment of a process that computes with these sources in one thread."""
    return os.environ | {"PYTHONPATH": str(sources.resolve()), "OMP_NUM_THREADS": "1"}


def run(sources: Path, folder: Path, arguments: tuple[str, ...]) -> dict[str, float]:
    """One command as a process: processor seconds, seconds, MB and its exit code."""
    environment = one_thread_of(sources) | {"PEAK": str(folder / "peak")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", START, *arguments], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "processor": used.ru_utime + used.ru_stime,
        "wall": time.perf_counter() - began,
        "megabytes": int((folder / "peak").read_text()) / 1e3,
        "exit": process.returncode,
    }


def measure(folder: Path, versions: dict[str, Path], runs: int, only: str) -> list[dict[str, Any]]:
    """Every command that `only` is part of, in every version, in turn."""
    rows: list[dict[str, Any]] = []
    for what, command in COMMANDS.items():
        if only not in what:
            continue
        arguments = (*command, "--guard", "model.guard")
        taken: dict[str, list[dict[str, float]]] = {version: [] for version in versions}
        for counted in range(-1, runs):  # the first one warms caches
            for version, sources in versions.items():
                one = run(sources, folder, arguments)
                if counted >= 0 and one["exit"] != UNKNOWN:
                    taken[version].append(one)
        rows.append({"command": what, **taken})
        print(table([rows[-1]]).splitlines()[-1], flush=True)
    return rows


def measure_acts(folder: Path, versions: dict[str, Path], runs: int) -> dict[str, dict[str, list[float]]]:
    """Processor seconds of each act by version; the versions' processes in turn, `runs` times all acts in each."""
    taken: dict[str, dict[str, list[float]]] = {}
    for _ in range(2):
        for version, sources in versions.items():
            command, environment = [sys.executable, "-c", ACTS, str(runs)], one_thread_of(sources)
            done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
            for name, seconds in json.loads(done.stdout).items():
                taken.setdefault(name, {}).setdefault(version, []).extend(seconds)
    return taken


def table_of_acts(taken: dict[str, dict[str, list[float]]]) -> str:
    """The shortest time of each act, and what it is of the other version's."""
    lines = ["| act | now, s | before, s | now / before |", "| --- | --- | --- | --- |"]
    for name, seconds in taken.items():
        now, before = min(seconds["now"]), min(seconds.get("before", [float("nan")]))
        lines.append(f"| {name} | {now:.3f} | {before:.3f} | {now / before:.3f} |")
    return "\n".join(lines) + "\n"


def span(values: list[float], digits: int = 2) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})" if values else "-"


def table(rows: list[dict[str, Any]]) -> str:
    """Medians, with the least and the most."""
    lines = [
        "| command | processor s: now | before | quotient | wall s: now | before | MB: now | before |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        now, before = (
            {kind: [one[kind] for one in row.get(version, [])] for kind in ("processor", "wall", "megabytes")}
            for version in ("now", "before")
        )
        quotients = [a / b for a, b in zip(now["processor"], before["processor"], strict=False)]
        cells = [str(row["command"]), span(now["processor"]), span(before["processor"]), span(quotients, 3)]
        cells += [span(now["wall"]), span(before["wall"])]
        cells += [f"{max(of):.0f}" if of else "-" for of in (now["megabytes"], before["megabytes"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and, if asked to, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="sources of another checkout to compare with: its src folder")
    parser.add_argument("--now", type=Path, default=SOURCES, help="sources that are measured")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="measure only commands in whose description this occurs")
    parser.add_argument("--acts", action="store_true", help="measure acts in one process and not whole commands")
    parser.add_argument("--output", type=Path, help="folder for gate_cost.md and gate_cost.json")
    options = parser.parse_args()
    versions = {"now": options.now} | ({"before": options.before} if options.before else {})
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        protect = ("protect", "model.safetensors", "--tiers", "digest,parity", "--budget", "2%", "-o", "model.guard")
        made = run(versions.get("before", options.now), folder, protect)
        if made["exit"]:
            sys.exit(f"protect ended with exit code {made['exit']:.0f}.")
        rows: Any
        if options.acts:
            rows = measure_acts(folder, versions, options.runs)
            written = table_of_acts(rows)
        else:
            rows = measure(folder, versions, options.runs, options.only)
            written = table(rows)
    print(written)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "gate_cost.md").write_text(written)
        (options.output / "gate_cost.json").write_text(json.dumps({"seed": SEED, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
