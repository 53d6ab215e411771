"""The command that breaks a model on purpose, or breaks it again."""

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planaria.errors import InvalidInput
from planaria.guard_commands import Model, require_output, require_same_format

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    from torch import Tensor

    from planaria.checkpoints import Checkpoint
    from planaria.damages import Damage

OPTIONS = {
    "bit-flip": ("rate", "count", "bits"),
    "whole-weight": ("rate", "count"),
    "run": ("bytes",),
    "erasure": ("rate", "pattern"),
}


def damage(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the broken model here.")],
    kind: Annotated[str | None, typer.Option(help=f"How to break it: {', '.join(OPTIONS)}.")] = None,
    rate: Annotated[float | None, typer.Option(help="Share of bits (bit-flip) or weights that break.")] = None,
    count: Annotated[int | None, typer.Option(help="How many bits or weights break, instead of a rate.")] = None,
    nbytes: Annotated[int | None, typer.Option("--bytes", help="Length of a run.")] = None,
    bits: Annotated[
        str | None, typer.Option(help="Bits that may flip: all, sign, exponent, mantissa or msb.", show_default="all")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="What is erased: iid, block, row, column or tensor.", show_default="iid")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which weights break depends on it.", show_default="0")] = None,
    faults: Annotated[Path | None, typer.Option(help="Write the exact list of faults here.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Break what this list of faults says.")] = None,
) -> None:
    """Break a copy of a model, for trials; with --faults, so that it can be broken or mended again exactly.

    All of a model's tensors are struck together, but for an erasure, which takes its share of each.
    """
    given = {"rate": rate, "count": count, "bytes": nbytes, "bits": bits, "pattern": pattern}
    given = {name: value for name, value in given.items() if value is not None}
    if (kind is None) == (replay is None):
        raise InvalidInput("Say how to break the model: exactly one of --kind and --replay.")
    if replay is not None and (given or seed is not None or faults is not None):
        raise InvalidInput("--replay breaks what its list says, and takes --output alone.")
    chosen = None if kind is None else _chosen(kind, given)
    require_output(output, model, replay, faults)
    require_same_format(output, model)
    if faults is not None:
        require_output(faults, model)
    from planaria.checkpoints import open_checkpoint, write_state_dict
    from planaria.checkpoints.opening import load_state_dict
    from planaria.guard.copies import Copy, is_archive

    recipe = (chosen, seed or 0, replay, faults)
    if is_archive(model):
        tensors = load_state_dict(model)
        with open_checkpoint(tensors, writable=True) as checkpoint:
            changed = _break(checkpoint, *recipe)
        write_state_dict(output, tensors)
    else:
        with open_checkpoint(model) as source:
            headers = source.headers
        with Copy(model, output, headers) as copy:
            with open_checkpoint(copy.path, writable=True) as checkpoint:
                changed = _break(checkpoint, *recipe)
            copy.publish()
    print(f"{sum(changed):,} weights changed, in {sum(map(bool, changed)):,} of {len(changed):,} tensors")
    for path in (output, faults):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)


class TensorsOf(Mapping[str, "Tensor"]):
    """A checkpoint's tensors, read one at a time. Raises `InvalidInput` on types that PyTorch has no tensors of."""

    def __init__(self, checkpoint: "Checkpoint"):
        self.checkpoint = checkpoint

    def __getitem__(self, name: str) -> "Tensor":
        import torch

        from planaria.checkpoints.state_dict import DTYPES

        entry = self.checkpoint.entries[name]
        dtype = {name: dtype for dtype, name in DTYPES.items()}.get(entry.dtype)
        if dtype is None or entry.nbytes != dtype.itemsize * math.prod(entry.shape):
            raise InvalidInput(f"{name!r} is {entry.dtype}, of which single weights cannot be broken. Leave it out.")
        return torch.from_numpy(self.checkpoint.read(name)).view(dtype).view(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint.entries)

    def __len__(self) -> int:
        return len(self.checkpoint.entries)


def _chosen(kind: str, given: Mapping[str, Any]) -> "Damage":
    """The damage of that kind. Raises `InvalidInput` on options that it lacks or needs."""
    from planaria.damages import BitFlip, Erasure, Run, WholeWeight

    if kind not in OPTIONS:
        raise InvalidInput(f"Unknown kind {kind!r}. Kinds are: {', '.join(OPTIONS)}.")
    takes = f"--kind {kind} takes --{' and --'.join(OPTIONS[kind])}"
    if surplus := [name for name in given if name not in OPTIONS[kind]]:
        raise InvalidInput(f"--{surplus[0]} does not fit: {takes}.")
    if not given.keys() & {"rate", "count", "bytes"} or {"rate", "count"} <= given.keys():
        raise InvalidInput(f"Say how much to break, in one way: {takes}.")
    if kind == "run":
        return Run(given["bytes"])
    if kind == "erasure":
        return Erasure(given["rate"], pattern=given.get("pattern", "iid"))
    if kind == "bit-flip":
        return BitFlip(given.get("rate"), count=given.get("count"), bits=given.get("bits", "all"))
    return WholeWeight(given.get("rate"), count=given.get("count"))


def _break(
    checkpoint: "Checkpoint", chosen: "Damage | None", seed: int, replay: Path | None, faults_file: Path | None
) -> list[int]:
    """Breaks a checkpoint, as chosen or as in the list to replay. Answers with the weights changed, by tensor.

    Raises:
        InvalidInput: if the list is of another model, or the damage does not fit this one.
        InvalidFile, FileNotFoundError: if the list cannot be read.
        OutputFailed: if the faults cannot be written.
    """
    import torch

    from planaria.damages import ModelFaults
    from planaria.damages.faults import integers
    from planaria.streams import generator

    tensors = TensorsOf(checkpoint)
    if chosen is not None:
        faults = chosen.apply_to_model(tensors, generator(seed, "damage"))
    else:
        assert replay is not None  # the caller sees to it
        faults = ModelFaults.load(replay)
    if unmatched := sorted(tensors.keys() ^ faults.tensors.keys()):
        raise InvalidInput(f"The faults are of another model: only one of the two has {unmatched[0]!r}.")
    if faults_file is not None:
        faults.save(faults_file)
    for name, one in faults.tensors.items():
        broken = ModelFaults({name: one}).replay({name: tensors[name]})[name]  # its errors name the tensor
        if len(one.index):
            checkpoint.write(name, 0, integers(broken).view(-1).view(torch.uint8).numpy())
    return [int((integers(one.old) != integers(one.new)).sum()) for one in faults.tensors.values()]
