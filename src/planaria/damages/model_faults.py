"""The exact list of what a damage did to all tensors of a model."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from planaria.damages.faults import Faults
from planaria.errors import InvalidFile, InvalidInput
from planaria.files import write_atomically

VERSION = "planaria model faults 1"
FIELDS = ("shape", "index", "old", "new")


@dataclass(frozen=True)
class ModelFaults:
    """The faults of every tensor of a model, by name; a tensor that was spared has an empty list.

    In a file, tensor `a` is kept as `shape/a` (int64), `index/a`, `old/a` and `new/a`; the order of names is not kept.
    """

    tensors: dict[str, Faults]

    @property
    def known(self) -> dict[str, Bool[Tensor, "..."]]:
        """For each tensor, True where the weight was left intact."""
        return {name: faults.known for name, faults in self.tensors.items()}

    def replay(self, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
        """Copies of all tensors with these faults. Raises `InvalidInput` if names, shapes or dtypes differ."""
        return self._copied(tensors, Faults.replay)

    def undo(self, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
        """Copies of all tensors with the intact values back in place. Raises as `replay` does."""
        return self._copied(tensors, Faults.undo)

    def _copied(self, tensors: Mapping[str, Tensor], write: Callable[[Faults, Tensor], Tensor]) -> dict[str, Tensor]:
        unmatched = sorted(set(tensors) ^ set(self.tensors))
        if unmatched:
            owner = "model" if unmatched[0] in tensors else "faults"
            raise InvalidInput(
                f"Only the {owner} has a tensor {unmatched[0]!r}; {len(unmatched)} names are on one side only. Pass "
                "the tensors that these faults were drawn on, under the same names."
            )
        copies = {}
        try:
            for name in tensors:
                copies[name] = write(self.tensors[name], tensors[name])
        except InvalidInput as error:
            raise InvalidInput(f"Tensor {name!r}: {error}") from error
        return copies

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, whole or not at all; equal faults give equal bytes. Raises `OutputFailed`."""
        content: dict[str, Tensor] = {}
        for name, faults in self.tensors.items():
            shape = torch.tensor(faults.shape, dtype=torch.int64)
            values = (shape, faults.index.cpu(), faults.old.cpu(), faults.new.cpu())
            content |= {f"{field}/{name}": value for field, value in zip(FIELDS, values, strict=True)}
        write_atomically(path, save(content, metadata={"format": VERSION}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ModelFaults":
        """Reads and validates a file that `save` wrote. Raises `InvalidFile`; a missing file is `FileNotFoundError`."""
        tensors = {}
        with _opened(path) as file:
            keys = file.keys()
            names = [key.removeprefix("shape/") for key in keys if key.startswith("shape/")]
            strangers = sorted(set(keys) - {f"{field}/{name}" for field in FIELDS for name in names})
            if strangers:
                raise InvalidFile(f"{path} is not a fault list: {strangers[0]!r} belongs to no tensor. Make it again.")
            for name in names:
                shape, index, old, new = (file.get_tensor(f"{field}/{name}") for field in FIELDS)
                source = f"{path}, tensor {name!r},"
                if shape.dtype != torch.int64 or shape.dim() != 1:
                    raise InvalidFile(f"{source} is not a sound fault list: its shape is no row of int64.")
                tensors[name] = Faults(shape=tuple(shape.tolist()), index=index, old=old, new=new)
                tensors[name].require_sound(source)
        return cls(tensors)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open list of faults. Raises `InvalidFile`, also for what goes wrong while reading."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no fault file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("format")
            if found != VERSION:
                raise InvalidFile(f"{path} is not a fault list: its format is {found!r}, not {VERSION!r}.")
            yield file
    except InvalidFile:
        raise
    except (SafetensorError, ValueError, OverflowError) as error:
        raise InvalidFile(f"{path} is not a fault list: {error}.") from error
