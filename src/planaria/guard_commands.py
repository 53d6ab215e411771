"""The commands that make, read and use a guard. Each that can fail softly answers with its exit code."""

import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planaria.errors import InvalidFile, InvalidInput, OutputFailed
from planaria.files import printable
from planaria.progress import progress_bar
from planaria.shares import share_of
from planaria.tables import markdown

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    from torch import Tensor

    from planaria.guard import GuardFile, Report

KEY_VARIABLE = "PLANARIA_KEY"
LARGEST = 20  # tensors that are listed unless all are asked for

Model = Annotated[
    Path, typer.Argument(help="A .safetensors, .pt, .pth or .bin file, or a folder of sharded safetensors.")
]
GuardOption = Annotated[Path, typer.Option("--guard", help="The model's guard.")]
KeyFile = Annotated[
    Path | None, typer.Option(help=f"File with the key, 64 hex characters; without it, {KEY_VARIABLE} is used if set.")
]
Known = Annotated[
    Path | None,
    typer.Option(help="Safetensors file of bool tensors, True where a weight is known good; or a fault list."),
]
Faulty = Annotated[
    Path | None,
    typer.Option(help="The same the other way round: True where a weight is not to be trusted. Instead of --known."),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Also where the model looks fine-tuned or replaced, or digests contradict the mask."),
]
Picture = Annotated[Path | None, typer.Option("--map", help="Draw where the damage is, as PNG.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
All = Annotated[bool, typer.Option("--all", help=f"List all tensors, not the {LARGEST} largest.")]


def protect(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The guard file to write.")],
    budget: Annotated[str, typer.Option(help="Largest size of the guard: a share of the model, 2% or 0.02.")] = "2%",
    tiers: Annotated[
        str, typer.Option(help="What to make, by commas; the digest always is.")
    ] = "digest,copy,parity,hint,ladder,rule",
    expect: Annotated[str, typer.Option(help="Share of weights that will be lost, 10% or 0.1; or any.")] = "any",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Safetensors file of each layer's inputs by its weight's name, or of their second moments."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what was kept of which tensor, and why.")] = False,
    key_file: KeyFile = None,
    seed: Annotated[int, typer.Option(help="Of the rules' fits.")] = 0,
    everything: All = False,
    json_output: Json = False,
) -> None:
    """Make the guard of an intact model.

    Half a minute for each GB, a minute for some ten million weights that hints and ladder are planned for, seconds for
    each tensor that a frozen rule serves, and a minute or two for one that gets a rule of its own; `--tiers
    digest,parity` makes none of these.
    """
    share = share_of(budget, "--budget")
    expected = None if expect == "any" else share_of(expect, "--expect, unless it is any,")
    key = read_key(key_file)
    require_output(output, model, key_file, calibration)
    from planaria.guard import protect as make_guard

    lines: list[str] = []
    with progress_bar("protect") as progress:
        guard = make_guard(
            model,
            budget=share,
            expect=expected,
            calibration=calibration,
            key=key,
            tiers=tiers,
            seed=seed,
            progress=progress,
            explain=lines.append,
        )
        guard.save(output)
    told = {"explanation": lines} if explain else {}
    if json_output:
        print(json.dumps({"model": str(model), "guard": str(output), **_described(guard), **told}))
    else:
        _show_guard(guard, everything=everything)
        print("".join(f"- {printable(line)}\n" for line in told.get("explanation", ())), end="")
    print(f"wrote {output}", file=sys.stderr)


def key(output: Annotated[Path, typer.Option("--output", "-o", help="A new file, for its owner's eyes only.")]) -> None:
    """Make a random key, with which a guard detects attackers too. Keep it away from model and guard."""
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    except FileExistsError as error:
        raise InvalidInput(f"{output} exists, and may be a key in use. Name a new file.") from error
    except OSError as error:
        raise OutputFailed(f"Cannot write {output}: {error.strerror or error}. Choose another folder.") from error
    print(f"wrote {output}", file=sys.stderr)


def inspect(
    guard: Annotated[Path, typer.Argument(help="A guard file.")],
    key_file: KeyFile = None,
    everything: All = False,
    json_output: Json = False,
) -> None:
    """Say what a guard holds, what it corrects, and what became of itself."""
    from planaria.guard import Guard

    loaded = Guard.load(guard, key=read_key(key_file))
    if json_output:
        print(json.dumps({"guard": str(guard), **_described(loaded)}))
    else:
        _show_guard(loaded, everything=everything)


def mend(
    guard: Annotated[Path, typer.Argument(help="A guard file.")],
    key_file: KeyFile = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the mended guard here, and leave the old one.")
    ] = None,
) -> None:
    """Write a guard anew in which bytes broke: the same bytes as when it was made, whole or not at all.

    Every command mends it in memory alone, and breaks that add up are beyond mending one day. Exit code 0 if it is
    whole, 4 if some of it is beyond its own repair: nothing is written then.
    """
    if output is not None:
        require_output(output, guard, key_file)
    from planaria.guard import Guard

    loaded = Guard.load(guard, key=read_key(key_file))
    if not loaded.mended and not loaded.lost and output is None:
        print("nothing to do", file=sys.stderr)
        return
    loaded.save(output or guard)
    print(f"{loaded.mended:,} bytes mended")
    print(f"wrote {output or guard}", file=sys.stderr)


def check(
    model: Model,
    guard: GuardOption,
    quick: Annotated[
        bool, typer.Option("--quick", help="Say from digests alone what is damaged, not how exactly it is repairable.")
    ] = False,
    key_file: KeyFile = None,
    known: Known = None,
    faulty: Faulty = None,
    force: Force = False,
    picture: Picture = None,
    json_output: Json = False,
) -> int:
    """Find what is damaged and how exactly it could be repaired. Changes nothing.

    Exit code 0 if the model is intact, 1 if a repair would be exact, 2 if only approximate, or not known (--quick).
    """
    return _diagnose(model, guard, key_file, known, faulty, force, picture, json_output, quick=quick)


def repair(
    model: Model,
    guard: GuardOption,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the repaired model here: a file, or a new folder for a folder."),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the model by the repaired one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no model: the same as `check`.")] = False,
    key_file: KeyFile = None,
    known: Known = None,
    faulty: Faulty = None,
    force: Force = False,
    picture: Picture = None,
    json_output: Json = False,
) -> int:
    """Repair a model, into --output or --in-place; the file is the old or the new one at any moment, whole.

    Exit code 0 if the model is intact or restored bit for bit, 2 if some of it is only approximate. With --dry-run the
    exit codes are those of `check`.
    """
    if (output is not None) + in_place + dry_run != 1:
        raise InvalidInput("Say what becomes of the repair: exactly one of --output, --in-place and --dry-run.")
    if output is not None:
        require_output(output, model, guard, known, faulty, key_file)
        require_same_format(output, model)
    action = "check" if dry_run else "repair"
    return _diagnose(model, guard, key_file, known, faulty, force, picture, json_output, action=action, output=output)


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


def show(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, Markdown in a pipe."""
    clean = [[printable(cell) for cell in line] for line in lines]
    if sys.stdout.isatty():
        table = Table(*head)
        for line in clean:
            table.add_row(*(Text(cell) for cell in line))
        Console().print(table)
    else:
        print(markdown(list(head), [[cell.replace("|", "\\|") for cell in line] for line in clean]))


def _diagnose(
    model: Path,
    guard: Path,
    key_file: Path | None,
    known: Path | None,
    faulty: Path | None,
    force: bool,
    picture: Path | None,
    json_output: bool,
    *,
    action: str = "check",
    quick: bool = False,
    output: Path | None = None,
) -> int:
    """Checks or repairs, shows what came of it, and answers with the exit code."""
    if picture is not None:
        require_output(picture, model, guard, known, faulty, key_file, output)
        if find_spec("matplotlib") is None:
            raise InvalidInput("--map draws with matplotlib, which is not installed. Install planaria[pictures].")
    key = read_key(key_file)
    from planaria.guard import Guard

    loaded = Guard.load(guard, key=key)
    good = None if known is None else read_mask(known)
    bad = None if faulty is None else read_mask(faulty, faulty=True)
    with progress_bar(action) as progress:
        if action == "check":
            report = loaded.check(model, known=good, faulty=bad, quick=quick, force=force, progress=progress)
        else:
            report = loaded.repair(
                model, output, in_place=output is None, known=good, faulty=bad, force=force, progress=progress
            )
    if json_output:
        print(json.dumps({"model": str(model), "guard": str(guard), **report.to_json()}))
    else:
        _show_report(report)
    if loaded.lost:
        print(f"the guard {guard} is damaged beyond its own repair: use another copy of it", file=sys.stderr)
    elif loaded.mended:
        key_given = f" --key-file {shlex.quote(str(key_file))}" if key_file else ""
        print(
            f"the guard {guard} has {loaded.mended:,} broken bytes, mended in memory alone: write them with "
            f"`planaria mend {shlex.quote(str(guard))}{key_given}`",
            file=sys.stderr,
        )
    if action == "repair":
        print(f"wrote {output or model}" if output or report.verdict != "intact" else "nothing to do", file=sys.stderr)
    if picture is not None:
        from planaria.guard.damage_map import draw_damage_map

        draw_damage_map(report, picture)
        print(f"wrote {picture}", file=sys.stderr)
    return report.exit_code


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


def _described(guard: "GuardFile") -> dict[str, Any]:
    """All that can be said of a guard, as plain values."""
    from planaria.guard.container import survives_a_lost_page

    names = [entry.name for entry in guard.entries]
    why = _reasons(guard)
    return {
        "version": guard.manifest.version,
        "keyed": guard.key is not None,
        "bytes": guard.size,
        "files": [name for name, _ in guard.manifest.files],
        "model_bytes": guard.protected_bytes,
        "tile": guard.manifest.tile,
        "tiers": guard.tier_bytes(),
        "tensors": [
            {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "bytes": entry.nbytes}
            for entry in guard.entries
        ],
        "parity": _strength(guard),
        "copied": [names[index] for index in guard.manifest.copied],
        "memory": _remembered(guard),
        "rules": [asdict(rule) | {"tensor": names[rule.tensor]} for rule in guard.manifest.rules],
        "reasons": {names[index]: reason for index, reason in why.items()},
        "mended": guard.mended,
        "lost": list(guard.lost),
        "survives_a_lost_page": survives_a_lost_page(guard.size),
    }


def _strength(guard: "GuardFile") -> dict[str, int] | None:
    """What the parity corrects for certain, or None without parity. A lost run is found by tiles, whole."""
    from planaria.guard.codewords import SPARE

    shape = guard.manifest.parity
    if shape is None or "parity" in guard.lost:
        return None
    segments = -(-guard.stream.symbols // shape.segment)
    known = shape.check - min(SPARE, shape.check // 2)
    symbols = shape.width * 2  # bytes of one symbol in each codeword
    return {
        "codewords": segments * shape.width,
        "symbols": -(-shape.segment // shape.width) + shape.check,
        "check": shape.check,
        "unknown": known // 2,
        "known": known,
        "run_bytes": max(known // 2 * symbols - 1, known * symbols - 2 * guard.manifest.tile, 0),
    }


def _remembered(guard: "GuardFile") -> dict[str, Any] | None:
    """What hints and ladder are of, or None without any; strengths are shares of the ladder's weights."""
    shape = guard.manifest.memory
    if shape is None:
        return None
    tensors = {}
    for of in shape.tensors:
        entry = guard.entries[of.tensor]
        tensors[entry.name] = {
            "hint": of.codec or None,
            "prior": bool(of.prior),
            "ladder": bool(of.laddered),
            "error": of.error,
        }
    return {"strengths": [] if "ladder" in guard.lost else list(shape.strengths), "tensors": tensors}


def _kept(guard: "GuardFile", index: int) -> str:
    """What is kept of a tensor beside its rule, in words."""
    name, memory = guard.entries[index].name, _remembered(guard)
    kept = ["copy"] if index in guard.manifest.copied else []
    of = memory["tensors"].get(name) if memory else None
    if of and f"hint.{index}" not in guard.lost:
        kept += [f"{of['hint']} hint"] if of["hint"] else []
        kept += ["prior"] if of["prior"] else []
    return ", ".join([*kept, *(["ladder"] if of and of["ladder"] and memory and memory["strengths"] else [])])


def _reasons(guard: "GuardFile") -> dict[int, str]:
    """Why a tensor has no rule, by its index."""
    reasons = {index: reason for reason, indices in guard.manifest.reasons.items() for index in indices}
    return {index: reasons[index] for index in range(len(guard.entries)) if index in reasons}


def _show_guard(guard: "GuardFile", *, everything: bool) -> None:
    told = _described(guard)
    files = ", ".join(name for name in told["files"] if name) or "a model in memory"
    size = f"{len(told['tensors']):,} tensors, {guard.protected_bytes:,} bytes"
    print(printable(f"Guard of {files}: {size}; format {guard.manifest.version}.") + "\n")
    of = 100 / max(guard.protected_bytes, 1)
    show(
        ["tier", "bytes", "% of model"],
        [[name, f"{size:,}", f"{size * of:.3f}"] for name, size in [*told["tiers"].items(), ("all", guard.size)]],
    )
    rules = {rule.tensor: rule for rule in guard.manifest.rules}
    why = _reasons(guard)
    lines = []
    for index, entry in sorted(enumerate(guard.entries), key=lambda item: -item[1].nbytes):
        tiles = guard.stream.tiles_of_tensor(index)
        told_of_rule = "no: " + why.get(index, "not said")
        if index in rules:
            rule = rules[index]
            told_of_rule = ", ".join(
                f"{error:.3g} at {rate:.0%}" for error, rate in zip(rule.errors, rule.rates, strict=True)
            )
            told_of_rule += f", {rule.tile_error:.3g} in lost tiles"
            told_of_rule += f" ({rule.recipe})" if not rule.stored else ""
            told_of_rule = "lost" if f"rule.{index}" in guard.lost else told_of_rule
        shape = " x ".join(str(size) for size in entry.shape)
        lines.append(
            [
                entry.name,
                entry.dtype,
                shape,
                f"{entry.nbytes:,}",
                f"{tiles.stop - tiles.start:,}",
                _kept(guard, index),
                told_of_rule,
            ]
        )
    listed = lines if everything else lines[:LARGEST]
    if rest := lines[len(listed) :]:
        listed = [*listed, [f"and {len(rest):,} more: --all", "", "", "", "", "", ""]]
    show(
        ["tensor", "dtype", "shape", "bytes", "tiles", "kept", "rule: error at weights missing, in deviations"], listed
    )
    print("\n".join(printable(line) for line in _promises(guard)))


def _promises(guard: "GuardFile") -> Iterator[str]:
    """What the guard is good for, in sentences."""
    from planaria.guard.container import survives_a_lost_page

    strength = _strength(guard)
    if strength is None:
        yield "There is no parity: what is damaged is found, and not restored bit for bit."
    else:
        run = "; a lost run of up to {run_bytes:,} bytes" if strength["run_bytes"] else ""
        yield (
            "Parity corrects {unknown:,} unknown or {known:,} known wrong symbols of {symbols:,} in each of "
            "{codewords:,} codewords" + run + "."
        ).format(**strength)
    if guard.manifest.copied and "copy" not in guard.lost:
        yield f"Copies of {len(guard.manifest.copied):,} tensors: restored bit for bit, whatever happens to them."
    memory = _remembered(guard)
    hinted = [of for of in memory["tensors"].values() if of["hint"] or of["prior"]] if memory else []
    if hinted:
        yield f"Hints of {len(hinted):,} tensors: what is lost of them is estimated, be it all."
    if memory and memory["strengths"]:
        covered = sum(of["ladder"] for of in memory["tensors"].values())
        finer = "; finer ones up to " + ", ".join(f"{one:.3g}" for one in map(_percent, memory["strengths"][1:])) + " %"
        yield (
            f"Ladder over {covered:,} tensors: up to {_percent(memory['strengths'][0]):.3g} % of their weights may be "
            f"missing, and are restored between bounds{finer if memory['strengths'][1:] else ''}."
        )
    whole = survives_a_lost_page(guard.size)
    page = (
        "and the loss of any 4,096 neighbouring bytes" if whole else "but is too small to survive a lost page: keep two"
    )
    yield f"The guard corrects scattered damage of its own, {page}."
    if guard.mended:
        yield (
            f"Of its own bytes {guard.mended:,} were broken and are mended in memory; the file is as it was. "
            "`planaria mend` writes it."
        )
    if guard.lost:
        yield f"Damaged beyond its own repair, and not used: {', '.join(guard.lost)}. Use another copy of it."
    yield (
        "With its key it detects attackers too." if guard.key else "Without a key it detects accidents, not attackers."
    )


def _percent(share: float) -> float:
    return 100 * share


def _show_report(report: "Report") -> None:
    from planaria.guard.report import VERDICTS

    lines = []
    for tensor in report.tensors:
        if not tensor.regions:
            continue
        counts = [tensor.count(verdict, tile=report.tile) for verdict in VERDICTS[1:]]
        errors = [f"{error:.3g}" if error is not None else "" for error in (tensor.expected_error, tensor.bound)]
        numbers = [f"{count:,}" if count else "" for count in (*counts, tensor.estimated)]
        damaged = f"{sum(counts):,} of {tensor.tiles:,}"
        lines.append([tensor.name, damaged, *numbers, *errors, tensor.method or ""])
    if lines:
        head = ["tensor", "damaged tiles", *VERDICTS[1:]]
        show([*head, "weights estimated", "expected error", "bound", "method"], lines)
    print(printable(str(report)))
