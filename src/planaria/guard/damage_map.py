"""A picture of where a model is damaged."""

import io
import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from planaria.files import write_atomically
from planaria.guard.report import VERDICTS, Region, Report

# Told apart by the colour-blind, and in print: the worse the darker, but for the intact.
SHADES = ("#e4e4e4", "#27ab83", "#2b6cb0", "#f0a030", "#8c1420", "#7b5ea7", "#40372c")
COLOURS = dict(zip(VERDICTS, SHADES, strict=True))
ROWS = 40
COLUMNS = 600
LONGEST_NAME = 44
DPI = 130


def draw_damage_map(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes a PNG: a row for the whole model, then one for each of the 40 largest damaged tensors, largest first.

    A row runs from the first byte to the last in 600 columns, whatever the size; a column shows the worst of its tiles,
    so a single one is seen. Cost: a second. Raises `OutputFailed`.
    """
    damaged = sorted((tensor for tensor in report.tensors if tensor.regions), key=lambda tensor: -tensor.nbytes)
    shown = damaged[:ROWS]
    rows = [_row(_of_model(report), sum(tensor.nbytes for tensor in report.tensors))]
    rows += [_row(tensor.regions, tensor.nbytes) for tensor in shown]
    counts = {verdict: report.count(verdict) for verdict in VERDICTS}
    tiles = sum(counts.values())
    names = ["whole model", *(_short(tensor.name) for tensor in shown)]
    shares = [f"{tiles - counts['intact']:,} of {tiles:,} tiles"]
    shares += [f"{tensor.tiles - tensor.count('intact', tile=report.tile):,} of {tensor.tiles:,}" for tensor in shown]

    figure = Figure(figsize=(9.5, 1.9 + 0.2 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(
        np.stack(rows),
        cmap=ListedColormap(list(COLOURS.values())),
        vmin=-0.5,
        vmax=len(VERDICTS) - 0.5,
        extent=(0, 100, len(rows), 0),
        aspect="auto",
        interpolation="nearest",
    )
    axes.hlines(np.arange(1, len(rows)), 0, 100, color="white", lw=2)
    axes.hlines(1, 0, 100, color="white", lw=5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=7.5)
    middles = np.arange(len(rows)) + 0.5
    axes.set_yticks(middles, names, parse_math=False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(middles, shares)
    right.tick_params(length=0, labelsize=7.5)
    right.spines[:].set_visible(False)
    rest = f"; smaller damaged tensors, seen in the first row alone: {len(damaged[ROWS:]):,}" if damaged[ROWS:] else ""
    intact = f"intact tensors: {len(report.tensors) - len(damaged):,}"
    axes.set_xlabel(f"position in the tensor (% of its bytes)\n{intact}{rest}", fontsize=8)
    title = f"{report.action}: {report}"
    axes.set_title(textwrap.fill(_plain(title), 105), fontsize=8.5, loc="left", parse_math=False)
    figure.legend(
        handles=[Patch(color=COLOURS[verdict], label=f"{verdict} ({counts[verdict]:,})") for verdict in VERDICTS],
        loc="outside lower center",
        ncols=len(VERDICTS),
        fontsize=8,
        frameon=False,
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    write_atomically(path, file.getvalue())


def _of_model(report: Report) -> list[Region]:
    """The regions of all tensors, laid end to end."""
    regions, start = [], 0
    for tensor in report.tensors:
        regions += [
            Region(start=start + region.start, stop=start + region.stop, verdict=region.verdict)
            for region in tensor.regions
        ]
        start += tensor.nbytes
    return regions


def _row(regions: Sequence[Region], nbytes: int) -> NDArray[np.int64]:
    """The worst verdict of each column, as its index."""
    spans = np.array([(region.start, region.stop) for region in regions], np.int64).reshape(-1, 2)
    verdicts = np.array([VERDICTS.index(region.verdict) for region in regions], np.int64)
    first, last = spans[:, 0] * COLUMNS // max(nbytes, 1), -(-spans[:, 1] * COLUMNS // max(nbytes, 1))
    row = np.zeros(COLUMNS, np.int64)
    for verdict in range(1, len(VERDICTS)):  # from best to worst, which so comes out on top
        edges = np.zeros(COLUMNS + 1, np.int64)
        np.add.at(edges, first[verdicts == verdict], 1)
        np.add.at(edges, last[verdicts == verdict], -1)
        row[edges.cumsum()[:-1] > 0] = verdict
    return row


def _short(name: str) -> str:
    """A name that fits beside its row. The ends of names tell more than their middles."""
    name = _plain(name)
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}...{name[-half:]}"


def _plain(text: str) -> str:
    """Only characters that the picture's font has: names may hold any."""
    return text.encode("unicode_escape").decode()
