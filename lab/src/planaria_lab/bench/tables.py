"""Results as Markdown."""

from collections.abc import Sequence
from typing import Any

from planaria.tables import markdown


def repair_tables(result: dict[str, Any]) -> str:
    """The whole result: for each network the accuracies, R2 on missing weights, and the fits."""
    parts = [
        accuracy_table(result, name) + "\n" + r2_table(result, name) + "\n" + fit_table(result, name)
        for name in result["networks"]
    ]
    made = result["provenance"]
    experiment = result["experiment"]
    parts.append(
        f"{experiment['masks']} masks and {experiment['fits']} fits of each recipe; mean ± half the 95 % interval over "
        f"masks (minimum of all runs). planaria {made['versions']['planaria']}, torch {made['versions']['torch']}, "
        f"{made['machine']['processor']}, {made['machine']['threads']} threads, {made['time'][:10]}.\n"
    )
    return "\n".join(parts)


def accuracy_table(
    result: dict[str, Any], network: str, rates: list[str] | None = None, methods: Sequence[str] = ()
) -> str:
    """Accuracy by method and rate, the talk's figures in a column of their own beside each of network A's.

    Args:
        rates: missing shares, as in the result; by default all.
        methods: those to show; by default all.
    """
    measured = result["networks"][network]
    rates = rates or list(measured["rows"][0]["rates"])
    the_talk = result["the_talk"] if network == "A" else {}
    head = ["method", "bytes, % of FC1"]
    for rate in rates:
        head += [f"{float(rate):.0%} missing", "the talk"] if the_talk else [f"{float(rate):.0%} missing"]
    lines = []
    for row in measured["rows"]:
        if methods and row["method"] not in methods:
            continue
        cells = [row["method"], _share(row["bytes"], measured["fc1_bytes"])]
        for rate in rates:
            cells.append(_cell(row["rates"][rate]["accuracy"], digits=2))
            if the_talk:
                told = the_talk.get(row["method"], {}).get(rate)
                cells.append("" if told is None else f"{told:.2f}")
        lines.append(cells)
    title = f"**Network {network}**, accuracy in % (intact: {measured['clean_accuracy']:.2f})\n\n"
    return title + markdown(head, lines)


def r2_table(result: dict[str, Any], network: str) -> str:
    """R2 on the missing weights by method and rate."""
    measured = result["networks"][network]
    rates = list(measured["rows"][0]["rates"])
    lines = [
        [row["method"], *(_cell(row["rates"][rate]["r2"], digits=3) for rate in rates)] for row in measured["rows"]
    ]
    title = f"**Network {network}**, R2 on missing weights\n\n"
    return title + markdown(["method", *(f"{float(rate):.0%}" for rate in rates)], lines)


def fit_table(result: dict[str, Any], network: str) -> str:
    """What each recipe's fit cost, and what a repair takes."""
    measured = result["networks"][network]
    seconds = {row["method"]: row["rates"] for row in measured["rows"]}
    lines = []
    for recipe, fits in measured["fits"].items():
        repairs = [cell["seconds"]["mean"] for cell in seconds[f"{recipe} recipe"].values()]
        lines.append(
            [
                f"{recipe} recipe",
                str(fits[0]["parameters"]),
                " / ".join(str(fit["iterations"]) for fit in fits),
                " / ".join(f"{fit['seconds']:.0f}" for fit in fits),
                f"{sum(repairs) / len(repairs):.3f}",
            ]
        )
    return markdown(["recipe", "parameters", "iterations", "fit, seconds", "repair, seconds"], lines)


def _cell(summary: dict[str, Any], *, digits: int) -> str:
    interval = "" if summary["interval"] is None else f" ± {summary['interval']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{interval} ({summary['minimum']:.{digits}f})"


def _share(bytes_used: int, of: int) -> str:
    return f"{100 * bytes_used / of:.2f}"
