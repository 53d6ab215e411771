"""The frontier as Markdown, and what tables and figures both look up."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planaria.tables import markdown

OURS = ("planaria",)
"""Methods that are compared with the best of all others."""


@dataclass(frozen=True)
class Cell:
    """What one method reached at one rate with one budget.

    Attributes:
        planned: whether its memory was planned for that very rate.
        nbytes: that it kept.
        share: `nbytes` over the bytes of the tensors that lost weights.
        value: the measure: its "mean", "interval", "minimum".
    """

    method: str
    planned: bool
    budget: float
    rate: float
    nbytes: int
    share: float
    value: Mapping[str, Any]

    @property
    def mean(self) -> float:
        return float(self.value["mean"])


def subjects(result: Mapping[str, Any]) -> list[str]:
    """Those of which something was measured, in order."""
    return list(dict.fromkeys(point["subject"] for point in result["points"].values()))


def metric(result: Mapping[str, Any], subject: str) -> str:
    """What is shown of a subject."""
    return next(str(point["metric"]) for point in result["points"].values() if point["subject"] == subject)


def intact(result: Mapping[str, Any], subject: str) -> float:
    """The same of the intact network."""
    of = next(point for point in result["points"].values() if point["subject"] == subject)
    return float(of["intact"][of["metric"]])


def cells(result: Mapping[str, Any], subject: str, measure: str | None = None) -> list[Cell]:
    """Everything measured of a subject; `measure` is its metric by default, or "bits", "output_error"."""
    return list(_cells(result, subject, measure))


def best(of: Sequence[Cell], *, rate: float, budget: float, ours: bool, planned: bool) -> Cell | None:
    """The best mean among our methods, or among all others, with no more than the budget's bytes.

    Without `planned`, only memories that were planned for no rate in particular count.
    """
    fit = [
        cell
        for cell in of
        if cell.rate == rate
        and cell.share <= budget
        and (cell.method in OURS) == ours
        and (planned or not cell.planned)
    ]
    return max(fit, key=lambda cell: cell.mean, default=None)


def overview(result: Mapping[str, Any]) -> str:
    """For every subject, planaria beside the best of all other methods."""
    return "\n".join(_best_table(result, subject) for subject in subjects(result))


def tables(result: Mapping[str, Any]) -> str:
    """For each subject the best at each budget and rate, and every method at every budget."""
    parts = []
    for subject in subjects(result):
        parts.append(_best_table(result, subject))
        parts += [_budget_table(result, subject, budget) for budget in _budgets(result, subject)]
    return "\n".join([*parts, _made(result)])


def _cells(result: Mapping[str, Any], subject: str, measure: str | None) -> Iterator[Cell]:
    for point in result["points"].values():
        if point["subject"] != subject:
            continue
        for rate, measured in point["rates"].items():
            yield Cell(
                point["method"],
                point["planned"] is not None,
                point["budget"],
                float(rate),
                point["nbytes"],
                point["nbytes"] / point["subject_bytes"],
                measured[measure or point["metric"]],
            )


def _budgets(result: Mapping[str, Any], subject: str) -> list[float]:
    return sorted({point["budget"] for point in result["points"].values() if point["subject"] == subject})


def _best_table(result: Mapping[str, Any], subject: str) -> str:
    """Ours and the best other, each planned for the rate."""
    of = cells(result, subject)
    rates = sorted({cell.rate for cell in of})
    lines = []
    for budget in _budgets(result, subject):
        for ours in (True, False):
            found = [best(of, rate=rate, budget=budget, ours=ours, planned=True) for rate in rates]
            if any(found):
                name = OURS[0] if ours else "best other"
                shown = [
                    "" if one is None else f"{_number(one.mean)}{'' if ours else f' ({one.method})'}" for one in found
                ]
                lines.append([f"{100 * budget:g} %", name, *shown])
    return (
        f"**{subject}**, {metric(result, subject)} (intact: {_number(intact(result, subject))}), mean over masks, the "
        "best for each rate\n\n" + markdown(["bytes", "", *(f"{100 * rate:g} % lost" for rate in rates)], lines)
    )


def _budget_table(result: Mapping[str, Any], subject: str, budget: float) -> str:
    of = cells(result, subject)
    rates = sorted({cell.rate for cell in of})
    at = {(cell.method, cell.planned, cell.rate): cell for cell in of if cell.budget == budget}
    rows = dict.fromkeys(
        (point["method"], point["planned"] is not None)
        for point in result["points"].values()
        if point["subject"] == subject and point["budget"] == budget
    )
    lines = []
    for method, planned in rows:
        found = [at.get((method, planned, rate)) for rate in rates]
        shares = sorted({cell.share for cell in found if cell is not None})
        lines.append(
            [
                method,
                "the rate" if planned else "any rate",
                " to ".join(f"{100 * share:.2f}" for share in dict.fromkeys([*shares[:1], *shares[-1:]])),
                *("" if cell is None else _summary(cell.value) for cell in found),
            ]
        )
    head = ["method", "planned for", "bytes, %", *(f"{100 * rate:g} % lost" for rate in rates)]
    return (
        f"**{subject}, at most {100 * budget:g} % of bytes**, {metric(result, subject)}, mean ± half the 95 % interval "
        "(minimum)\n\n" + markdown(head, lines)
    )


def _made(result: Mapping[str, Any]) -> str:
    made = {
        f"planaria {one['versions']['planaria']} ({str(one['commit'])[:7]}), torch {one['versions']['torch']}, "
        f"{one['machine']['processor']}, {one['time'][:10]}"
        for one in (point["provenance"] for point in result["points"].values())
    }
    return "".join(f"Measured with {one}.\n" for one in sorted(made))


def _summary(value: Mapping[str, Any]) -> str:
    interval = "" if value["interval"] is None else f" ± {_number(value['interval'])}"
    return f"{_number(value['mean'])}{interval} ({_number(value['minimum'])})"


def _number(value: float) -> str:
    """Percentages with two decimals, shares with three."""
    return f"{value:.2f}" if abs(value) > 1.5 else f"{value:.3f}"
