"""The `planaria-lab` command: everything that measures. Errors and exit codes are those of `planaria`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from planaria.command_line import common, run_as_command
from planaria.files import make_folder, write_atomically
from planaria.progress import progress_bar
from planaria_lab import zoo_command

application = typer.Typer(
    help="What planaria is measured with: networks, data, damages, attacks and rivals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure, and write the results as JSON, Markdown and figures.", no_args_is_help=True)
application.callback()(common)
application.command()(zoo_command.zoo)
application.add_typer(bench, name="bench")

Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if it is not there.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]


@application.command()
def demo(output: Folder = Path("demo"), json_output: Json = False) -> None:
    """Fit a rule to the shipped network, break its first layer, regrow it, and draw what happened.

    Takes about two minutes on 2 cores and needs no network.
    """
    # Here and below, what a command needs is imported by it: `planaria --help` should not wait for PyTorch's kernels.
    from planaria.automaton import DEFAULT
    from planaria_lab.bench import demonstration, repair_table
    from planaria_lab.bench.experiment import Experiment
    from planaria_lab.bench.tables import accuracy_table, fit_table

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
    from planaria_lab.bench import demonstration, repair_table
    from planaria_lab.bench.experiment import Experiment
    from planaria_lab.bench.tables import repair_tables

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
    from planaria_lab.bench import engine as measure

    folder = make_folder(output)
    with progress_bar("engine") as progress:
        result = measure.run(progress=progress)
    _finish("engine", result, measure.table(result), folder, json_output)


@bench.command()
def variations(output: Folder = Path("results/variations"), json_output: Json = False) -> None:
    """The talk's automaton in several readings, ours with parts taken away, each with its figures. 40 minutes."""
    from planaria_lab.bench import variations as measure

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
    from planaria_lab.bench import guard as measure
    from planaria_lab.bench.guard_tables import tables

    folder = make_folder(output)
    settings = replace(measure.GuardSettings.packaged(), campaigns=campaigns, gigabytes=gigabytes)
    with progress_bar("guard") as progress:
        result = measure.run(settings, only=only, earlier=measure.earlier(folder), progress=progress)
    _finish("guard", result, tables(result), folder, json_output)


@bench.command()
def frontier(
    output: Folder = Path("results/frontier"),
    only: Annotated[str, typer.Option(help="Measure what has this in its name, and keep the rest of the folder.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Measure also what the folder has already.")] = False,
    json_output: Json = False,
) -> None:
    """What a byte of side memory can buy: methods at equal bytes, by the share of weights lost. Hours; see --only."""
    from planaria_lab.bench.frontier import figures, run, tables

    folder = make_folder(output)
    with progress_bar("frontier") as progress:
        result = run.run(run.FrontierSettings.packaged(), folder, only=only, again=again, progress=progress)
    _finish("frontier", result, tables.tables(result), folder, json_output, figures.draw(result, folder))


@bench.command()
def memory(output: Folder = Path("results/memory"), json_output: Json = False) -> None:
    """Side memory: distance to the bound, light damage in a whole guard, and what a transformer's guard costs."""
    from planaria_lab.bench import memory as measure

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
    from planaria_lab.bench.population import run, tables
    from planaria_lab.bench.population.settings import PopulationSettings

    folder = make_folder(output)
    with progress_bar("population") as progress:
        result = run.run(PopulationSettings.packaged(), folder, only=only, again=again, progress=progress)
    _finish("population", result, tables.tables(result), folder, json_output)


@application.command()
def campaign(
    experiment: Annotated[Path, typer.Argument(help="A TOML file: models, damages, defences, and how many runs.")],
    output: Folder = Path("campaign"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the runs.")] = 2,
    json_output: Json = False,
) -> None:
    """Compare defences under the same stored faults. What was cut goes on from where it was."""
    from planaria_lab.campaigns import CampaignSettings, run
    from planaria_lab.campaigns.pictures import draw_roc
    from planaria_lab.campaigns.tables import tables

    settings = CampaignSettings.load(experiment)
    folder = make_folder(output)
    with progress_bar("campaign") as progress:
        result = run(settings, folder, jobs=jobs, progress=progress)
    _finish("campaign-results", result, tables(result), folder, json_output, draw_roc(result, folder))


def main() -> None:
    """Runs the command line."""
    run_as_command(application, name="planaria-lab")


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
