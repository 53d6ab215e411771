"""Writes the committed results into README.md and docs/. Run after a benchmark.

Whole tables live with the results, in `benchmarks/results/`. A page names the rows that it shows in a comment, as TOML
with the arguments of `table` or `line` below, and this writes them beneath it:

    <!-- table
    file = "survey/overview.md"
    rows = ["bit flip, rate 0.001", "erasure, fraction 0.9"]
    -->
    <!-- /table -->

planaria-lab bench tinymlp -o benchmarks/results/tinymlp
planaria-lab bench variations -o benchmarks/results/variations
planaria-lab bench engine -o benchmarks/results/engine
planaria-lab bench guard -o benchmarks/results/guard
planaria-lab bench frontier -o benchmarks/results/frontier
planaria-lab bench memory -o benchmarks/results/memory
planaria-lab bench population -o benchmarks/results/population
planaria-lab campaign benchmarks/campaigns/NAME.toml -o benchmarks/results/NAME
python benchmarks/kernel_rule.py > benchmarks/results/kernel_rule/kernel_rule.md
python benchmarks/update_documents.py
"""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from planaria.tables import markdown
from planaria_lab.bench import engine, guard_tables, memory, tables, variations
from planaria_lab.bench.frontier import tables as frontier
from planaria_lab.bench.population import tables as population
from planaria_lab.campaigns import tables as campaigns

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.is_file()]
MARKED = re.compile(r"(<!-- (table|line)\n(.*?)-->\n).*?(<!-- /\2 -->)", re.DOTALL)
WHOLE = {
    "tinymlp": tables.repair_tables,
    "variations": variations.tables,
    "engine": engine.table,
    "guard": guard_tables.tables,
    "frontier": frontier.tables,
    "memory": memory.tables,
    "population": population.tables,
}
SHORT = {"guard": guard_tables.overview, "frontier": frontier.overview, "population": population.overview}
PICTURES = {
    "tinymlp": ("regrown.png", "gallery.png", "loss.png", "rollout.gif", "recovery_a.png", "recovery_b.png"),
    "frontier": (
        "gain_tinymlp_a.png",
        "gain_tinymlp_b.png",
        "gain_convnet.png",
        "gain_all-minilm-l6-v2.png",
        "pareto_tinymlp_a.png",
        "precision_tinymlp_a.png",
    ),
    "residual": ("roc_tinymlp_a_bit_flip_rate_0.000125_bits_exponent_on_fc1.weight.png",),
}


def result(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def whole_tables() -> dict[Path, str]:
    """Every committed table, as its result gives it; of long ones the short form too, `overview.md`."""
    made = {}
    for file, makers in (("{}.md", WHOLE), ("overview.md", SHORT)):
        for name, maker in makers.items():
            made[RESULTS / name / file.format(name)] = maker(result(RESULTS / name / f"{name}.json"))
    for path in sorted(RESULTS.glob("*/campaign-results.json")):
        campaign = result(path)
        scored = path.parent.name == "residual"  # a campaign of detectors that score weights
        made[path.with_suffix(".md")] = campaigns.tables(campaign)
        made[path.with_name("overview.md")] = (
            campaigns.roc_table(campaign) if scored else intact_first(campaigns.overview(campaign))
        )
    return made


def intact_first(overview: str) -> str:
    """A campaign's short form with what the intact models reach on a line of its own."""
    how = re.compile(r"Accuracy in % \(intact: (.*?)\): (.*) of (.*? runs)\. ")
    return how.sub(r"Intact: \1. \3.\n\nAccuracy in %: \2 of the runs. ", overview)


def table(
    text: str,
    *,
    below: str = "",
    table: int = 0,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    called: Mapping[str, str] | None = None,
    note: str = "",
) -> str:
    """Rows of a table of Markdown.

    Args:
        below: how the line begins that stands above the table; it is kept.
        table: which table below that line, from 0.
        rows: first cells of the rows, separated by " | ", in order; all by default.
        columns: heads, in order, without what is in brackets at their end; all by default.
        called: other words for cells.
        note: how the line begins that is to stand under the table.
    """
    lines = text.splitlines()
    first = _place(below, lines)
    start = [place for place in range(first, len(lines) - 1) if lines[place + 1].startswith("| ---")][table]
    stop = next(place for place in range(start, len(lines) + 1) if place == len(lines) or not lines[place])
    head, _, *body = [one.removeprefix("| ").removesuffix(" |").split(" | ") for one in lines[start:stop]]
    shown = [place for name in columns for place in _named(name, " (", head)] or range(len(head))
    starts = [" | ".join(row) for row in body]
    kept = [body[place] for name in rows for place in _named(name, " | ", starts)] or body
    say = called or {}
    cells = [[say.get(row[place], row[place]) for place in shown] for row in [head, *kept]]
    over, under = f"{lines[first]}\n\n" if below else "", "\n" + line(text, starts=note) if note else ""
    return over + markdown(cells[0], cells[1:]) + under


def line(text: str, *, starts: str) -> str:
    """The line of `text` that begins so."""
    lines = text.splitlines()
    return lines[_place(starts, lines)] + "\n"


def _place(start: str, lines: Sequence[str]) -> int:
    for place, one in enumerate(lines):
        if one.startswith(start):
            return place
    raise SystemExit(f"No line begins with {start!r}.")


def _named(name: str, end: str, among: Sequence[str]) -> list[int]:
    places = [place for place, one in enumerate(among) if one == name or one.startswith(name + end)]
    if not places:
        raise SystemExit(f"{name!r} is none of: {'; '.join(among)}.")
    return places


def filled(page: str) -> str:
    """A page with the rows that its comments ask for."""

    def block(found: re.Match[str]) -> str:
        wanted = tomllib.loads(found[3])
        text = (RESULTS / wanted.pop("file")).read_text(encoding="utf-8")
        return f"{found[1]}\n{(table if found[2] == 'table' else line)(text, **wanted)}\n{found[4]}"

    return MARKED.sub(block, page)


def main() -> None:
    for path, text in whole_tables().items():
        path.write_text(text, encoding="utf-8")
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    for folder, pictures in PICTURES.items():
        for picture in pictures:
            if (RESULTS / folder / picture).is_file():  # those of results that were made elsewhere stay as they are
                shutil.copyfile(RESULTS / folder / picture, ROOT / "docs" / "images" / picture)


if __name__ == "__main__":
    main()
