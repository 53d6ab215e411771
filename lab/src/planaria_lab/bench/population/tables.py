"""Results of the bench of populations as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from planaria.tables import markdown
from planaria_lab.bench.population.judge import BETTER
from planaria_lab.bench.population.networks import ALL
from planaria_lab.bench.population.sheets import OWN, differences
from planaria_lab.bench.population.zoos import SHARED

TITLES = {"accuracy": "accuracy, %", "r2": "R2", "agreement": "agreement, %", "output_error": "output error"}
KINDS = {"scattered": "scattered", "neurons": "whole neurons", "block": "block"}
READ = (
    "Mean ± half the 95 % interval (worst: the minimum, and the maximum of an error). R2: share of the variance of "
    "missing weights that is explained. Agreement: with the intact network's decisions. Output error: of the outputs "
    "of layers before the activation, in their variances.\n"
)

Point = Mapping[str, Any]


def tables(result: Mapping[str, Any]) -> str:
    """The whole result: networks by test set, populations' sizes, the memorisation test, and sheets by group."""
    points = list(result["points"].values())
    whole = [point for point in points if point["part"] == "networks"]
    sheets = [point for point in points if point["part"] == "sheets"]
    parts = [READ]
    learned = [point for point in whole if point["learned_from"] in (ALL, SHARED)]
    parts += [
        test_table(name, [point for point in learned if name in point["tests"]])
        for name in dict.fromkeys(name for point in learned for name in point["tests"])
    ]
    parts += size_tables(whole)
    if remembered := [point for point in whole if "remembered" in point]:
        parts.append(remembered_table(remembered))
    parts += [
        sheet_tables([point for point in sheets if point["group"] == group])
        for group in dict.fromkeys(point["group"] for point in sheets)
    ]
    return "\n".join([*parts, *made(points)])


def overview(result: Mapping[str, Any]) -> str:
    """What a page has room for: sheets at three rates, networks at three, and the rest at one each."""
    points = list(result["points"].values())
    sheets = [point for point in points if point["part"] == "sheets"]
    whole = [point for point in points if point["part"] == "networks" and point["learned_from"] == ALL]
    parts = [READ]
    if sheets:
        parts.append(_sheets_in_short(sheets))
    if whole:
        parts += [
            _networks_in_short(whole, "unseen seeds", "scattered", ("0.3", "0.7", "0.9")),
            _networks_in_short(whole, "unseen seeds", "neurons", ("0.1", "0.3", "0.5")),
            _networks_in_short(whole, "unseen seeds", "block", ("0.1", "0.3", "0.5")),
            _tests_in_short(whole, "0.5"),
            *size_tables([point for point in points if point["part"] == "networks"]),
            remembered_table(whole),
        ]
    return "\n".join([*parts, *made(points)])


def _sheets_in_short(points: Sequence[Point]) -> str:
    """A line a group and row: R2 and accuracy at three rates, and what else is measured at the last."""
    rates = [rate for rate in ("0.1", "0.5", "0.9") if rate in points[0]["rates"]]
    head = ["first layers", "method", "bytes, %"]
    head += [f"{TITLES[what]}, {float(rate):.0%}" for what in ("r2", "accuracy") for rate in rates]
    head += [f"{TITLES[what]}, {float(rates[-1]):.0%}" for what in ("agreement", "output_error")]
    lines = [
        [
            point["group"],
            point["row"],
            _share(point),
            *(_cell(point["rates"][rate][what], what) for what in ("r2", "accuracy") for rate in rates),
            *(_cell(point["rates"][rates[-1]][what], what) for what in ("agreement", "output_error")),
        ]
        for point in points
    ]
    return "**First layers**, scattered weights missing\n\n" + markdown(head, lines)


def _networks_in_short(points: Sequence[Point], test: str, kind: str, shares: Sequence[str]) -> str:
    """Every row on one test set and kind of damage, all measures side by side."""
    some = points[0]["tests"][test]["damages"][kind]
    shares = [share for share in shares if share in some]
    head = ["method", *(f"{TITLES[what]}, {float(share):.0%}" for what in BETTER for share in shares)]
    lines = [
        [
            point["row"],
            *(_cell(point["tests"][test]["damages"][kind][share][what], what) for what in BETTER for share in shares),
        ]
        for point in points
    ]
    return f"**Networks: {test}**, {KINDS[kind]} missing\n\n" + markdown(head, lines)


def _tests_in_short(points: Sequence[Point], share: str) -> str:
    """Every row on all test sets at one share of scattered weights."""
    tests = list(dict.fromkeys(test for point in points for test in point["tests"]))
    head = ["method", "measure", *tests]

    def cell(point: Point, test: str, what: str) -> str:
        of = point["tests"][test]
        return _cell(of["damages"]["scattered"][share][what], what) if "damages" in of else "refused"

    lines = [
        [point["row"], TITLES[what], *(cell(point, test, what) for test in tests)]
        for point in points
        for what in ("r2", "accuracy")
    ]
    return f"**Networks: all test sets**, scattered {float(share):.0%}\n\n" + markdown(head, lines)


def test_table(name: str, points: Sequence[Point]) -> str:
    """Every row on one test set of networks, all measures side by side; below, why some rows could not repair them."""
    found = {point["row"]: point["tests"][name] for point in points}
    measured = {row: of for row, of in found.items() if "damages" in of}
    notes = [f"{row}: refused, {of['refused']}.\n" for row, of in found.items() if "refused" in of]
    if not measured:
        return f"**Networks: {name}**\n\n" + "\n".join(notes)
    some = next(iter(measured.values()))
    columns = [(kind, share) for kind, shares in some["damages"].items() for share in shares]
    head = ["method", "measure", *(f"{KINDS[kind]}, {float(share):.0%}" for kind, share in columns)]
    lines = [
        [row, TITLES[what], *(_cell(of["damages"][kind][share][what], what) for kind, share in columns)]
        for row, of in measured.items()
        for what in BETTER
    ]
    lines += [[row, "refused", *[""] * len(columns)] for row in found if row not in measured]
    title = (
        f"**Networks: {name}** ({some['intact']['count']} networks, intact {_cell(some['intact'], 'accuracy')} %; "
        f"learned from {points[0]['networks']:,})\n\n"
    )
    return "\n".join([title + markdown(head, lines), *notes])


def size_tables(points: Sequence[Point]) -> list[str]:
    """Accuracy and R2 on unseen seeds by the number of networks learned from, one table a share of scattered weights.

    The largest population is the whole; rows that take long to learn were measured at some of the others.
    """
    points = [point for point in points if point["learned_from"] != SHARED]
    curve = [point for point in points if point["learned_from"] != ALL]
    if not curve:
        return []
    rows = list(dict.fromkeys(point["row"] for point in curve))
    sizes = sorted({point["networks"] for point in points})
    (test,) = curve[0]["tests"]
    found = {(point["row"], point["networks"]): point["tests"][test] for point in points}
    shares = list(curve[0]["tests"][test]["damages"]["scattered"])

    def cells(row: str, share: str, what: str) -> Iterable[str]:
        for size in sizes:
            of = found.get((row, size), {}).get("damages")
            yield _cell(of["scattered"][share][what], what) if of and share in of["scattered"] else ""

    return [
        f"**Networks learned from**, {test}, scattered {float(share):.0%}\n\n"
        + markdown(
            ["method", "measure", *(f"{size:,}" for size in sizes)],
            [[row, TITLES[what], *cells(row, share, what)] for row in rows for what in ("accuracy", "r2")],
        )
        for share in shares
    ]


def remembered_table(points: Sequence[Point]) -> str:
    """Whether repairs are copies of networks that were learned from."""
    names = ("own_distance", "nearest_distance", "own_cosine", "nearest_cosine")
    lines = [
        [
            point["row"],
            *(_cell(point["remembered"][name], "r2") for name in names),
            f"{point['remembered']['nearer_to_another']:.1f} %",
        ]
        for point in points
    ]
    reference = points[0]["remembered"]
    intact = [_cell(reference[f"intact_{name}"], "r2") for name in ("nearest_distance", "nearest_cosine")]
    lines.append(["the intact network itself", "0", intact[0], "1", intact[1], ""])
    head = ["repair", "distance to its own", "to the nearest learned from", "cosine with its own"]
    head += ["with the nearest learned from", "nearer to another than to its own, by cosine"]
    return (
        "**Is a repair a copy?** Repairs of unseen seeds; neurons matched; distances in norms of the intact "
        "network\n\n" + markdown(head, lines)
    )


def sheet_tables(points: Sequence[Point]) -> str:
    """Every row on one group of first layers, and what each has more than kriging with the network's covariance."""
    first = points[0]
    rates = list(first["rates"])
    head = ["method", "bytes, %", "measure", *(f"{float(rate):.0%} missing" for rate in rates)]

    def lines(of: Mapping[str, Mapping[str, Any]], point: Point) -> list[list[str]]:
        return [
            [point["row"], _share(point), TITLES[what], *(_cell(of[rate][what], what) for rate in rates)]
            for what in BETTER
        ]

    parts = [
        f"**First layers: {first['group']}** ({first['networks']} networks, intact "
        f"{_cell(first['intact'], 'accuracy')} %)\n\n"
        + markdown(head, [line for point in points for line in lines(point["rates"], point)])
    ]
    if own := [point for point in points if point["row"] == OWN]:
        others = [point for point in points if point["row"] != OWN]
        compared = [line for point in others for line in lines(differences(point, own[0]), point)]
        parts.append(f"**First layers: {first['group']}**, minus {OWN}\n\n" + markdown(head, compared))
    return "\n".join(parts)


def made(points: Sequence[Point]) -> list[str]:
    """With what the points were measured."""
    told = [point["provenance"] for point in points]
    return list(
        dict.fromkeys(
            f"planaria {one['versions']['planaria']} ({str(one['commit'])[:7]}), torch {one['versions']['torch']}, "
            f"{one['machine']['processor']}, {one['machine']['threads']} threads, {one['time'][:10]}.\n"
            for one in told
        )
    )


def _share(point: Point) -> str:
    """Bytes of a layer's repair, in percent of the layer's."""
    return f"{100 * point['bytes'] / point['layer_bytes']:.2f}"


def _cell(of: Mapping[str, Any], measure: str) -> str:
    digits = 1 if measure in ("accuracy", "agreement") else 3
    interval = "" if of["interval"] is None else f" ± {of['interval']:.{digits}f}"
    return f"{of['mean']:.{digits}f}{interval} ({of['worst']:.{digits}f})"
