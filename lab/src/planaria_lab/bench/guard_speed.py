"""How fast the guard is, and what a scrubber costs the model that it guards."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from planaria import streams
from planaria.checkpoints import write_state_dict
from planaria.damages import WholeWeight
from planaria.detectors.digest import tile_digests
from planaria.guard import Guard, protect
from planaria.scrubber import Scrubber
from planaria_lab.bench.statistics import median

BUDGET = 0.02
CHUNK = 2**22  # bytes read at once
BROKEN = 100  # weights
WORDS, WIDTH, HEADS, INNER, LAYERS = 30_522, 384, 12, 1_536, 6  # all-MiniLM-L6-v2's
BATCH, TOKENS = 8, 64
SHARE = 0.01  # of a core, for the scrubber
SECONDS = 2.0  # of each throughput


def speed(file: Path, tensors: Mapping[str, Tensor], *, repeats: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of what is done with a guard, on one thread or as many as are said; ready for JSON.

    Args:
        file: the model, a safetensors file. Files are read from the operating system's cache.
        tensors: the same, in memory.
        repeats: of each timing.
        tell: called with what is being timed.
    """
    guard = protect(file, budget=BUDGET, tiers=("digest", "parity"))
    threads = torch.get_num_threads()
    faults = WholeWeight(count=BROKEN).apply_to_model(tensors, streams.generator(0, "speed"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guard.save(folder / "guard")
        write_state_dict(folder / "broken.safetensors", faults.replay(tensors))

        def broken() -> dict[str, Tensor]:
            return faults.replay(tensors)

        # Each is what to time and what it is done to, which is made before the clock starts.
        timed: dict[str, tuple[int, Callable[[], Any], Callable[[Any], object]]] = {
            "plain BLAKE3 of the file": (1, lambda: None, lambda _: _hash(file)),
            "check, file": (1, lambda: None, lambda _: guard.check(file, threads=1)),
            "check, state dict": (1, lambda: None, lambda _: guard.check(tensors, threads=1)),
            "protect": (1, lambda: None, lambda _: protect(file, budget=BUDGET, tiers=("digest", "parity"), threads=1)),
            f"protect, {threads} threads": (
                threads,
                lambda: None,
                lambda _: protect(file, budget=BUDGET, tiers=("digest", "parity"), threads=threads),
            ),
            f"repair of {BROKEN} weights, file to file": (
                threads,
                lambda: None,
                lambda _: guard.repair(folder / "broken.safetensors", folder / "repaired.safetensors"),
            ),
            f"repair of {BROKEN} weights, state dict": (threads, broken, guard.repair),
            "load the guard": (1, lambda: None, lambda _: Guard.load(folder / "guard")),
        }
        acts = {}
        for act, (on, prepare, do) in timed.items():
            tell(act)
            with _threads(on):
                seconds = [_seconds(do, prepare()) for _ in range(repeats + 1)][1:]  # the first one warms up
            acts[act] = {"threads": on, "seconds": asdict(median(seconds)), "runs": seconds}
    return {"nbytes": guard.protected_bytes, "guard_bytes": guard.size, "acts": acts}


def scrubbing(*, pairs: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Share of an encoder's throughput that a scrubber at 1 % of a core takes; ready for JSON.

    The encoder has the sizes of all-MiniLM-L6-v2 and random weights. Throughputs with and without are measured in
    pairs, each time the other first, so that a machine that grows slower does so for both.
    """
    module = encoder()
    guard = protect(module, budget=BUDGET, tiers=("digest", "parity"))
    rate = SHARE * digest_rate(guard.manifest.tile)
    words = torch.randint(WORDS, (BATCH, TOKENS), generator=streams.generator(0, "scrubbed words"))
    overheads, plain = [], []
    _passes_per_second(module, words)
    scrubber = Scrubber(module, guard, rate=rate)
    for pair in range(pairs):
        tell(f"pair {pair} of {pairs}")
        rates = {}
        for scrubbed in ((False, True), (True, False))[pair % 2]:
            with scrubber if scrubbed else nullcontext():
                rates[scrubbed] = _passes_per_second(module, words)
        overheads.append(1 - rates[True] / rates[False])
        plain.append(rates[False])
    status = scrubber.status()
    return {
        "nbytes": guard.protected_bytes,
        "threads": torch.get_num_threads(),
        "rate": rate,
        "passes": status.passes,
        "tiles": status.checked,
        "false_alarms": status.corrected + status.estimated + status.uncorrectable,
        "last_error": status.last_error,
        "passes_per_second": asdict(median(plain)),
        "overhead": asdict(median(overheads)),
        "runs": overheads,
    }


def encoder() -> nn.Module:
    """An encoder of all-MiniLM-L6-v2's sizes: 90 MB of random weights."""
    with torch.random.fork_rng(devices=[]):  # PyTorch draws weights, which are drawn again below
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, batch_first=True)
        module = nn.Sequential(nn.Embedding(WORDS, WIDTH), nn.TransformerEncoder(layer, LAYERS))
    draws = streams.generator(0, "scrubbed encoder")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.05, generator=draws)
    return module.eval()


def digest_rate(tile: int) -> float:
    """Bytes a second that one core compares with their digests."""
    content = np.zeros(2**26, np.uint8)
    return len(content) / min(_seconds(lambda part: tile_digests(part, tile=tile, key=None), content) for _ in range(3))


def _passes_per_second(module: nn.Module, words: Tensor) -> float:
    began, passes = time.perf_counter(), 0
    with torch.inference_mode():
        while (seconds := time.perf_counter() - began) < SECONDS:
            module(words)
            passes += 1
    return passes / seconds


def _hash(file: Path) -> bytes:
    digest = blake3()
    with file.open("rb") as opened:
        while content := opened.read(CHUNK):
            digest.update(content)
    return digest.digest()


def _seconds(do: Callable[[Any], object], to: Any) -> float:
    began = time.perf_counter()
    do(to)
    return time.perf_counter() - began


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
