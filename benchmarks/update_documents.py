"""Writes the committed results into README.md and docs/, between their markers. Run after a benchmark.

planaria-lab bench tinymlp -o benchmarks/results/tinymlp
planaria-lab bench variations -o benchmarks/results/variations
planaria-lab bench engine -o benchmarks/results/engine
planaria-lab bench guard -o benchmarks/results/guard
planaria-lab bench frontier -o benchmarks/results/frontier
planaria-lab bench memory -o benchmarks/results/memory
planaria-lab bench population -o benchmarks/results/population
planaria-lab campaign benchmarks/campaigns/NAME.toml -o benchmarks/results/NAME
python benchmarks/update_documents.py
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from planaria_lab.bench import engine, guard_tables, memory, tables, variations
from planaria_lab.bench.frontier import tables as frontier
from planaria_lab.bench.population import tables as population
from planaria_lab.campaigns import tables as campaigns

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CAMPAIGNS = (
    "survey",
    "scales",
    "random_damage",
    "minilm",
    "bit_search",
    "exponent_bit",
    "gradient",
    "adaptive",
    "tampering",
    "stale_guard",
)
CONTRAST = ("zero", "kriging", "reference recipe", "pretrained sheet-1")  # the methods that the README shows
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


def result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name / f"{name}.json").read_text(encoding="utf-8"))
    return content


def campaign(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name / "campaign-results.json").read_text(encoding="utf-8"))
    return content


def blocks() -> dict[Path, dict[str, str]]:
    """What belongs between `<!-- name -->` and `<!-- /name -->`, by file and name."""
    tinymlp = result("tinymlp")
    speed = engine.table(result("engine"))
    return {
        ROOT / "README.md": {
            "guard-table": guard_tables.overview(result("guard")),
            "tinymlp-table": tables.accuracy_table(tinymlp, "A", rates=["0.5", "0.7", "0.9"], methods=CONTRAST),
            "engine-table": speed,
        },
        ROOT / "docs" / "results.md": {
            "tinymlp": tables.repair_tables(tinymlp),
            "variations": variations.tables(result("variations")),
            "engine": speed,
            "guard": guard_tables.tables(result("guard")),
            "frontier": frontier.overview(result("frontier")),
            "memory": memory.tables(result("memory")),
        },
        ROOT / "docs" / "populations.md": {"population": population.overview(result("population"))},
        ROOT / "docs" / "limits.md": {name.replace("_", "-"): campaigns.overview(campaign(name)) for name in CAMPAIGNS}
        | {"residual": campaigns.roc_table(campaign("residual"))},
    }


def inserted(text: str, name: str, block: str) -> str:
    """`text` with `block` between the markers called `name`."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    changed, count = pattern.subn(lambda found: f"{found[1]}\n{block}\n{found[2]}", text)
    if count != 1:
        raise SystemExit(f"There must be one pair of markers called {name}, not {count}.")
    return changed


def main() -> None:
    for path, by_name in blocks().items():
        text = path.read_text(encoding="utf-8")
        for name, block in by_name.items():
            text = inserted(text, name, block)
        path.write_text(text, encoding="utf-8")
    for folder, pictures in PICTURES.items():
        for picture in pictures:
            if (RESULTS / folder / picture).is_file():  # those of results that were made elsewhere stay as they are
                shutil.copyfile(RESULTS / folder / picture, ROOT / "docs" / "images" / picture)


if __name__ == "__main__":
    main()
