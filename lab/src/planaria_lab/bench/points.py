"""Benches of many points: each is written to a file of its own as soon as it is measured, and so is not lost."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from planaria.errors import InvalidFile, InvalidInput
from planaria.files import make_folder, write_atomically
from planaria_lab.bench.provenance import provenance

Tell = Callable[[str], None]


def measure_points(
    possible: Mapping[str, Callable[[Tell], dict[str, Any]]],
    folder: Path,
    *,
    earlier: str,
    only: str,
    again: bool,
    progress: Callable[[int, int, str], None],
) -> None:
    """Measures the points with `only` in their names that `folder` lacks, or all of them `again`.

    Args:
        earlier: name of the bench's result, whose points are unpacked where they have no file.

    Raises:
        InvalidInput: if no point has that name.
        InvalidFile: if an earlier result in the folder is none.
        OutputFailed: if a point cannot be written.
    """
    named = [name for name in possible if only in name]
    if not named:
        raise InvalidInput(f"Nothing to measure is named {only!r}. Names are as {next(iter(possible))!r}.")
    make_folder(folder / "points")
    _unpack(folder, folder / earlier)
    wanted = [name for name in named if again or not _file(folder, name).exists()]
    for number, name in enumerate(wanted):

        def tell(what: str, number: int = number, name: str = name) -> None:
            progress(number, len(wanted), f"{name}: {what}")

        _write(folder, name, possible[name](tell) | {"provenance": provenance()})
    progress(len(wanted), len(wanted), "done")


def collect_points(
    names: Iterable[str], folder: Path, *, check: Callable[[dict[str, Any]], object]
) -> dict[str, dict[str, Any]]:
    """The points of these names that the folder has.

    Args:
        check: touches what a point must have.

    Raises `InvalidFile` if a file there is no point.
    """
    found = {}
    for name in names:
        file = _file(folder, name)
        if not file.exists():
            continue
        try:
            point = json.loads(file.read_text(encoding="utf-8"))
            check(point)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidFile(f"{file} is no point of this bench: {error!r}. Remove it.") from error
        found[name] = point
    return found


def _unpack(folder: Path, earlier: Path) -> None:
    """Writes the points of an earlier result of this folder that have no file: only the result is kept for long."""
    if not earlier.exists():
        return
    try:
        found = json.loads(earlier.read_text(encoding="utf-8"))["points"].items()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidFile(f"{earlier} is no result of this bench: {error!r}. Remove it.") from error
    for name, point in found:
        if not _file(folder, name).exists():
            _write(folder, name, point)


def _write(folder: Path, name: str, point: object) -> None:
    write_atomically(_file(folder, name), json.dumps(point, allow_nan=False).encode())


def _file(folder: Path, name: str) -> Path:
    plain = re.sub("[^a-z0-9.]+", "-", name.lower().replace("%", "percent")).strip("-")
    return folder / "points" / f"{plain}.json"
