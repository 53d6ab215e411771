"""The commands that break a model on purpose: one a damage, and one that breaks it again."""

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape
from typer.core import TyperGroup

from planaria.errors import InvalidInput
from planaria.guard_commands import Model
from planaria.guard_inputs import require_output, require_same_format

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    from torch import Tensor

    from planaria.checkpoints import Checkpoint
    from planaria.damages import Damage, ModelFaults

Output = Annotated[Path, typer.Option("--output", "-o", help="Write the broken model here.")]


class Damages(TyperGroup):
    """One command for each class of `planaria.damages`, with its docstring and its constructor's parameters.

    They are made when they are asked for.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        self.commands = _commands()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self.commands = _commands()
        return super().get_command(ctx, cmd_name)


application = typer.Typer(
    cls=Damages,
    help="Break a copy of a model, for trials; with --faults, so that it can be broken or mended again exactly.\n\n"
    "Most damages strike all of a model's tensors together; an erasure takes its share of each, and analog devices are "
    "broken tensor by tensor.",
    no_args_is_help=True,
)


def replay(
    model: Model,
    faults: Annotated[Path, typer.Argument(help="A list that another command wrote to --faults.")],
    output: Output,
) -> None:
    """Exactly the faults of a list, once more."""

    def listed(tensors: Mapping[str, "Tensor"]) -> "ModelFaults":
        from planaria.damages import ModelFaults

        return ModelFaults.load(faults)

    _break(model, output, listed, inputs=[faults])


def _broken_by(
    damage: "Damage",
    *,
    model: Model,
    output: Output,
    tensors: Annotated[
        list[str] | None,
        typer.Option(help="Break only tensors of such names, as '*.scale'; may be given more than once."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which weights break depends on it.")] = 0,
    faults: Annotated[Path | None, typer.Option(help="Write the exact list of faults here.")] = None,
) -> None:
    """What all damages have in common."""
    from planaria.damages import OnTensors
    from planaria.streams import generator

    chosen = OnTensors(damage, names=tensors) if tensors else damage
    _break(model, output, lambda all_of: chosen.apply_to_model(all_of, generator(seed, "damage")), faults_file=faults)


@cache
def _commands() -> dict[str, Any]:
    from planaria import damages

    made = typer.Typer(add_completion=False)
    kinds = [kind for kind in vars(damages).values() if inspect.isclass(kind) and issubclass(kind, damages.Damage)]
    for kind in kinds:
        if kind not in (damages.Damage, damages.OnTensors):  # the latter is what --tensors makes of any other
            name = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
            summary = inspect.getdoc(inspect.getmodule(kind)) or ""
            made.command(name, help=_help(kind), short_help=escape(summary))(_command(kind))
    made.command()(replay)
    group = typer.main.get_command(made)
    assert isinstance(group, TyperGroup)  # of several commands
    return dict(group.commands)


def _command(kind: "type[Damage]") -> Callable[..., None]:
    """A function with the options of a damage, and those that all have in common."""
    own = [_option(kind, parameter) for parameter in inspect.signature(kind).parameters.values()]
    _, model, *common = inspect.signature(_broken_by).parameters.values()

    def run(**given: Any) -> None:
        _broken_by(kind(**{each.name: given.pop(each.name) for each in own}), **given)

    parameters = [model, *own, *common]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _option(kind: "type[Damage]", parameter: inspect.Parameter) -> inspect.Parameter:
    """The option that sets a parameter of a damage's constructor."""
    annotation = parameter.annotation
    several = Sequence[int] in get_args(annotation)
    words = [word for literal in get_args(annotation) if get_origin(literal) is Literal for word in get_args(literal)]
    option = typer.Option(
        ... if parameter.default is parameter.empty else parameter.default,
        help=escape(_described(kind, parameter.name)),
        parser=_words_or_numbers if several else None,
        metavar=f"[{'|'.join(words)}|0,1,...]" if several else None,
    )
    return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=str if several else annotation, default=option)


def _help(kind: "type[Damage]") -> str:
    """A damage's docstring, less what its options and its errors say."""
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    kept = [" ".join(paragraph.split()) for paragraph in paragraphs if not paragraph.startswith(("Args:", "Raises:"))]
    return escape("\n\n".join(kept))


def _described(kind: "type[Damage]", name: str) -> str:
    """What the docstring of a damage, or of the base that it refers to, says of a parameter."""
    for base in kind.__mro__:
        arguments = re.search(r"^Args:\n((?:    .*\n?)+)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        entries = re.findall(r"^    (\w.*?): (.*(?:\n {5,}.*)*)", arguments[1] if arguments else "", re.MULTILINE)
        for names, text in entries:
            if name in names.split(", ") and not text.startswith("as of"):
                return text[0].upper() + " ".join(text.split())[1:]
    return ""


def _words_or_numbers(text: str) -> str | list[int]:
    if not set(text) <= set("0123456789,"):
        return text
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"numbers have a comma between two, as 0,30; not {text!r}.") from error


def _break(
    model: Path,
    output: Path,
    faults_of: "Callable[[Mapping[str, Tensor]], ModelFaults]",
    *,
    faults_file: Path | None = None,
    inputs: Sequence[Path] = (),
) -> None:
    """Writes a copy of a model with these faults of its tensors, and their list.

    Raises:
        InvalidInput: if the faults are of another model or do not fit, or an output would replace what is read.
        InvalidFile, FileNotFoundError: if the model or what the faults come from cannot be read.
        OutputFailed: if an output cannot be written.
    """
    require_output(output, model, faults_file, *inputs)
    require_same_format(output, model)
    if faults_file is not None:
        require_output(faults_file, model)
    from planaria.checkpoints import open_checkpoint, write_state_dict
    from planaria.checkpoints.opening import load_state_dict
    from planaria.guard.copies import Copy, is_archive

    if is_archive(model):
        state = load_state_dict(model)
        with open_checkpoint(state, writable=True) as checkpoint:
            changed = _write(checkpoint, faults_of(TensorsOf(checkpoint)), faults_file)
        write_state_dict(output, state)
    else:
        with open_checkpoint(model) as source:
            headers = source.headers
        with Copy(model, output, headers) as copy:
            with open_checkpoint(copy.path, writable=True) as checkpoint:
                changed = _write(checkpoint, faults_of(TensorsOf(checkpoint)), faults_file)
            copy.publish()
    print(f"{sum(changed):,} weights changed, in {sum(map(bool, changed)):,} of {len(changed):,} tensors")
    for path in (output, faults_file):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)


def _write(checkpoint: "Checkpoint", faults: "ModelFaults", faults_file: Path | None) -> list[int]:
    """Writes the list, and then the faults into the checkpoint. Answers with the weights changed, by tensor."""
    import torch

    from planaria.damages import ModelFaults
    from planaria.dtypes import integers

    tensors = TensorsOf(checkpoint)
    if unmatched := sorted(tensors.keys() ^ faults.tensors.keys()):
        raise InvalidInput(f"The faults are of another model: only one of the two has {unmatched[0]!r}.")
    if faults_file is not None:
        faults.save(faults_file)
    for name, changes in faults.tensors.items():
        broken = ModelFaults({name: changes}).replay({name: tensors[name]})[name]  # its errors name the tensor
        if len(changes.index):
            checkpoint.write(name, 0, integers(broken).view(-1).view(torch.uint8).numpy())
    return [int((integers(changes.old) != integers(changes.new)).sum()) for changes in faults.tensors.values()]


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
