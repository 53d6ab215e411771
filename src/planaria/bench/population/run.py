"""`planaria bench population`: every row on every population.

A point is a row and what it learned from, or a row and a group of sheets. Each is written to a file of its own as soon
as it is measured, so that a run can be cut and go on later.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from planaria.bench.population import networks, sheets
from planaria.bench.population.judge import BETTER
from planaria.bench.population.settings import Settings
from planaria.bench.population.zoos import Tell, World, build_world
from planaria.bench.provenance import provenance
from planaria.errors import InvalidFile, InvalidInput
from planaria.files import make_folder, write_atomically

Progress = Callable[[int, int, str], None]


def points(settings: Settings, folder: Path) -> dict[str, Callable[[Tell], dict[str, Any]]]:
    """What measures each point, by its name. Zoos are built, or read, when the first point needs them."""
    zoos = folder / "zoos"
    worlds: list[World] = []
    groups: dict[str, list[sheets.Subject]] = {}

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


def run(settings: Settings, folder: Path, *, only: str = "", again: bool = False, progress: Progress) -> dict[str, Any]:
    """Measures the points with `only` in their names that `folder` lacks, or all of them `again`; see `collected`.

    Raises:
        InvalidInput: if no point has that name.
        DataNotFound: if a data set is nowhere.
        InvalidFile: if a point, an earlier result or a zoo in the folder is none.
        OutputFailed: if the folder cannot be written.
    """
    possible = points(settings, folder)
    named = [name for name in possible if only in name]
    if not named:
        raise InvalidInput(f"Nothing to measure is named {only!r}. Names are as {next(iter(possible))!r}.")
    make_folder(folder / "points")
    _unpack(folder)
    wanted = [name for name in named if again or not _file(folder, name).exists()]
    for number, name in enumerate(wanted):

        def tell(what: str, number: int = number, name: str = name) -> None:
            progress(number, len(wanted), f"{name}: {what}")

        point = possible[name](tell) | {"provenance": provenance()}
        write_atomically(_file(folder, name), json.dumps(point, allow_nan=False).encode())
    progress(len(wanted), len(wanted), "done")
    return collected(settings, folder)


def collected(settings: Settings, folder: Path) -> dict[str, Any]:
    """All points that the folder has, ready for JSON. Raises `InvalidFile` if a file there is no point."""
    found = {}
    for name in points(settings, folder):
        file = _file(folder, name)
        if not file.exists():
            continue
        try:
            found[name] = json.loads(file.read_text(encoding="utf-8"))
            found[name]["part"], found[name]["provenance"].items()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidFile(f"{file} is no point of this bench: {error!r}. Remove it.") from error
    return {"settings": asdict(settings), "better": BETTER, "points": found}


def _unpack(folder: Path) -> None:
    """Writes the points of an earlier result of this folder that have no file: only the result is kept for long."""
    earlier = folder / "population.json"
    if not earlier.exists():
        return
    try:
        found = json.loads(earlier.read_text(encoding="utf-8"))["points"].items()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidFile(f"{earlier} is no result of this bench: {error!r}. Remove it.") from error
    for name, point in found:
        if not _file(folder, name).exists():
            write_atomically(_file(folder, name), json.dumps(point, allow_nan=False).encode())


def _file(folder: Path, name: str) -> Path:
    plain = re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")
    return folder / "points" / f"{plain}.json"
