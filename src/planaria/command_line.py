"""The `planaria` command. Errors are one line on stderr; the exit code says what kind."""

import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from planaria import damage_command, guard_commands, zoo_command
from planaria.errors import (
    DataNotFound,
    InvalidFile,
    InvalidGuard,
    LooksDifferent,
    OtherModel,
    OutputFailed,
    PlanariaError,
    VerificationFailed,
)
from planaria.files import make_folder, printable, write_atomically
from planaria.progress import progress_bar

WRONG_USAGE = 3
STOPPING = (signal.SIGTERM, signal.SIGHUP)  # what service managers and closed terminals send
# The first that fits counts: a broken guard is also an invalid file.
EXIT_CODES: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
    (4, (InvalidGuard,)),
    (5, (OtherModel, LooksDifferent)),
    (6, (InvalidFile, DataNotFound, OutputFailed)),
    (7, (VerificationFailed,)),
    (WRONG_USAGE, (PlanariaError,)),
    (6, (OSError,)),
)
EPILOG = """Exit codes:

0  intact, or fully restored; done

1  damaged, and exactly repairable (check)

2  damaged, and repairable only approximately (check), or repaired so (repair), or not asked how (check --quick)

3  wrong usage

4  the guard is damaged, is no guard, or is not of the key that was given

5  the guard is of another model

6  input or output failed

7  a repair did not verify; nothing was written"""

application = typer.Typer(
    help="Self-repairing neural networks: damaged weights are regrown from the weights that survive around them.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure, and write the results as JSON, Markdown and figures.", no_args_is_help=True)
for command in (
    guard_commands.protect,
    guard_commands.check,
    guard_commands.repair,
    guard_commands.inspect,
    guard_commands.mend,
    guard_commands.key,
    damage_command.damage,
    zoo_command.zoo,
):
    application.command()(command)
application.add_typer(bench, name="bench")

Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if it is not there.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with.", show_default="2, or fewer by OMP_NUM_THREADS")
]


@application.command()
def demo(output: Folder = Path("demo"), json_output: Json = False) -> None:
    """Fit a rule to the shipped network, break its first layer, regrow it, and draw what happened.

    Takes about two minutes on 2 cores and needs no network.
    """
    # Here and below, what a command needs is imported by it: `planaria --help` should not wait for PyTorch's kernels.
    from planaria.automaton import DEFAULT
    from planaria.bench import demonstration, repair_table
    from planaria.bench.experiment import Experiment
    from planaria.bench.tables import accuracy_table, fit_table

    folder = make_folder(output)
    with progress_bar("demo") as progress:
        result, fits = repair_table.run(Experiment.packaged("demo"), progress=progress, recipes=(DEFAULT,))
    pictures = demonstration.draw_curves(result, folder) + demonstration.draw(fits["A"]["default"][0], folder)
    tables = accuracy_table(result, "A") + "\n" + fit_table(result, "A")
    _finish("demo", result, tables, folder, json_output, pictures)


@bench.command()
def tinymlp(
    output: Folder = Path("results/tinymlp"),
    experiment: Annotated[Path | None, typer.Option(help="A TOML file; by default the one that comes along.")] = None,
    json_output: Json = False,
) -> None:
    """Every repairer on two trained networks, 5 to 90 % of the first layer missing. About 40 minutes on 2 cores."""
    from planaria.bench import demonstration, repair_table
    from planaria.bench.experiment import Experiment
    from planaria.bench.tables import repair_tables

    chosen = Experiment.load(experiment) if experiment else Experiment.packaged("tinymlp")
    folder = make_folder(output)
    with progress_bar("tinymlp") as progress:
        result, fits = repair_table.run(chosen, progress=progress)
    first = chosen.networks[0]
    pictures = demonstration.draw_curves(result, folder)
    pictures += demonstration.draw(fits[first]["default"][0], folder, network=first, seed=chosen.seed)
    _finish("tinymlp", result, repair_tables(result), folder, json_output, pictures)


@bench.command()
def engine(output: Folder = Path("results/engine"), json_output: Json = False) -> None:
    """Cell-steps a second, forward and training, against the plain formulation; peak memory. A few minutes."""
    from planaria.bench import engine as measure

    folder = make_folder(output)
    with progress_bar("engine") as progress:
        result = measure.run(progress=progress)
    _finish("engine", result, measure.table(result), folder, json_output)


@bench.command()
def variations(output: Folder = Path("results/variations"), json_output: Json = False) -> None:
    """The talk's automaton in several readings, ours with parts taken away, each with its figures. 40 minutes."""
    from planaria.bench import variations as measure

    folder = make_folder(output)
    with progress_bar("variations") as progress:
        result = measure.run(progress=progress)
    _finish("variations", result, measure.tables(result), folder, json_output)


@bench.command()
def guard(
    output: Folder = Path("results/guard"),
    campaigns: Annotated[int, typer.Option(min=1, help="Damages of each kind.")] = 100,
    only: Annotated[str, typer.Option(help="Measure what has this in its name, and keep the rest of the folder.")] = "",
    gigabytes: Annotated[float, typer.Option(min=0.01, help="Of the checkpoint whose memory is measured.")] = 4.0,
    json_output: Json = False,
) -> None:
    """What guards restore of real models, beside par2; false alarms, speed, memory, scrubber. Hours; see --only."""
    from planaria.bench import guard as measure

    folder = make_folder(output)
    settings = replace(measure.Settings.packaged(), campaigns=campaigns, gigabytes=gigabytes)
    with progress_bar("guard") as progress:
        result = measure.run(settings, only=only, earlier=measure.earlier(folder), progress=progress)
    _finish("guard", result, measure.tables(result), folder, json_output)


@bench.command()
def frontier(
    output: Folder = Path("results/frontier"),
    only: Annotated[str, typer.Option(help="Measure what has this in its name, and keep the rest of the folder.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Measure also what the folder has already.")] = False,
    json_output: Json = False,
) -> None:
    """What a byte of side memory can buy: methods at equal bytes, by the share of weights lost. Hours; see --only."""
    from planaria.bench.frontier import figures, run, tables

    folder = make_folder(output)
    with progress_bar("frontier") as progress:
        result = run.run(run.Settings.packaged(), folder, only=only, again=again, progress=progress)
    _finish("frontier", result, tables.tables(result), folder, json_output, figures.draw(result, folder))


@bench.command()
def memory(output: Folder = Path("results/memory"), json_output: Json = False) -> None:
    """Side memory: distance to the bound, light damage in a whole guard, and what a transformer's guard costs."""
    from planaria.bench import memory as measure

    folder = make_folder(output)
    with progress_bar("memory") as progress:
        result = measure.run(progress=progress)
    _finish("memory", result, measure.tables(result), folder, json_output)


@bench.command()
def population(
    output: Folder = Path("results/population"),
    only: Annotated[str, typer.Option(help="Measure what has this in its name, and keep the rest of the folder.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Measure also what the folder has already.")] = False,
    json_output: Json = False,
) -> None:
    """Repairs learned from populations: whole networks and first layers that nobody saw before. Hours; see --only."""
    from planaria.bench.population import run, tables
    from planaria.bench.population.settings import Settings

    folder = make_folder(output)
    with progress_bar("population") as progress:
        result = run.run(Settings.packaged(), folder, only=only, again=again, progress=progress)
    _finish("population", result, tables.tables(result), folder, json_output)


@application.command()
def campaign(
    experiment: Annotated[Path, typer.Argument(help="A TOML file: models, damages, defences, and how many runs.")],
    output: Folder = Path("campaign"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the runs.")] = 2,
    json_output: Json = False,
) -> None:
    """Compare defences under the same stored faults. What was cut goes on from where it was."""
    from planaria.campaigns import Settings, run
    from planaria.campaigns.pictures import draw_roc
    from planaria.campaigns.tables import tables

    settings = Settings.load(experiment)
    folder = make_folder(output)
    with progress_bar("campaign") as progress:
        result = run(settings, folder, jobs=jobs, progress=progress)
    _finish("campaign-results", result, tables(result), folder, json_output, draw_roc(result, folder))


@application.callback()
def common(threads: Threads = None) -> None:
    """Options of every command."""
    import torch

    torch.set_num_threads(threads or min(2, torch.get_num_threads()))


def main() -> None:
    """Runs the command line.

    Exit codes: 0 intact, fully restored, or done; 1 damaged and exactly repairable (check); 2 only approximately (check
    or repair), or a quick check found damage; 3 wrong usage; 4 the guard is damaged, not a guard, or not of the key
    given; 5 the guard is of another model; 6 input or output failed; 7 a repair did not verify; 128 and more: stopped
    by that signal, after cleaning up.
    """
    try:
        with _stopped_by_signals():
            code = application(standalone_mode=False)
    except _Stopped as stopped:
        _complain(f"stopped by {stopped.signal.name}")
        code = 128 + stopped.signal
    except (PlanariaError, OSError) as error:
        _complain(str(error))
        code = next(code for code, kinds in EXIT_CODES if isinstance(error, kinds))
    except Exception as error:
        # Usage errors come from the parser's own copy of click, whose classes are not ours to import.
        if not hasattr(error, "format_message"):
            raise
        _complain(error.format_message())
        code = WRONG_USAGE
    sys.exit(code if isinstance(code, int) else 0)


class _Stopped(BaseException):
    """A signal asks the command to stop. No `Exception`, as an interrupt is none: nothing may go on after it."""

    def __init__(self, number: int):
        self.signal = signal.Signals(number)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turns the signals that ask to stop into an exception, so that what is half done is cleaned up.

    A signal that is ignored, as under nohup, stays ignored, and the first that comes silences those that follow.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_IGN)
        raise _Stopped(number)

    handled = {one: handler for one in STOPPING if (handler := signal.getsignal(one)) != signal.SIG_IGN}
    try:
        for one in handled:
            signal.signal(one, stop)
        yield
    finally:
        for one, handler in handled.items():
            signal.signal(one, handler or signal.SIG_DFL)


def _complain(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(
        "planaria: " + printable(" ".join(message.split())), style="red", markup=False, highlight=False
    )


def _finish(
    name: str, result: dict[str, Any], tables: str, folder: Path, json_output: bool, pictures: Sequence[Path] = ()
) -> None:
    """Writes JSON and Markdown beside the pictures, shows the result, and names every file.

    Shown is JSON for a program, a drawn table for a person, Markdown for a pipe.
    """
    content = json.dumps(result, allow_nan=False)
    json_file, markdown_file = folder / f"{name}.json", folder / f"{name}.md"
    write_atomically(json_file, content.encode())
    write_atomically(markdown_file, tables.encode())
    if json_output:
        print(content)
    elif sys.stdout.isatty():
        Console().print(Markdown(tables))
    else:
        print(tables)
    for path in (json_file, markdown_file, *pictures):
        print(f"wrote {path}", file=sys.stderr)
