"""`planaria-lab bench population`: every row on every population.

A point is a row and what it learned from, or a row and a group of sheets. Each is written to a file of its own as soon
as it is measured, so that a run can be cut and go on later.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from planaria_lab.bench.points import collect_points, measure_points
from planaria_lab.bench.population import networks, sheets
from planaria_lab.bench.population.judge import BETTER
from planaria_lab.bench.population.settings import PopulationSettings
from planaria_lab.bench.population.zoos import Tell, World, build_world

Progress = Callable[[int, int, str], None]


def points(settings: PopulationSettings, folder: Path) -> dict[str, Callable[[Tell], dict[str, Any]]]:
    """What measures each point, by its name. Zoos are built, or read, when the first point needs them."""
    zoos = folder / "zoos"
    worlds: list[World] = []
    groups: dict[str, list[sheets.SheetSubject]] = {}

    def network(row: str, learned_from: str, tell: Tell) -> dict[str, Any]:
        if not worlds:
            worlds.append(build_world(settings, zoos, tell))
        return networks.measure(worlds[0], settings, row, learned_from, tell)

    def sheet(row: str, group: str, tell: Tell) -> dict[str, Any]:
        if group not in groups:
            groups[group] = sheets.subjects(settings, group, zoos, tell)
        return sheets.measure(groups[group], settings, row, group, tell)

    return {
        f"networks, {row}, {learned_from}": partial(network, row, learned_from)
        for row in networks.ROWS
        for learned_from in networks.populations(settings.networks, row)
    } | {
        f"sheets, {row}, {group}": partial(sheet, row, group)
        for group in sheets.groups(settings)
        for row in sheets.ROWS
    }


def run(
    settings: PopulationSettings, folder: Path, *, only: str = "", again: bool = False, progress: Progress
) -> dict[str, Any]:
    """Measures the points with `only` in their names that `folder` lacks, or all of them `again`; see `collected`.

    Raises:
        InvalidInput: if no point has that name.
        DataNotFound: if a data set is nowhere.
        InvalidFile: if a point, an earlier result or a zoo in the folder is none.
        OutputFailed: if the folder cannot be written.
    """
    possible = points(settings, folder)
    measure_points(possible, folder, earlier="population.json", only=only, again=again, progress=progress)
    return collected(settings, folder)


def collected(settings: PopulationSettings, folder: Path) -> dict[str, Any]:
    """All points that the folder has, ready for JSON. Raises `InvalidFile` if a file there is no point."""
    found = collect_points(
        points(settings, folder), folder, check=lambda point: (point["part"], point["provenance"].items())
    )
    return {"settings": asdict(settings), "better": BETTER, "points": found}
