"""What the commands of a guard are given besides the model: outputs, keys and masks, validated."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from planaria.errors import InvalidFile, InvalidInput, OutputFailed

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    from torch import Tensor

KEY_VARIABLE = "PLANARIA_KEY"
FLAGS = {  # what the library calls its arguments, and the commands theirs
    "force=True": "--force",
    "key=KEY": f"--key-file or {KEY_VARIABLE}",
    "known=MASK": "--known",
    "faulty=MASK": "--faulty",
    "planaria.new_key()": "`planaria key -o FILE`",
}


def as_flags(text: str) -> str:
    """A message of the library with its arguments named as on the command line."""
    for argument, flag in FLAGS.items():
        text = text.replace(argument, flag)
    return text


def require_output(output: Path, *inputs: Path | None) -> None:
    """Raises `InvalidInput` if the output is one of these files or folders, or a model's file in such a folder.

    Raises `OutputFailed` if the output's own folder is missing: better now than after minutes of work.
    """
    if not output.absolute().parent.is_dir():
        raise OutputFailed(f"Cannot write {output}: there is no folder {output.parent}. Make it first.")
    taken = [path for path in inputs if path is not None]
    taken += [file for path in taken if path.is_dir() for file in path.glob("*.safetensors*")]
    for path in taken:
        if output.resolve() == path.resolve() or (output.exists() and path.exists() and output.samefile(path)):
            raise InvalidInput(f"The output {output} would replace {path}, which is used too. Name another file.")


def require_same_format(output: Path, model: Path) -> None:
    """Raises `InvalidInput` unless a model at `output` would be read as the same kind of model."""
    from planaria.checkpoints.sharded_folder import INDEX

    single = model / "model.safetensors"
    if single.is_file() and not (model / INDEX).exists():
        model = single
    if not model.is_dir() and output.suffix != model.suffix:
        raise InvalidInput(f"The output is of the model's format: name a {model.suffix} file, not {output.name!r}.")


def read_key(path: Path | None) -> bytes | None:
    """The key from a file or else the environment, or None. Raises `InvalidInput` unless it is 64 hex characters."""
    if path is not None:
        with path.open("rb") as file:
            content, source = file.read(1024), str(path)
    elif KEY_VARIABLE in os.environ:
        content, source = os.fsencode(os.environ[KEY_VARIABLE]), KEY_VARIABLE
    else:
        return None
    text = content.strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{64}", text):  # the key itself is not for the error message
        raise InvalidInput(f"The key in {source} is not 64 hex characters. Make one with `planaria key -o FILE`.")
    return bytes.fromhex(text.decode())


def read_mask(path: Path, *, faulty: bool = False) -> "dict[str, Tensor]":
    """Where weights are known to be good, by tensor: from a safetensors file of bool tensors, or from a fault list.

    If `faulty`, where they are not: a fault list says itself which are.

    Raises:
        InvalidFile: if it is neither.
        FileNotFoundError: if there is none.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from planaria.damages import ModelFaults
    from planaria.damages.model_faults import VERSION

    if not path.is_file():
        raise FileNotFoundError(f"There is no mask {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") == VERSION:
                known = ModelFaults.load(path).known
                return {name: ~mask for name, mask in known.items()} if faulty else known
            mask = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except SafetensorError as error:
        raise InvalidFile(f"{path} is not a mask: {error}. A mask is a safetensors file of bool tensors.") from error
    for name, tensor in mask.items():
        if tensor.dtype != torch.bool:
            raise InvalidFile(f"{path} is not a mask: {name!r} is {tensor.dtype}. A mask holds bool tensors.")
    return mask
