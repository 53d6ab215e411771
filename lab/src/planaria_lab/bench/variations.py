"""One thing changed at a time: readings of the talk's automaton, and ablations of ours.

The talk reports 88.77 % at 90 % damage for a network whose sizes and weights are not public. Each reading changes one
thing against the reference recipe on its flat grid; none of them moves the reference row of the main table. Each
ablation takes one thing away from the default recipe.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from planaria.automaton import DEFAULT, Recipe
from planaria.fit import fit_rule, second_moments
from planaria.repairers import Regrow
from planaria.tables import markdown
from planaria_lab import datasets
from planaria_lab.bench import tinymlp
from planaria_lab.bench.provenance import provenance
from planaria_lab.bench.repair_table import LAYOUTS, SHEETS, missing_r2, stored_faults
from planaria_lab.bench.statistics import summary
from planaria_lab.reference import REFERENCE, schedule_of

RATES = (0.5, 0.7, 0.9)
MASKS = 10


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What differs from a recipe and its schedule; empty for the recipe itself."""

    name: str
    of: Recipe
    network: str = "A"
    recipe: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    transposed: bool = False
    sheets: bool = False


VARIATIONS = (
    Variation(name="the reference recipe", of=REFERENCE),
    Variation(name="three times the iterations", of=REFERENCE, schedule={"iterations": 1800}),
    Variation(
        name="32 steps, so that news of the pixel below, 28 columns away, can arrive",
        of=REFERENCE,
        recipe={"steps": 32},
        schedule={"lengths": (32, 32)},
    ),
    Variation(name="a quarter of the learning rate", of=REFERENCE, schedule={"learning_rate": 2e-3}),
    Variation(name="known cells rest: their hidden channels stay 0", of=REFERENCE, recipe={"known_cells_rest": True}),
    Variation(name="every cell fires", of=REFERENCE, recipe={"fire_rate": 1.0}),
    Variation(name="masks of 90 % only", of=REFERENCE, schedule={"rates": (0.9, 0.9)}),
    Variation(name="transposed grid", of=REFERENCE, transposed=True),
    Variation(name="with the Laplacian", of=REFERENCE, recipe={"laplacian": True}),
    Variation(name="one sheet a neuron instead of the flat grid", of=REFERENCE, sheets=True, schedule={"batch": 16}),
    Variation(name="the default recipe", of=DEFAULT),
    Variation(name="no survey; 26 hidden units, 1,047 parameters", of=DEFAULT, recipe={"modes": 0, "hidden": 26}),
    Variation(name="no warm start", of=DEFAULT, schedule={"warm_start": False}),
    Variation(name="no Laplacian (and so no warm start)", of=DEFAULT, recipe={"laplacian": False}),
    Variation(name="missing-cell error alone", of=DEFAULT, schedule={"output_share": 0.0}),
    Variation(name="half of the cells fire", of=DEFAULT, recipe={"fire_rate": 0.5}),
)


def run(
    *, progress: Callable[[int, int, str], None], variations: tuple[Variation, ...] = VARIATIONS, masks: int = MASKS
) -> dict[str, Any]:
    """Fits and measures every variation once; the answer is ready for JSON."""
    rows = []
    for number, variation in enumerate(variations):
        progress(number, len(variations), f"{variation.of.name} recipe: {variation.name}")
        described = asdict(variation) | {"of": variation.of.name}
        rows.append(described | _measure(variation, masks))
    progress(len(variations), len(variations), "done")
    return {
        "rates": RATES,
        "masks": masks,
        "better": {"accuracy": "higher", "r2": "higher"},
        "variations": rows,
        "provenance": provenance(),
    }


def _measure(variation: Variation, masks: int) -> dict[str, Any]:
    network = tinymlp.shipped(variation.network)
    images, labels = datasets.mnist_test()
    inputs = tinymlp.standardised(images)

    def turned(matrix: Any) -> Any:
        return matrix.T.contiguous() if variation.transposed else matrix

    weight = turned(network.fc1.weight.detach())
    layout = SHEETS if variation.sheets else LAYOUTS[variation.of.name]
    fit = fit_rule(
        weight,
        layout=layout,
        recipe=replace(variation.of, **variation.recipe),
        schedule=replace(schedule_of(variation.of), **variation.schedule),
        moments=None if variation.transposed else second_moments(tinymlp.standardised(datasets.mnist_calibration())),
    )
    regrow = Regrow(fit.automaton, layout)
    record = regrow.prepare(weight)
    rates: dict[str, Any] = {}
    for rate in RATES:
        accuracies, explained = [], []
        for mask in range(masks):
            known = turned(stored_faults(network.fc1.weight.detach(), rate=rate, mask=mask, seed=0).known)
            repaired = regrow.restore(weight, known, record)
            accuracies.append(network.with_first_layer(turned(repaired)).accuracy(inputs, labels))
            explained.append(missing_r2(weight, repaired, known))
        rates[str(rate)] = {"accuracy": asdict(summary([accuracies])), "r2": asdict(summary([explained]))}
    return {"parameters": fit.automaton.parameter_count, "fit_seconds": round(fit.seconds), "measured": rates}


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown: a table a recipe."""
    head = ["variation", "parameters", "fit, s", *(f"R2 at {rate:.0%}" for rate in result["rates"])]
    head += [f"accuracy at {rate:.0%}" for rate in result["rates"]]
    parts = []
    for recipe in (REFERENCE.name, DEFAULT.name):
        lines = []
        for row in result["variations"]:
            if row["of"] != recipe:
                continue
            cells = row["measured"].values()
            accuracies = [cell["accuracy"] for cell in cells]
            lines.append(
                [row["name"], str(row["parameters"]), str(row["fit_seconds"])]
                + [f"{cell['r2']['mean']:.3f}" for cell in cells]
                + [f"{one['mean']:.2f} ± {one['interval']:.2f} ({one['minimum']:.2f})" for one in accuracies]
            )
        if lines:
            parts.append(f"**Variations of the {recipe} recipe**\n\n" + markdown(head, lines))
    return "\n".join(parts) + (
        f"\nOne fit each, {result['masks']} masks a rate; mean ± half the 95 % interval over masks (minimum).\n"
    )
