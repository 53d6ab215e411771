"""A campaign's result as pictures."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planaria_lab.bench.figures import roc_curves, save_figure
from planaria_lab.campaigns.measures import FALSE_ALARMS, found_at


def draw_roc(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes `roc_<model>_<damage>.png` wherever a defence has scores, a line for each that has.

    The curve is the mean of the runs' at each rate of false alarms. Raises `OutputFailed`.
    """
    paths = []
    for name, point in result["points"].items():
        curves = {
            f"{defence} (area {of['roc_area']['mean']:.4f})": {
                rate: of[found_at(rate)]["mean"] for rate in FALSE_ALARMS
            }
            for defence, of in point["defences"].items()
            if "roc_area" in of
        }
        if curves:
            paths.append(folder / f"roc_{re.sub('[^a-z0-9.]+', '_', name.lower()).strip('_.')[:120]}.png")
            save_figure(roc_curves(name, curves), paths[-1])
    return paths
