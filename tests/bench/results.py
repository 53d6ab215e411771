"""A repair result, as the bench makes it, with numbers that are easy to recognise."""

from typing import Any

RATES = ("0.5", "0.9")
METHODS = ("zero", "neighbour, flat", "kriging", "reference recipe", "default recipe", "default recipe, 8-bit rule")


def cell(mean: float, *, interval: float | None = 0.25) -> dict[str, Any]:
    return {"mean": mean, "interval": interval, "minimum": mean - 1, "count": 2, "runs": [[mean - 1, mean + 1]]}


def made_result(*, interval: float | None = 0.25) -> dict[str, Any]:
    def row(number: int, method: str) -> dict[str, Any]:
        rates = {
            rate: {
                "accuracy": cell(90.0 - number - 10 * place, interval=interval),
                "r2": cell(0.5 - 0.1 * number - 0.05 * place, interval=interval),
                "seconds": cell(2.0 + place, interval=interval),
            }
            for place, rate in enumerate(RATES)
        }
        return {"method": method, "bytes": 100 * number, "rates": rates}

    def network() -> dict[str, Any]:
        fits = [
            {"parameters": 1064, "seconds": 12.4, "iterations": 300, "losses": [1.0], "held_out": [[0, 1.0]]},
            {"parameters": 1064, "seconds": 14.6, "iterations": 200, "losses": [1.0], "held_out": [[0, None]]},
        ]
        return {
            "clean_accuracy": 97.125,
            "fc1_bytes": 10_000,
            "rows": [row(number, method) for number, method in enumerate(METHODS)],
            "fits": {"reference": fits, "default": fits},
        }

    return {
        "experiment": {"networks": ["A", "B"], "rates": [0.5, 0.9], "masks": 2, "fits": 1, "seed": 0},
        "the_talk": {"zero": {"0.5": 94.9}, "reference recipe": {"0.5": 96.25, "0.9": 88.77}},
        "networks": {"A": network(), "B": network()},
        "provenance": {
            "commit": None,
            "time": "2026-01-02T03:04:05+00:00",
            "versions": {"planaria": "0.1.0", "torch": "2.13.0"},
            "machine": {"processor": "some processor", "threads": 2},
        },
    }
