"""Pictures of the frontier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from planaria_lab import bounds
from planaria_lab.bench.figures import save_figure
from planaria_lab.bench.frontier.tables import OURS, Cell, best, cells, intact, metric, subjects

OUR_COLOUR = "#1b7f5c"
BITS_A_WEIGHT = 32


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes all figures of all subjects; answers with their files. Raises `OutputFailed`."""
    paths = []
    for subject in subjects(result):
        name = subject.lower().replace(" ", "_")
        figures = {
            f"pareto_{name}": pareto(result, subject),
            f"precision_{name}": profiles(result, subject),
        }
        if any(cell.method in OURS for cell in cells(result, subject)):
            figures[f"gain_{name}"] = gain(result, subject)
        for title, figure in figures.items():
            paths.append(folder / f"{title}.png")
            save_figure(figure, paths[-1])
    return paths


def gain(result: Mapping[str, Any], subject: str) -> Figure:
    """Ours less the best other, by budget and rate: planned for the rate, and for any. Unmeasured cells stay white."""
    of = cells(result, subject)
    rates, budgets = sorted({cell.rate for cell in of}), sorted({cell.budget for cell in of})
    gains = np.full((2, len(budgets), len(rates)), np.nan)
    for panel, row, column in np.ndindex(gains.shape):
        ours, other = (
            best(of, rate=rates[column], budget=budgets[row], ours=whose, planned=panel == 0) for whose in (True, False)
        )
        if ours is not None and other is not None:
            gains[panel, row, column] = ours.mean - other.mean
    limit = max(float(np.nanmax(np.abs(gains), initial=0.0)), 1e-9)
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, values, title in zip(
        figure.subplots(1, 2), gains, ("planned for the rate", "planned for any rate"), strict=True
    ):
        image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", origin="lower")
        for row, column in np.argwhere(np.isfinite(values)):
            shown = f"{values[row, column]:+.2g}"
            strong = abs(values[row, column]) > 0.6 * limit
            axes.text(column, row, shown, ha="center", va="center", fontsize=8, color="white" if strong else "black")
        axes.set(
            xticks=range(len(rates)),
            xticklabels=[f"{100 * rate:g}" for rate in rates],
            yticks=range(len(budgets)),
            yticklabels=[f"{100 * budget:g}" for budget in budgets],
            xlabel="weights lost (%)",
            ylabel="bytes (%)",
            title=title,
        )
    figure.colorbar(image, ax=figure.axes, label=f"{metric(result, subject)} above the best other method")
    figure.suptitle(subject)
    return figure


def pareto(result: Mapping[str, Any], subject: str, *, rate: float = 0.9) -> Figure:
    """The metric against the bytes kept, at one rate; 95 % intervals over masks."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    measured = cells(result, subject)
    shown = [intact(result, subject), *(cell.mean for cell in measured if cell.rate == rate)]
    room = 0.05 * (max(shown) - min(shown)) + 1e-9
    for method, of in _by_method(measured, planned_too=True).items():
        at = sorted((cell for cell in of if cell.rate == rate), key=lambda cell: cell.share)
        if method == "zero fill" and at:
            axes.axhline(at[0].mean, color="#7a7a7a", lw=0.8, ls=":", label=method)
        elif at:
            _line(axes, method, [100 * cell.share for cell in at], at)
    axes.axhline(intact(result, subject), color="black", lw=0.6)
    axes.set(
        xlabel="bytes kept (% of the tensors that lose weights)",
        ylabel=metric(result, subject),
        xscale="log",
        title=f"{subject}, {100 * rate:g} % of weights lost",
        ylim=(min(shown) - room, max(shown) + room),
    )
    budgets = sorted({cell.budget for cell in measured})
    axes.set_xticks([100 * budget for budget in budgets], [f"{100 * budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7.5, frameon=False)
    return figure


def profiles(result: Mapping[str, Any], subject: str, *, budget: float = 0.02) -> Figure:
    """Bits of precision recovered of a lost weight, by rate; what independent Gaussian weights allow for one rate.

    Each method keeps one memory for all rates; its area, in bits a weight, is what the same profile would cost without
    redundancy in the weights, where `budget` is what was paid.
    """
    paid = BITS_A_WEIGHT * budget
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    of = [cell for cell in cells(result, subject, "bits") if cell.budget == budget]
    for method, found in _by_method(of, planned_too=False).items():
        at = sorted(found, key=lambda cell: cell.rate)
        rates, bits = (np.array([getattr(cell, what) for cell in at]) for what in ("rate", "mean"))
        _line(axes, f"{method} (area {bounds.profile_area(rates, bits):.2f})", (100 * rates).tolist(), at)
    shares = np.linspace(0.01, 1, 100)
    allowed = bounds.recovered_bits(bounds.erasure_distortion(paid, shares))
    axes.plot(100 * shares, allowed, color="black", lw=1, ls="--", label="bound for each rate by itself, no redundancy")
    axes.set(
        xlabel="weights lost (%)",
        ylabel="precision recovered (bits a lost weight)",
        title=f"{subject}, {100 * budget:g} % of bytes: {paid:.2f} bits a weight",
        yscale="symlog",
        ylim=(-1, None),
    )
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7.5, frameon=False)
    return figure


def _by_method(of: list[Cell], *, planned_too: bool) -> dict[str, list[Cell]]:
    """Planned cells where there are any and they are wanted; the others have "any rate" in their name."""
    found: dict[str, list[Cell]] = {}
    planning = {cell.method for cell in of if cell.planned}
    for cell in of:
        any_rate = cell.method in planning and not cell.planned
        if (cell.planned and not planned_too) or (any_rate and planned_too and cell.method not in OURS):
            continue
        found.setdefault(f"{cell.method}, any rate" if any_rate and planned_too else cell.method, []).append(cell)
    return found


def _line(axes: Axes, label: str, places: list[float], of: list[Cell]) -> None:
    mean = np.array([cell.mean for cell in of])
    interval = np.array([cell.value["interval"] or 0.0 for cell in of])
    ours = of[0].method in OURS
    drawn = axes.plot(
        places,
        mean,
        marker="o",
        ms=3,
        lw=2 if ours else 1,
        ls="--" if "any rate" in label else "-",
        color=OUR_COLOUR if ours else None,
        label=label,
        zorder=2 + ours,
    )[0]
    axes.fill_between(places, mean - interval, mean + interval, color=drawn.get_color(), alpha=0.15, lw=0)
