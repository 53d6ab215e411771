"""par2, which guards are compared with at equal bytes: what it recovers by its specification, and tried out."""

import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planaria import streams
from planaria.damages import ModelFaults
from planaria.dtypes import integers
from planaria_lab.bench.guard_subjects import GuardSubject, Tell

PAR2_MOST_BLOCKS = 32_768
PAR2_FIXED, PAR2_SOURCE, PAR2_RECOVERY = 400, 20, 68
"""Bytes of a par2 file beside its recovery data: in all, for each block of the source, for each recovery block."""


@dataclass(frozen=True)
class Blocks:
    """A way to use par2: `count` blocks of `size` bytes, of which any `recovery` are recovered, and no more.

    By its specification (par2, version 2.0, 2003): all damaged blocks are found by their checksums, and recovered if
    there are as many recovery blocks; else none is. `nbytes` is the least that one file of it takes, with every packet
    once; the programs store some of them several times.
    """

    size: int
    count: int
    recovery: int

    @property
    def nbytes(self) -> int:
        return PAR2_FIXED + PAR2_SOURCE * self.count + (PAR2_RECOVERY + self.size) * self.recovery

    @classmethod
    def choices(cls, nbytes: int, allowed: int) -> list["Blocks"]:
        """All that protect a model of `nbytes` by at most `allowed`, block sizes in steps of a half power of 2."""
        found, size = [], max(4, -(-nbytes // PAR2_MOST_BLOCKS // 4) * 4)
        while size <= allowed:
            count = -(-nbytes // size)
            room = allowed - PAR2_FIXED - PAR2_SOURCE * count
            if recovery := max(room, 0) // (PAR2_RECOVERY + size):
                found.append(cls(size, count, recovery))
            size = math.ceil(size * 2**0.5 / 4) * 4
        return found


def broken_blocks(subject: GuardSubject, faults: ModelFaults, choices: Sequence[Blocks]) -> dict[int, int]:
    """By block size, how many blocks have a broken byte; the tensors lie end to end."""
    positions, start = [np.empty(0, np.int64)], 0
    for name, tensor in subject.tensors.items():
        fault = faults.tensors[name]
        broken = (integers(fault.old) ^ integers(fault.new)).view(torch.uint8)
        broken = broken.view(len(fault.index), tensor.element_size())
        weight, byte = broken.numpy().nonzero()
        positions.append(start + fault.index.numpy()[weight] * tensor.element_size() + byte)
        start += tensor.nbytes
    at = np.concatenate(positions)
    return {one.size: len(np.unique(at // one.size)) for one in choices}


def par2_rule(*, tell: Tell) -> dict[str, Any]:
    """Whether the real par2 does as `Blocks` says, on a file of 1 MB; ready for JSON. Without par2, says so.

    For a few block sizes as many blocks are broken as there are recovery blocks, and one more.
    """
    program = shutil.which("par2") or shutil.which("par2", path=str(Path(sys.executable).parent))
    if program is None:
        return {"program": None}
    tell("par2")
    content = torch.randint(256, (1_000_000,), dtype=torch.uint8, generator=streams.generator(0, "par2")).numpy()
    cases = []
    for size in (400, 4_000, 40_000):
        count = -(-len(content) // size)
        blocks = Blocks(size, count, recovery=max(1, count // 50))
        for surplus in (0, 1):
            broken = content.copy()
            struck = torch.randperm(count, generator=streams.generator(surplus, f"par2 {size}"))
            broken[struck[: blocks.recovery + surplus].numpy() * size] ^= 1
            recovered, nbytes = _par2_repairs(program, blocks, content, broken)
            cases.append(
                asdict(blocks)
                | {
                    "broken": blocks.recovery + surplus,
                    "recovered": recovered,
                    "as_modelled": recovered == (surplus == 0) and nbytes >= blocks.nbytes,
                    "nbytes": nbytes,
                    "nbytes_modelled": blocks.nbytes,
                }
            )
    version = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    return {"program": version.strip(), "cases": cases}


def _par2_repairs(
    program: str, blocks: Blocks, content: NDArray[np.uint8], broken: NDArray[np.uint8]
) -> tuple[bool, int]:
    """Whether par2 makes the content of what is broken, and the bytes of its smallest single file that could."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model"
        file.write_bytes(content.tobytes())
        create = [
            program,
            "create",
            "-q",
            "-q",
            f"-s{blocks.size}",
            f"-c{blocks.recovery}",
            "-n1",
            "model.par2",
            "model",
        ]
        subprocess.run(create, cwd=folder, check=True, capture_output=True)
        nbytes = max(path.stat().st_size for path in Path(folder).glob("*.par2"))
        file.write_bytes(broken.tobytes())
        subprocess.run([program, "repair", "-q", "-q", "model.par2"], cwd=folder, check=False, capture_output=True)
        return file.read_bytes() == content.tobytes(), nbytes
