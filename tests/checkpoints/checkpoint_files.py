"""Models and files that the tests of checkpoints share."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from planaria.checkpoints import Checkpoint
from planaria.checkpoints.header import INDEX
from planaria.checkpoints.state_dict import DTYPES
from planaria.streams import generator


def noise(count: int, *, seed: int = 0) -> Tensor:
    """Random bytes."""
    return torch.randint(256, (count,), dtype=torch.uint8, generator=generator(seed, "test bytes"))


def tensor(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """Random bits: every NaN, and every byte that is no bool, among them."""
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    # Viewed through a fresh buffer: a dtype of 8 bytes wants its memory aligned.
    return noise(count, seed=seed).view(dtype).view(shape)


def every_dtype() -> dict[str, Tensor]:
    """A matrix, a scalar and nothing, of each dtype."""
    tensors = {}
    for index, (dtype, name) in enumerate(DTYPES.items()):
        tensors[f"{name}.matrix"] = tensor(dtype, 3, 4, seed=index)
        tensors[f"{name}.nothing"] = tensor(dtype, 0, 4)
        if name != "F4":
            tensors[f"{name}.scalar"] = tensor(dtype, seed=100 + index)
    return tensors


def small(*, seed: int = 0) -> dict[str, Tensor]:
    """Three tensors."""
    return {
        "first.weight": tensor(torch.float32, 6, 5, seed=seed),
        "first.bias": tensor(torch.bfloat16, 7, seed=seed + 1),
        "steps": tensor(torch.int64, seed=seed + 2),
    }


def bytes_of(value: Tensor) -> NDArray[np.uint8]:
    """The bytes that a file of this tensor holds."""
    line = value.contiguous().as_strided((value.numel(),), (1,))  # no copy where none is needed: copies mend bools
    return np.frombuffer(bytes(line.view(torch.uint8).tolist()), np.uint8)


def file_of(header: object, data: int | bytes = 0) -> bytes:
    """A safetensors file of this header (JSON text, or what becomes JSON) and this many zero bytes, or these."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + (bytes(data) if isinstance(data, int) else data)


def header_of(content: bytes) -> bytes:
    """The first part of a safetensors file."""
    return content[: 8 + int.from_bytes(content[:8], "little")]


def shards(folder: Path) -> Path:
    """`small` as a sharded folder."""
    tensors = small()
    parts = {"part-2.safetensors": ["first.weight"], "part-1.safetensors": ["first.bias", "steps"]}
    for name, held in parts.items():
        (folder / name).write_bytes(save({key: tensors[key] for key in held}, metadata={"format": "pt"}))
    weight_map = {key: name for name, held in parts.items() for key in held}
    write_index(folder, {"metadata": {"total_size": 1e3}, "weight_map": weight_map})
    return folder


def write_index(folder: Path, index: Any) -> None:
    """Puts an index in the folder."""
    (folder / INDEX).write_bytes(index if isinstance(index, bytes) else json.dumps(index).encode())


def all_bytes(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Every tensor as read in one piece."""
    return {name: checkpoint.read(name).tobytes() for name in checkpoint.entries}


def as_bytes(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Every tensor's bytes, past planaria."""
    return {name: bytes_of(value).tobytes() for name, value in tensors.items()}


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Sees that every file opened inside is closed at the end: the next one gets the lowest free number.

    Hold on to an error raised inside: with it, Python would close the file itself.
    """
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    yield
    again = os.open(os.devnull, os.O_RDONLY)
    os.close(again)
    assert again == lowest
