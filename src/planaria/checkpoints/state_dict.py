"""Tensors in memory."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from planaria.checkpoints.base import Checkpoint
from planaria.checkpoints.header import MOST_AXES, Entry, expected_entries, format_header, require_same_entries
from planaria.dtypes import integers, torch_dtypes
from planaria.errors import InvalidInput, OutputFailed
from planaria.files import replacing

DTYPES = {dtype: name for name, dtype in torch_dtypes().items()}


class StateDict(Checkpoint):
    """A dictionary of tensors, as `nn.Module.state_dict()` answers with, read and written where they are.

    Tensors that are one and the same memory (tied weights) are one entry; their other names are aliases. Writing goes
    past autograd: parameters stay who they are, and graphs are not told. A tensor that is not contiguous costs a copy
    of the rows asked for, one on an accelerator a copy to the CPU of the bytes asked for.

    Args:
        tensors: dense ones of the dtypes that safetensors names.
        headers: from a guard: the names, dtypes and shapes that there must be, and their order. Any name of shared
            memory will do.
        writable: allows writing.

    Raises:
        InvalidInput: if a value is not such a tensor.
        OtherModel: if the tensors are not those of `headers`.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], *, headers: Mapping[str, bytes] | None = None, writable: bool = False
    ):
        described = {name: _described(name, tensor) for name, tensor in tensors.items()}
        expected = None if headers is None else expected_entries(headers)
        same: dict[object, list[str]] = {}
        for name, tensor in tensors.items():
            same.setdefault(_memory(tensor) if tensor.numel() else name, []).append(name)
        found: dict[str, Entry] = {}
        self.aliases = {}
        for names in same.values():
            kept = [name for name in names if expected and name in expected] or names[:1]
            found |= {name: described[name] for name in kept}
            self.aliases |= {name: kept[0] for name in names if name not in kept}
        if expected is not None:
            require_same_entries(found, expected)
            found = {name: found[name] for name in expected}
        start = 0
        self.entries = {}
        for name, entry in found.items():
            self.entries[name] = Entry(name, entry.dtype, entry.shape, entry.nbytes, start)
            start += entry.nbytes
        self.headers = {"": format_header(self.entries.values())}
        self.header_damaged = False
        self.writable = writable
        self._tensors = {name: _as_integers(tensors[name]) for name in self.entries}

    def _read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        rows, offset = _rows(self._tensors[name], start, stop)
        return _line(rows)[start - offset : stop - offset].cpu().numpy().copy()

    def _write(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        rows, offset = _rows(self._tensors[name], start, start + len(content))
        line = _line(rows)
        line[start - offset : start - offset + len(content)] = torch.from_numpy(content.copy()).to(line.device)
        if line.data_ptr() != rows.data_ptr():
            rows.copy_(line.view(rows.dtype).view(rows.shape))


def write_state_dict(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Writes a model, whole or not at all: a `.safetensors` file, or a `.pt`, `.pth` or `.bin` one by `torch.save`.

    Links are followed. A safetensors file cannot share memory, so tied weights are stored once for each name. Raises
    `InvalidInput` on what `StateDict` refuses and on another file ending, and `OutputFailed`.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise InvalidInput(f"A model is written to a .safetensors, .pt, .pth or .bin file, not to {path.name!r}.")
    for name, tensor in tensors.items():
        _described(name, tensor)
    try:
        with replacing(path) as new:
            if path.suffix == ".safetensors":
                save_file(_apart(tensors), new, metadata={"format": "pt"})
            else:
                torch.save({name: tensor.detach() for name, tensor in tensors.items()}, new)
    except (RuntimeError, SafetensorError) as error:
        raise OutputFailed(f"Cannot write {path}: {error}. Choose a folder that can be written.") from error


def _described(name: str, tensor: Tensor) -> Entry:
    """The tensor's entry. Raises `InvalidInput` on what has no bytes of its own that could be written."""
    if not isinstance(name, str) or name == "__metadata__":
        raise InvalidInput(f"A tensor's name is a str and not '__metadata__', unlike {name!r}.")
    # Subclasses hide tensors of other shapes and dtypes behind themselves.
    if type(tensor) not in (Tensor, nn.Parameter):
        raise InvalidInput(f"{name!r} is a {type(tensor).__name__} and not a plain tensor. Leave it out.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else "sparse"
        raise InvalidInput(f"{name!r} is a {kind} tensor. Only dense tensors that hold data are supported.")
    if tensor.dtype not in DTYPES:
        raise InvalidInput(f"{name!r} is {tensor.dtype}, which safetensors does not name. Convert it.")
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise InvalidInput(f"{name!r} is expanded: its numbers share memory. Make it contiguous.")
    if tensor.dim() > MOST_AXES:
        raise InvalidInput(f"{name!r} has {tensor.dim()} axes; at most {MOST_AXES} can be computed with. Reshape it.")
    shape = tuple(tensor.shape)
    if DTYPES[tensor.dtype] == "F4":
        if not shape:
            raise InvalidInput(f"{name!r} is two 4-bit numbers and has no shape. Give it one.")
        shape = (*shape[:-1], 2 * shape[-1])  # safetensors counts the numbers, torch the pairs
    return Entry(name, DTYPES[tensor.dtype], shape, tensor.nbytes)


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same numbers in the same memory."""
    storage = tensor.untyped_storage().data_ptr()
    place = (tensor.device, storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return (*place, tensor.dtype, tensor.is_conj(), tensor.is_neg())


def _as_integers(tensor: Tensor) -> Tensor:
    """The same memory, away from autograd, in a dtype whose copies keep every bit."""
    tensor = tensor.data
    if tensor.is_conj() or tensor.is_neg():
        return tensor  # the bits in memory are not the tensor's: copying resolves them, and puts them back
    return integers(tensor)


def _rows(tensor: Tensor, start: int, stop: int) -> tuple[Tensor, int]:
    """A view of the rows that hold bytes `[start, stop)`, and the byte with which they begin."""
    tensor = tensor.view(-1) if tensor.is_contiguous() else tensor.squeeze()
    size = math.prod(tensor.shape[1:]) * tensor.element_size()
    return tensor[start // size : -(-stop // size)], start // size * size


def _line(rows: Tensor) -> Tensor:
    """The bytes of these rows: of their own memory if they are contiguous and plain, else of a copy."""
    plain = rows.resolve_conj().resolve_neg().contiguous()
    # A single number counts as contiguous whatever its stride, and a view as bytes minds the stride.
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, and no two in one memory."""
    apart, taken = {}, set()
    for name, tensor in tensors.items():
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        storage = (plain.device, plain.untyped_storage().data_ptr())
        apart[name] = plain.clone() if storage in taken else plain
        taken.add(storage)
    return apart
