"""How much memory the guard takes: acts on a large checkpoint, each in a process of its own."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from planaria import streams
from planaria.checkpoints import Entry, open_checkpoint
from planaria.checkpoints.header import INDEX, format_header
from planaria.guard import Guard, protect

ACTS = ("protect", "check", "repair")
BUDGET = 0.02
LARGEST_TENSOR = 2**28  # bytes, bfloat16
SHARD = 2**30  # bytes
AT_ONCE = 2**22  # numbers drawn at once
TINY = 1_000_000  # bytes of a checkpoint that needs next to nothing


@dataclass(frozen=True)
class DrawnCheckpoint:
    """A checkpoint that was made: its bytes, those of its largest tensor, and the number of its shards."""

    nbytes: int
    largest: int
    shards: int


def make_sharded_checkpoint(folder: Path, nbytes: int, *, seed: int = 0) -> DrawnCheckpoint:
    """Writes about `nbytes` of random bfloat16 and float32 tensors as a folder of shards with an index.

    The largest tensors are 256 MiB, or an eighth of a small checkpoint. The same size and seed give the same bytes.
    Memory: a few MiB.
    """
    folder.mkdir(parents=True)
    side = int((min(LARGEST_TENSOR, nbytes // 8) / 2) ** 0.5) // 8 * 8
    kinds = (("BF16", (side, side)), ("F32", (side // 2, side // 2)), ("F32", (side,)))
    sizes = {"BF16": 2, "F32": 4}
    shards: list[list[Entry]] = [[]]
    total = number = 0
    while total < nbytes:
        dtype, shape = kinds[number % len(kinds)]
        start = sum(entry.nbytes for entry in shards[-1])
        size = torch.Size(shape).numel() * sizes[dtype]
        if start + size > SHARD and start:
            shards.append([])
            start = 0
        shards[-1].append(Entry(f"layer.{number}", dtype, shape, size, start))
        total += size
        number += 1
    weight_map: dict[str, str] = {}
    draws = streams.generator(seed, "sharded checkpoint")
    for number, entries in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        weight_map |= {entry.name: name for entry in entries}
        with (folder / name).open("wb") as file:
            file.write(format_header(entries))
            for entry in entries:
                numbers = torch.Size(entry.shape).numel()
                for begin in range(0, numbers, AT_ONCE):
                    drawn = torch.randn(min(AT_ONCE, numbers - begin), generator=draws).mul_(0.02)
                    stored = drawn.bfloat16() if entry.dtype == "BF16" else drawn
                    file.write(stored.view(torch.uint8).numpy().data)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return DrawnCheckpoint(total, max(entry.nbytes for entries in shards for entry in entries), len(shards))


def memory(gigabytes: float, *, tell: Callable[[str], None]) -> dict[str, Any]:
    """Peak memory of protecting, checking and repairing a checkpoint of that size, and a tiny one; ready for JSON.

    Checked and repaired is one with a broken weight in every tensor, so that every part of the parity is decoded.
    """
    with tempfile.TemporaryDirectory() as folder:
        tell("making the checkpoint")
        made = {
            "large": make_sharded_checkpoint(Path(folder) / "large" / "model", round(gigabytes * 1e9)),
            "tiny": make_sharded_checkpoint(Path(folder) / "tiny" / "model", TINY),
        }
        peaks: dict[str, dict[str, int]] = {act: {} for act in ACTS}
        for size in made:
            for act in ACTS:
                tell(f"{act}, {size} checkpoint")
                peaks[act][size] = peak_memory(act, Path(folder) / size)
                if act == "protect":
                    _break_every_tensor(Path(folder) / size / "model")
        guard_bytes = (Path(folder) / "large" / "guard").stat().st_size
    large = made["large"]
    return {
        "nbytes": large.nbytes,
        "shards": large.shards,
        "largest_tensor": large.largest,
        "guard_bytes": guard_bytes,
        "peaks": {
            act: {"peak": peak["large"], "tiny": peak["tiny"], "beyond": peak["large"] - peak["tiny"] - large.largest}
            for act, peak in peaks.items()
        },
    }


def peak_memory(act: str, folder: Path) -> int:
    """Peak resident bytes of a fresh process that protects, checks or repairs `folder / "model"`."""
    command = [sys.executable, "-m", __name__, act, str(folder)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _break_every_tensor(model: Path) -> None:
    with open_checkpoint(model, writable=True) as checkpoint:
        for name in checkpoint.entries:
            checkpoint.write(name, 0, ~checkpoint.read(name, 0, 4))


def _perform(act: str, folder: Path) -> int:
    """Peak resident bytes of this process, having done that."""
    if act == "protect":
        protect(folder / "model", budget=BUDGET).save(folder / "guard")
    elif act == "check":
        Guard.load(folder / "guard").check(folder / "model")
    else:
        report = Guard.load(folder / "guard").repair(folder / "model", folder / "repaired")
        if report.verdict != "exact":
            raise RuntimeError(f"The repair is meant to be exact: {report}.")
    return peak_of_this_process()


def peak_of_this_process() -> int:
    """Peak resident bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands getrusage's figure on from the parent process; this one it does not
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(_perform(sys.argv[1], Path(sys.argv[2])))
