"""Small models and their guards, which the tests of the guard share."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from helpers import drawn, smooth_sheets
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from planaria.checkpoints import StateDict
from planaria.fit import Schedule
from planaria.guard import Guard, protect
from planaria.streams import generator

PLAIN = ("digest", "parity")
WITH_RULES = (*PLAIN, "rule")
SHORT = Schedule(iterations=10, batch=2, lengths=(4, 4), check_every=10, long_rollout=1)
KEY = bytes(range(32))


def random_bytes(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return random_bits(torch.uint8, count, seed=seed).numpy()


def random_bits(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """Every NaN among them."""
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    noise = torch.randint(256, (count,), dtype=torch.uint8, generator=generator(seed, "test bytes"))
    if dtype == torch.bool:
        noise &= 1  # copies mend other bytes
    return noise.view(dtype).view(shape)


def gaussian() -> dict[str, Tensor]:
    """Noise of several types, odd and empty tensors: about 87 KB in 27 tiles of 4,096 bytes."""
    return {
        "wide.weight": drawn(96, 150),
        "norm.scale": 1 + 0.01 * drawn(150, seed=1),
        "half": drawn(70, 60, seed=2).bfloat16(),
        "codes": (40 * drawn(77, 91, seed=3)).to(torch.int8),
        "nothing": torch.zeros(0, 3),
        "double": drawn(25, 30, seed=4).double(),
        "steps": torch.tensor(12),
    }


def smooth() -> dict[str, Tensor]:
    """Noise, in which no rule pays, images, with a pretrained one, and a film, for which one is fitted."""
    return {
        "noise": drawn(40, 50),
        "filters": smooth_sheets(80, 8, 8).view(80, 1, 8, 8),
        "film": smooth_sheets(1, 60, 50).view(60, 50),
    }


def crowd() -> dict[str, Tensor]:
    """Many small tensors among whole numbers, of which a guard is compact: about 43 KB in 55 tiles of 4,096 bytes."""
    tensors: dict[str, Tensor] = {}
    for layer in range(12):
        tensors[f"layers.{layer}.weight"] = (40 * drawn(30, 100, seed=layer)).to(torch.int8)
        tensors[f"layers.{layer}.scale"] = 0.01 + drawn(1, seed=20 + layer).abs()[0]
        tensors[f"layers.{layer}.norm"] = 1 + 0.1 * drawn(40, seed=40 + layer)
        tensors[f"layers.{layer}.steps"] = torch.tensor(layer)
    return tensors | {"head.weight": drawn(10, 90, seed=1), "head.bias": drawn(10, seed=2)}


@cache
def crowd_guard() -> Guard:
    return protect(crowd(), budget=0.06, tiers=PLAIN)


@cache
def gaussian_guard() -> Guard:
    return protect(gaussian(), budget=0.06, tiers=PLAIN)


@cache
def smooth_guard() -> Guard:
    """Fitting takes seconds: it is done once."""
    return protect(smooth(), budget=0.14, tiers=WITH_RULES, schedule=SHORT)


def write(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """The model as a file."""
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def bytes_of(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
    with StateDict(tensors) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.entries}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Equal names and bytes."""
    mine, theirs = bytes_of(one), bytes_of(other)
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def struck(content: bytes, places: NDArray[np.int64] | slice, *, seed: int = 0) -> bytes:
    """Other bytes at these places, all different from those that were there."""
    damaged = np.frombuffer(content, np.uint8).copy()
    part = damaged[places]
    damaged[places] = part ^ (1 + random_bytes(part.size, seed=seed) % 255)
    return damaged.tobytes()


def scattered(count: int, among: int, *, seed: int = 0) -> NDArray[np.int64]:
    """So many different places, ascending."""
    return torch.randperm(among, generator=generator(seed, "test places"))[:count].sort().values.numpy()
