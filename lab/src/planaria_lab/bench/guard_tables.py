"""What guards show, as Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from planaria.tables import markdown
from planaria_lab.bench.guard_subjects import MINILM


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    measured = result["points"]
    by_guard: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for name, point in measured.items():
        if name.startswith("campaign: "):
            by_guard.setdefault((point["model"], point["budget"]), []).append(point)
    parts = [_campaign_tables(of) for of in by_guard.values()]
    alarms = [point for name, point in measured.items() if name.startswith("alarms: ")]
    if alarms:
        parts.append(_alarm_table(alarms))
    for name, table in (
        ("par2: the rule", _rule_table),
        ("speed", _speed_table),
        ("memory", _memory_table),
        ("scrubber", _scrubber_line),
    ):
        if name in measured:
            parts.append(table(measured[name]))
    made = {_made(point["provenance"]) for point in measured.values()}
    return "\n".join([*parts, "".join(f"Measured with {one}.\n" for one in sorted(made))])


def overview(result: Mapping[str, Any], model: str = MINILM) -> str:
    """What guards of each budget restored of a model, in one table as Markdown."""
    by_damage: dict[str, dict[float, dict[str, Any]]] = {}
    for name, point in result["points"].items():
        if name.startswith(f"campaign: {model}, "):
            by_damage.setdefault(point["damage"], {})[point["budget"]] = point
    budgets = sorted({budget for of in by_damage.values() for budget in of})
    lines = []
    for damage, of in by_damage.items():
        best = of[max(of)]
        par2 = of.get(0.02)
        lines.append(
            [
                damage,
                f"{best['weights']:,.0f}",
                *(
                    f"{of[b]['restored']['guard']['count']} of {of[b]['restored']['guard']['of']}" if b in of else ""
                    for b in budgets
                ),
                _percent(min(point["exact"]["guard"]["minimum"] for point in of.values())),
                str(sum(point["silent"] for point in of.values())),
                f"{par2['restored']['par2']['count']} of {par2['restored']['par2']['of']}" if par2 else "",
            ]
        )
    head = [
        "damage",
        "weights damaged",
        *(f"bit-exact, {100 * budget:g} % guard" for budget in budgets),
        "least share of damaged weights exact",
        "wrong and not flagged",
        "bit-exact, 2 % par2",
    ]
    return markdown(head, lines)


def _campaign_tables(of: Sequence[Mapping[str, Any]]) -> str:
    """Both tables of a guard: what it restored, and par2 beside it."""
    first = of[0]
    tiers = ", ".join(f"{tier} {nbytes:,}" for tier, nbytes in first["tiers"].items() if nbytes)
    restored, beside = [], []
    for point in of:
        seconds, exact = point["seconds"], point["exact"]["guard"]
        restored.append(
            [
                point["damage"],
                f"{point['weights']:,.0f}",
                _share(point["restored"]["guard"]),
                f"{_percent(exact['mean'])} ({_percent(exact['minimum'])})",
                str(point["unseen"]),
                str(point["silent"]),
                f"{seconds['mean']:.2f} ({seconds['maximum']:.2f})",
            ]
        )
        blocks = point["par2"]
        left = point.get("accuracy") or point["error"]
        beside.append(
            [
                point["damage"],
                "no room" if blocks is None else f"{blocks['recovery']:,} of {blocks['size']:,} bytes",
                *(_share(point["restored"][method]) for method in ("par2", "guard")),
                *(_percent(point["exact"][method]["mean"]) for method in ("par2", "guard")),
                *(_left(left[method]) for method in ("unrepaired", "par2", "guard")),
            ]
        )
    refused = sum(point["refused"] for point in of)
    accuracy = first.get("accuracy")
    what = "accuracy, %:" if accuracy else "error:"
    return (
        f"**{first['model']}, budget {100 * first['budget']:g} %**: a guard of {first['guard_bytes']:,} bytes "
        f"({100 * first['guard_bytes'] / first['model_bytes']:.2f} % of {first['model_bytes']:,}): {tiers}.\n\n"
        + markdown(
            [
                "damage",
                "weights damaged",
                "runs bit-exact",
                "damaged weights exact, mean (minimum)",
                "damaged and not seen",
                "wrong and not flagged",
                "repair, s (longest)",
            ],
            restored,
        )
        + "\npar2 with the same bytes, and the block size that is best for each damage:\n\n"
        + markdown(
            [
                "damage",
                "par2's recovery blocks",
                *(f"runs bit-exact: {method}" for method in ("par2", "guard")),
                *(f"weights exact: {method}" for method in ("par2", "guard")),
                *(f"{what} {method}" for method in ("unrepaired", "par2", "guard")),
            ],
            beside,
        )
        + (
            f"\nAccuracy on the MNIST test images, mean ± half the 95 % interval (minimum); intact: "
            f"{accuracy['intact']:.2f}.\n"
            if accuracy
            else "\nThe error is that of the damaged tensors, relative to their norm; the median of the runs.\n"
        )
        + (f"\n{refused} repairs had to be forced.\n" if refused else "")
    )


def _alarm_table(of: Sequence[Mapping[str, Any]]) -> str:
    ways = list(of[0]["alarms"])
    lines = [
        [point["model"], f"{100 * point['budget']:g} %", *(f"{point['alarms'][w]} of {point['checks']}" for w in ways)]
        for point in of
    ]
    return "**False alarms** on the intact model\n\n" + markdown(["model", "budget", *ways], lines)


def _rule_table(point: Mapping[str, Any]) -> str:
    if point["program"] is None:
        return "**par2's rule** was not tried out: no par2 is installed.\n"
    lines = [
        [
            f"{case['size']:,}",
            f"{case['count']:,}",
            f"{case['recovery']:,}",
            f"{case['broken']:,}",
            "yes" if case["recovered"] else "no",
            "yes" if case["as_modelled"] else "no",
            f"{case['nbytes']:,}",
            f"{case['nbytes_modelled']:,}",
        ]
        for case in point["cases"]
    ]
    head = ["block", "blocks", "recovery", "broken", "recovered", "as the rule says", "bytes of its file", "counted as"]
    return f"**par2's rule**, tried out with {point['program']}\n\n" + markdown(head, lines)


def _speed_table(point: Mapping[str, Any]) -> str:
    lines = []
    for act, cell in point["acts"].items():
        seconds = cell["seconds"]["median"]
        runs = f"{min(cell['runs']):.3g} to {max(cell['runs']):.3g}"
        rate = "" if act == "load the guard" else f"{point['nbytes'] / seconds / 1e9:.2f}"
        lines.append([act, str(cell["threads"]), f"{seconds:.3g} ({runs})", rate])
    title = f"**Speed** on {MINILM}, {point['nbytes'] / 1e6:.1f} MB, guard {point['guard_bytes']:,} bytes\n\n"
    return title + markdown(["what", "threads", "seconds, median (range)", "GB/s"], lines)


def _memory_table(point: Mapping[str, Any]) -> str:
    lines = [
        [act, *(f"{peak[what] / 1e6:,.0f}" for what in ("peak", "tiny")), f"{peak['beyond'] / 1e6:,.0f}"]
        for act, peak in point["peaks"].items()
    ]
    head = ["what", "peak, MB", "peak on a tiny checkpoint", "difference less the largest tensor"]
    return (
        f"**Memory** on {point['nbytes'] / 1e9:.2f} GB in {point['shards']} shards, largest tensor "
        f"{point['largest_tensor'] / 1e6:.0f} MB, guard {point['guard_bytes'] / 1e6:.1f} MB\n\n" + markdown(head, lines)
    )


def _scrubber_line(point: Mapping[str, Any]) -> str:
    overhead = point["overhead"]
    interval = (
        "" if overhead["low"] is None else f" (95 %: {100 * overhead['low']:.2f} to {100 * overhead['high']:.2f})"
    )
    return (
        f"**Scrubber** at {point['rate'] / 1e6:.1f} MB/s, 1 % of a core: it takes {100 * overhead['median']:.2f} %"
        f"{interval} of the throughput of an encoder of {point['nbytes'] / 1e6:.0f} MB on {point['threads']} threads, "
        f"the median of {overhead['count']} pairs; {point['tiles']:,} tiles checked, {point['false_alarms']} false "
        "alarms.\n"
    )


def _share(of: Mapping[str, Any]) -> str:
    return f"{of['count']} of {of['of']} ({100 * of['low']:.1f} to {100 * of['high']:.1f} %)"


def _percent(share: float) -> str:
    """Never 100 % for less than all."""
    return f"{math.floor(share * 1e4) / 100:.2f} %"


def _left(value: Any) -> str:
    """An accuracy, or an error."""
    if value is None:
        return "not finite"
    if isinstance(value, Mapping):
        interval = "" if value["interval"] is None else f" ± {value['interval']:.2f}"
        return f"{value['mean']:.2f}{interval} ({value['minimum']:.2f})"
    return f"{value:.3g}"


def _made(provenance: Mapping[str, Any]) -> str:
    machine = provenance["machine"]
    changed = " with uncommitted changes" if provenance["uncommitted_changes"] else ""
    return (
        f"planaria {provenance['versions']['planaria']} ({str(provenance['commit'])[:7]}{changed}), torch "
        f"{provenance['versions']['torch']}, {machine['processor']}, {machine['threads']} threads, "
        f"{provenance['time'][:10]}"
    )
