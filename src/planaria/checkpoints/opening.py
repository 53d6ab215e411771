"""One door to all checkpoints."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from planaria.checkpoints.base import Checkpoint, require_file
from planaria.checkpoints.foreign import advice
from planaria.checkpoints.header import INDEX
from planaria.checkpoints.safetensors_file import SafetensorsFile
from planaria.checkpoints.sharded_folder import ShardedFolder
from planaria.checkpoints.state_dict import StateDict
from planaria.errors import InvalidFile, InvalidInput

UNGUARDED = (
    " What holds a .pt file together, its zip directory and pickle, is not guarded: fetch it again, and convert it to "
    "safetensors, whose header a guard restores."
)


def open_checkpoint(
    model: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    headers: Mapping[str, bytes] | None = None,
    mended: Mapping[str, bytes] | None = None,
    writable: bool = False,
) -> Checkpoint:
    """Opens a model wherever it is.

    Args:
        model: a module; a dictionary of tensors; a `.safetensors` file; a folder with `model.safetensors.index.json`
            and its shards, or with `model.safetensors`; a `.pt`, `.pth` or `.bin` file, which is loaded into memory by
            `torch.load(weights_only=True)`: what is written changes the loaded tensors and not the file.
        headers: from a guard, where the model must be the guard's and may be damaged.
        mended: with `headers`, by their names: of safetensors files, headers to go by whatever the disk holds.
        writable: allows writing.

    Raises:
        InvalidInput: if a tensor or what was given as the model is of no supported kind.
        InvalidFile: if a file does not hold what its name promises.
        OtherModel: if the model is not that of `headers`.
        FileNotFoundError: if a file is missing.
        OutputFailed: if a file is to be written and must not be.
    """
    if isinstance(model, nn.Module):
        return StateDict(model.state_dict(), headers=headers, writable=writable)
    if isinstance(model, Mapping):
        return StateDict(model, headers=headers, writable=writable)
    if not isinstance(model, str | os.PathLike):
        raise InvalidInput(f"A model is a module, a dictionary of tensors or a path, not a {type(model).__name__}.")
    path = Path(model)
    if path.is_dir():
        sharded = (path / INDEX).exists() if headers is None else INDEX in headers
        if sharded:
            return ShardedFolder(path, headers=headers, mended=mended, writable=writable)
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        return SafetensorsFile(path, headers=headers, mended=mended, writable=writable)
    if path.suffix in (".pt", ".pth", ".bin"):
        return StateDict(load_state_dict(path), headers=headers, writable=writable)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    raise InvalidInput(f"{path.name!r} is no .safetensors, .pt, .pth or .bin file and no folder. Convert the model.")


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.pt`, `.pth` or `.bin` file. Raises `InvalidFile` on anything but a dictionary of tensors."""
    require_file(Path(path))
    try:
        state = torch.load(path, weights_only=True, mmap=False, map_location="cpu")
    except Exception as error:  # a broken file may fail anywhere in the unpickler
        reason = str(error).partition("\n")[0]
        raise InvalidFile(
            f"{path} is no model that torch.load(weights_only=True) reads: {reason.rstrip('. ')}."
            f"{advice(path) or UNGUARDED}"
        ) from error
    if not isinstance(state, dict):
        raise InvalidFile(f"{path} holds a {type(state).__name__} and not a dictionary of tensors.")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InvalidFile(
                f"{path} holds a {type(tensor).__name__} at {str(name)[:80]!r} and not a tensor. Load it yourself and "
                'pass the dictionary of tensors in it, often its "state_dict" or "model".'
            )
    return state
