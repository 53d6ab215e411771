"""The commands that make, read and use a guard. Each that can fail softly answers with its exit code."""

import json
import os
import secrets
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planaria.errors import InvalidInput, OutputFailed
from planaria.files import printable
from planaria.guard_inputs import KEY_VARIABLE, read_key, read_mask, require_output, require_same_format
from planaria.guard_tables import LARGEST, described, show_guard, show_report
from planaria.progress import progress_bar
from planaria.shares import share_of

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    pass


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
    ] = "digest,copy,parity,sketch,refinement,rule",
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

    Half a minute for each GB, a minute for some ten million weights that sketches and refinement are planned for,
    seconds for each tensor that a pretrained rule serves, and a minute or two for one that gets a rule of its own;
    `--tiers digest,parity` makes none of these.
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
    explanation = {"explanation": lines} if explain else {}
    if json_output:
        print(json.dumps({"model": str(model), "guard": str(output), **described(guard), **explanation}))
    else:
        show_guard(guard, everything=everything)
        print("".join(f"- {printable(line)}\n" for line in explanation.get("explanation", ())), end="")
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
        print(json.dumps({"guard": str(guard), **described(loaded)}))
    else:
        show_guard(loaded, everything=everything)


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
        show_report(report)
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
