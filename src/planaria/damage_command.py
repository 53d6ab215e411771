"""The command that breaks a model on purpose, or breaks it again."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planaria.errors import InvalidInput
from planaria.guard_commands import Model
from planaria.guard_inputs import require_output, require_same_format

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    from torch import Tensor

    from planaria.checkpoints import Checkpoint
    from planaria.damages import Damage

# Each is a class of planaria.damages; what its constructor takes are the options that fit.
KINDS = (
    "bit-flip",
    "burst-flip",
    "adjacent-double",
    "stuck-at",
    "whole-weight",
    "run",
    "page",
    "device-stuck-at",
    "corrupt-device",
    "programming-noise",
    "drift",
    "conductance-quantisation",
    "set-zero",
    "set-value",
    "uniform-random",
    "normal-random",
    "disturb",
    "non-finite",
    "erasure",
    "zeroed-tensor",
    "swapped-tensors",
    "truncated-file",
)


def damage(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the broken model here.")],
    kind: Annotated[str | None, typer.Option(help=f"How to break it: {', '.join(KINDS)}.")] = None,
    rate: Annotated[float | None, typer.Option(help="Share of bits, weights, pages or tensors that break.")] = None,
    count: Annotated[int | None, typer.Option(help="How many of them break, instead of a rate.")] = None,
    tensors: Annotated[
        list[str] | None,
        typer.Option(help="Break only tensors of such names, as '*.scale'; may be given more than once."),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Bits that may break: all, sign, exponent, mantissa, msb, or positions, as 0,30.", show_default="all"
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="Which bits may flip: both, 0to1 or 1to0.", show_default="both")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Bits of a burst.")] = None,
    nbytes: Annotated[int | None, typer.Option("--bytes", help="Length of a run, or of a page.")] = None,
    fill: Annotated[
        str | None, typer.Option(help="What a run or page holds then: random or zero.", show_default="random")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="What is erased: iid, block, row, column, channel, ring or tensor.", show_default="iid"),
    ] = None,
    kept: Annotated[
        float | None, typer.Option(help="Share of a truncated file before its end.", show_default="drawn")
    ] = None,
    value: Annotated[
        float | None, typer.Option(help="What weights hold (nan, inf and -inf too), or bits: 0 or 1.")
    ] = None,
    low: Annotated[float | None, typer.Option(help="Least uniform number.", show_default="-1")] = None,
    high: Annotated[float | None, typer.Option(help="Largest uniform number.", show_default="1")] = None,
    mean: Annotated[float | None, typer.Option(help="Mean of normal numbers.", show_default="0")] = None,
    std: Annotated[float | None, typer.Option(help="Their standard deviation.", show_default="1")] = None,
    size: Annotated[float | None, typer.Option(help="Size of a disturbance.")] = None,
    distribution: Annotated[
        str | None, typer.Option(help="Its distribution: normal or uniform.", show_default="normal")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Its unit: rms (of the tensor) or absolute.", show_default="rms")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(help="Range of corrupt devices, of the largest weight.", show_default="0.01")
    ] = None,
    sa0: Annotated[
        float | None, typer.Option(help="Share of devices stuck at zero conductance.", show_default="0.0175")
    ] = None,
    sa1: Annotated[
        float | None, typer.Option(help="Share of devices stuck at full conductance.", show_default="0.0904")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="What is programmed: pcm, reram, reram-1-day, ...", show_default="pcm")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Factor of programming noise.", show_default="1")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long devices drift.")] = None,
    read_noise: Annotated[float | None, typer.Option(help="Factor of their read noise.", show_default="1")] = None,
    levels: Annotated[int | None, typer.Option(help="Conductances that a device can hold.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which weights break depends on it.", show_default="0")] = None,
    faults: Annotated[Path | None, typer.Option(help="Write the exact list of faults here.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Break what this list of faults says.")] = None,
) -> None:
    """Break a copy of a model, for trials; with --faults, so that it can be broken or mended again exactly.

    Most kinds strike all of a model's tensors together; an erasure takes its share of each, and analog devices are
    broken tensor by tensor.
    """
    settings = {
        "rate": rate,
        "count": count,
        "bits": bits if bits is None or not set(bits) <= set("0123456789,") else _positions(bits),
        "direction": direction,
        "length": length,
        "bytes": nbytes,
        "fill": fill,
        "pattern": pattern,
        "kept": kept,
        "value": value,
        "low": low,
        "high": high,
        "mean": mean,
        "std": std,
        "size": size,
        "distribution": distribution,
        "unit": unit,
        "spread": spread,
        "sa0": sa0,
        "sa1": sa1,
        "device": device,
        "scale": scale,
        "seconds": seconds,
        "read_noise": read_noise,
        "levels": levels,
    }
    given = {name: setting for name, setting in settings.items() if setting is not None}
    if (kind is None) == (replay is None):
        raise InvalidInput("Say how to break the model: exactly one of --kind and --replay.")
    if replay is not None and (given or tensors or seed is not None or faults is not None):
        raise InvalidInput("--replay breaks what its list says, and takes --output alone.")
    chosen = None if kind is None else _chosen(kind, given, tensors)
    require_output(output, model, replay, faults)
    require_same_format(output, model)
    if faults is not None:
        require_output(faults, model)
    from planaria.checkpoints import open_checkpoint, write_state_dict
    from planaria.checkpoints.opening import load_state_dict
    from planaria.guard.copies import Copy, is_archive

    recipe = (chosen, seed or 0, replay, faults)
    if is_archive(model):
        state = load_state_dict(model)
        with open_checkpoint(state, writable=True) as checkpoint:
            changed = _break(checkpoint, *recipe)
        write_state_dict(output, state)
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
        if entry.nbytes == 0:
            return torch.empty(entry.shape, dtype=dtype)
        return torch.from_numpy(self.checkpoint.read(name)).view(dtype).view(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint.entries)

    def __len__(self) -> int:
        return len(self.checkpoint.entries)


def _chosen(kind: str, given: Mapping[str, Any], tensors: Sequence[str] | None) -> "Damage":
    """The damage of that kind, of some tensors. Raises `InvalidInput` on options that it lacks or needs."""
    from planaria import damages

    if kind not in KINDS:
        raise InvalidInput(f"Unknown kind {kind!r}. Kinds are: {', '.join(KINDS)}.")
    of_kind = getattr(damages, kind.title().replace("-", ""))
    # What share of a tensor is erased is a rate here, as for every other kind.
    parameters = {"rate" if name == "fraction" else name: each for name, each in signature(of_kind).parameters.items()}
    takes = f"--kind {kind} takes {' and '.join(map(_option, parameters)) or 'no options of its own'}"
    if surplus := [name for name in given if name not in parameters]:
        raise InvalidInput(f"{_option(surplus[0])} does not fit: {takes}.")
    if missing := [name for name, each in parameters.items() if each.default is each.empty and name not in given]:
        raise InvalidInput(f"{_option(missing[0])} is missing: {takes}.")
    chosen = of_kind(**{parameters[name].name: setting for name, setting in given.items()})
    return chosen if not tensors else damages.OnTensors(chosen, names=tensors)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _positions(text: str) -> list[int]:
    """The positions of bits in a text of digits and commas. Raises `InvalidInput`."""
    try:
        return [int(position) for position in text.split(",")]
    except ValueError as error:
        raise InvalidInput(f"Positions of bits are numbers with a comma between two, as 0,30; not {text!r}.") from error


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
