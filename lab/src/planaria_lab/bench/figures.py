"""Pictures of a repair, made without a display."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from planaria.files import write_atomically

COLOURS = {"kriging": "#7a7a7a", "reference recipe": "#d1872c", "default recipe": "#1b7f5c", "the talk": "#a03a6b"}
MISSING = "#202028"
DPI = 130


def recovery_curves(network: str, result: dict[str, Any], the_talk: dict[str, dict[str, float]]) -> Figure:
    """Accuracy against damage, with 95 % intervals over masks; the minimum of all runs as a thin line."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for row in result["rows"]:
        method = row["method"]
        if "," in method and "flat" not in method and "sheets" not in method:
            continue  # variations of the default recipe lie on its curve
        rates = [100 * float(rate) for rate in row["rates"]]
        mean = np.array([cell["accuracy"]["mean"] for cell in row["rates"].values()])
        interval = np.array([cell["accuracy"]["interval"] or 0 for cell in row["rates"].values()])
        minimum = [cell["accuracy"]["minimum"] for cell in row["rates"].values()]
        strong = method in COLOURS
        line = axes.plot(
            rates,
            mean,
            marker="o",
            ms=3,
            lw=2 if strong else 1,
            color=COLOURS.get(method),
            label=method,
            zorder=2 + strong,
        )[0]
        axes.fill_between(rates, mean - interval, mean + interval, color=line.get_color(), alpha=0.15, lw=0)
        if strong:
            axes.plot(rates, minimum, lw=0.8, ls=":", color=line.get_color())
    if network == "A":
        told = the_talk["reference recipe"]
        label = "the talk's automaton, on its own network"
        axes.plot(
            [100 * float(rate) for rate in told], list(told.values()), "x--", color=COLOURS["the talk"], label=label
        )
    axes.axhline(result["clean_accuracy"], color="black", lw=0.6)
    axes.set(
        xlabel="FC1 weights missing (%)",
        ylabel="accuracy on MNIST's test images (%)",
        title=f"Network {network}: mean, 95 % interval, and minimum (dotted)",
        ylim=(25, 100),
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")
    return figure


def roc_curves(title: str, curves: Mapping[str, Mapping[float, float]]) -> Figure:
    """Share of the damage found against the rate of false alarms, a line each; dotted is what a coin finds."""
    figure = Figure(figsize=(6.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for label, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", ms=3, lw=1.2, label=label)
    rates = sorted({rate for curve in curves.values() for rate in curve})
    axes.plot(rates, rates, ":", color="black", lw=0.8)
    axes.set(
        xlabel="intact weights with a score as high",
        ylabel="damaged weights found",
        title=title,
        xscale="log",
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False)
    return figure


def gallery(
    grids: dict[str, Float[Tensor, "neurons height width"]],
    known: Bool[Tensor, "neurons height width"],
    *,
    neurons: Sequence[int],
) -> Figure:
    """Sheets of a few neurons, a row a version; where "damaged" is missing, it is dark."""
    figure = Figure(figsize=(1.25 * len(neurons) + 1.2, 1.25 * len(grids)), layout="constrained")
    rows = np.atleast_2d(figure.subplots(len(grids), len(neurons)))
    limit = _limit(next(iter(grids.values())))
    for line, (name, grid) in zip(rows, grids.items(), strict=True):
        for axes, neuron in zip(line, neurons, strict=True):
            axes.imshow(_coloured(grid[neuron], known[neuron] if name == "damaged" else None, limit))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def loss_curve(losses: Sequence[float], held_out: Sequence[tuple[int, float]]) -> Figure:
    """Training loss of every iteration, its running mean, and the looks at held-out masks."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    iterations = np.arange(1, len(losses) + 1)
    axes.plot(iterations, losses, lw=0.4, color="#bbbbbb", label="training, each iteration")
    width = min(50, len(losses))
    running = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(iterations[width - 1 :], running, color=COLOURS["default recipe"], label=f"mean of {width}")
    looks, values = zip(*held_out, strict=True)
    axes.plot(looks, values, "o-", ms=3, color=COLOURS["the talk"], label="held-out masks, long rollout")
    finite = [value for value in (*losses, *values) if np.isfinite(value)]
    axes.set(xlabel="iteration", ylabel="loss (variances of the weights)", ylim=(0, 1.1 * np.quantile(finite, 0.99)))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    return figure


def rollout_gif(
    states: Iterable[Float[Tensor, "neurons height width"]],
    *,
    intact: Float[Tensor, "neurons height width"],
    known: Bool[Tensor, "neurons height width"],
    scale: int = 2,
) -> bytes:
    """An animation of a mosaic of sheets: survivors alone, every step, and the end held for a while."""
    limit = _limit(intact)
    frames = [_mosaic(grid, known if number == 0 else None, limit, scale) for number, grid in enumerate(states)]
    durations = [1200, *[120] * (len(frames) - 2), 2500]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def triptych(
    panels: dict[str, Float[Tensor, "neurons height width"]], known: Bool[Tensor, "neurons height width"]
) -> Figure:
    """Mosaics side by side, the one named "damaged ..." with its missing weights dark."""
    figure = Figure(figsize=(3.4 * len(panels), 3.8), layout="constrained")
    limit = _limit(next(iter(panels.values())))
    for axes, (name, grid) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(_mosaic(grid, known if "missing" in name else None, limit, 2))
        axes.set_title(name, fontsize=11)
        axes.axis("off")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all. Raises `OutputFailed`."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    write_atomically(path, file.getvalue())


def _limit(intact: Tensor) -> float:
    """The colour scale's end: all but the 1 % largest weights lie inside."""
    return float(np.quantile(intact.abs().numpy(), 0.99)) or 1.0


def _coloured(grid: Tensor, known: Tensor | None, limit: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    colours = matplotlib.colormaps["RdBu_r"](np.clip(grid.numpy() / (2 * limit) + 0.5, 0, 1))[..., :3]
    if known is not None:
        colours[~known.numpy()] = matplotlib.colors.to_rgb(MISSING)
    return (255 * colours).astype(np.uint8)


def _mosaic(grid: Tensor, known: Tensor | None, limit: float, scale: int) -> Image.Image:
    """All sheets in a square, a pixel of white between them."""
    count, height, width = grid.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 255, np.uint8)
    for number, sheet in enumerate(_coloured(grid, known, limit)):
        top, left = (number // columns) * (height + 1) + 1, (number % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = sheet
    return Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)
