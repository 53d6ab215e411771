"""A campaign's result as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from planaria.tables import markdown


def tables(result: Mapping[str, Any]) -> str:
    """For every damage of every model, a line for each defence."""
    made = result["provenance"]
    parts = [_table(point) for point in result["points"].values()]
    parts.append(
        "Accuracy in percent: mean ± half the 95 % interval (Student), 5 % quantile and minimum of the runs. Named: of "
        "the damaged weights; right: of the weights named. False repairs: intact weights changed, in all runs. "
        f"planaria {made['versions']['planaria']} ({str(made['commit'])[:7]}), torch {made['versions']['torch']}, "
        f"{made['machine']['processor']}, {made['time'][:10]}.\n"
    )
    return "\n".join(parts)


def overview(result: Mapping[str, Any], *, only: Sequence[str] = ()) -> str:
    """A line for each damage of each model, a column for each defence, or for those named in `only`."""
    points = list(result["points"].values())
    names = list(only) or list(points[0]["defences"])
    several = len({point["model"] for point in points}) > 1
    head = ["model"] * several + ["damage", *(_with_bytes(name, points) for name in names)]
    lines = [
        [point["model"]] * several + [point["damage"], *(_cell(point["defences"][name]) for name in names)]
        for point in points
    ]
    intact = dict.fromkeys(f"{point['model']} {point['intact']:.2f}" for point in points)
    runs = dict.fromkeys(str(point["defences"][names[0]]["accuracy"]["count"]) for point in points)
    return (
        markdown(head, lines)
        + f"\nAccuracy in % (intact: {', '.join(intact)}): mean ± half the 95 % interval (minimum) of "
        f"{' or '.join(runs)} runs. Then in how many runs all was bit for bit as before (exact), and in how many "
        "damage was reported (found).\n"
    )


def _with_bytes(name: str, points: Sequence[Mapping[str, Any]]) -> str:
    shares = [100 * point["defences"][name]["nbytes"] / point["model_bytes"] for point in points]
    low, high = f"{min(shares):.3g}", f"{max(shares):.3g}"
    return f"{name} ({low if low == high else f'{low} to {high}'} % bytes)" if max(shares) else name


def _cell(of: Mapping[str, Any]) -> str:
    accuracy = of["accuracy"]
    said = f"{accuracy['mean']:.2f}"
    if accuracy["interval"]:
        said += f" ± {accuracy['interval']:.2f}"
    said += f" ({accuracy['minimum']:.2f})"
    shares = of["exact"]["runs"] if "exact" in of else [None] * accuracy["count"]  # None: nothing was damaged
    whole = [
        share in (None, 1.0) and not wrong for share, wrong in zip(shares, of["false_repairs"]["runs"], strict=True)
    ]
    if any(whole) and of["nbytes"]:
        said += f", exact {sum(whole)}"
    return said + (f", found {of['detected']['wilson']['count']}" if of["nbytes"] else "")


def roc_table(result: Mapping[str, Any]) -> str:
    """A line for each damage of each model: areas under the ROC curve, and the share found at few false alarms."""
    points = list(result["points"].values())
    names = [name for name, of in points[0]["defences"].items() if "roc_area" in of]
    lines = [[point["model"], point["damage"], *(_area(point["defences"][name]) for name in names)] for point in points]
    return (
        markdown(["model", "damage", *(_with_bytes(name, points) for name in names)], lines)
        + "\nArea under the curve of false against true positives, ± half the 95 % interval (minimum); share of the "
        "damaged weights that are found where one intact weight of 1,000 is named.\n"
    )


def _area(of: Mapping[str, Any]) -> str:
    area, found = of["roc_area"], of["found_at_1e-3"]["mean"]
    return f"{area['mean']:.3f} ± {area['interval'] or 0:.3f} ({area['minimum']:.3f}); {found:.2f}"


def _table(point: Mapping[str, Any]) -> str:
    lines = []
    for name, of in point["defences"].items():
        accuracy, wilson = of["accuracy"], of["detected"]["wilson"]
        interval = "" if accuracy["interval"] is None else f" ± {accuracy['interval']:.2f}"
        lines.append(
            [
                name,
                f"{100 * of['nbytes'] / point['model_bytes']:.2f} %",
                f"{accuracy['mean']:.2f}{interval}",
                f"{accuracy['quantile_5']:.2f}",
                f"{accuracy['minimum']:.2f}",
                f"{of['agreement']['mean']:.4f}",
                f"{wilson['count']} of {wilson['of']}",
                *(_share(of, measure) for measure in ("recall", "precision", "exact")),
                f"{sum(of['false_repairs']['runs']):.0f}",
                f"{100 * of['silent']['mean']:.2f} %",
                f"{of['seconds']['mean']:.3f}",
            ]
        )
    head = [
        "defence",
        "bytes",
        "accuracy",
        "5 % quantile",
        "minimum",
        "agreement",
        "detected",
        "named",
        "right",
        "bit-exact",
        "false repairs",
        "silent",
        "seconds",
    ]
    return f"**{point['model']}, {point['damage']}** (intact: {point['intact']:.2f})\n\n" + markdown(head, lines)


def _share(of: Mapping[str, Any], measure: str) -> str:
    return f"{of[measure]['mean']:.3f}" if measure in of else "-"
