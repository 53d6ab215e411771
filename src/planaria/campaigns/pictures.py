"""A campaign's result as pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planaria.bench.figures import roc_curves, save_figure
from planaria.campaigns.measures import FALSE_ALARMS, found_at


def draw_roc(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes `roc_<model>.png` for each model that a defence has scores of; a line is one damage and one defence.

    The curve is the mean of the runs' at each rate of false alarms. Raises `OutputFailed`.
    """
    by_model: dict[str, dict[str, dict[float, float]]] = {}
    for point in result["points"].values():
        for name, of in point["defences"].items():
            if "roc_area" in of:
                label = f"{point['damage']}: {name} ({of['roc_area']['mean']:.4f})"
                curve = {rate: of[found_at(rate)]["mean"] for rate in FALSE_ALARMS}
                by_model.setdefault(point["model"], {})[label] = curve
    paths = []
    for model, curves in by_model.items():
        paths.append(folder / f"roc_{model.lower().replace(' ', '_')}.png")
        save_figure(roc_curves(f"{model}: damage found, and the area under the curve", curves), paths[-1])
    return paths
