"""A campaign's result as Markdown."""

from collections.abc import Mapping
from typing import Any

from planaria.bench.tables import markdown


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
