"""Every repairer on the same damaged layer, under the same stored faults."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from planaria import streams
from planaria.automaton import DEFAULT, Recipe
from planaria.damages import Erasure, Faults
from planaria.errors import InvalidInput
from planaria.fit import Fit, fit_rule, second_moments
from planaria.layouts import Flat, Sheet
from planaria.pretrained import shipped
from planaria.repairers import Regrow, RegrowPretrained, Repairer
from planaria_lab import datasets
from planaria_lab.bench import tinymlp
from planaria_lab.bench.experiment import Experiment
from planaria_lab.bench.provenance import provenance
from planaria_lab.bench.statistics import summary
from planaria_lab.reference import REFERENCE, schedule_of
from planaria_lab.repairers import Kriging, LowRank, MeanFill, NeighbourFill, RescaledZero, ZeroFill

SHEETS = Sheet((28, 28))
LAYOUTS = {REFERENCE.name: Flat(), DEFAULT.name: SHEETS}

THE_TALK = {
    "zero": {0.05: 96.83, 0.1: 96.68, 0.2: 96.49, 0.3: 96.01, 0.5: 94.90, 0.7: 89.54, 0.9: 65.86},
    "mean": {0.05: 96.86, 0.1: 96.66, 0.2: 96.44, 0.3: 95.91, 0.5: 94.56, 0.7: 87.18, 0.9: 50.68},
    "neighbour, flat": {0.05: 96.82, 0.1: 96.62, 0.2: 96.05, 0.3: 95.27, 0.5: 89.34, 0.7: 58.11, 0.9: 34.16},
    "reference recipe": {0.05: 96.96, 0.1: 96.84, 0.2: 96.76, 0.3: 96.57, 0.5: 96.25, 0.7: 94.45, 0.9: 88.77},
}
"""Accuracies that Paladini, Tuba and Mariot (ACANCOS 2026) report for a TinyMLP of unpublished size."""

Progress = Callable[[int, int, str], None]


def fit_recipe(
    network: tinymlp.TinyMLP,
    recipe: Recipe,
    *,
    seed: int,
    on_iteration: Callable[[int, int, float], None] | None = None,
) -> Fit:
    """Fits a recipe to a network's FC1, with the second moments of the shipped calibration images (training images)."""
    return fit_rule(
        network.fc1.weight.detach(),
        layout=LAYOUTS[recipe.name],
        recipe=recipe,
        schedule=schedule_of(recipe),
        moments=second_moments(tinymlp.standardised(datasets.mnist_calibration())),
        seed=seed,
        on_iteration=on_iteration,
    )


def stored_faults(weight: Float[Tensor, "out in"], *, rate: float, mask: int, seed: int) -> Faults:
    """The faults that every method faces: mask number `mask` at `rate`. They depend on nothing else."""
    return Erasure(rate).apply(weight, streams.generator(seed, f"damage rate {rate} mask {mask}"))[1]


def closed_form_repairers() -> dict[str, Repairer]:
    """The rows that need no fit."""
    return {
        "zero": ZeroFill(),
        "mean": MeanFill(),
        "neighbour, flat": NeighbourFill(Flat()),
        "neighbour, sheets": NeighbourFill(SHEETS),
        "rescaled zero": RescaledZero(),
        "low rank": LowRank(),
        "kriging": Kriging(SHEETS),
        "pretrained sheet-1": RegrowPretrained(shipped("sheet-1"), SHEETS),
    }


def fitted_repairers(recipe: Recipe, fits: list[Fit]) -> dict[str, list[Repairer]]:
    """The rows of a recipe, a repairer a fit: as shipped (half precision) and, for the default, its variations."""

    def rows(of: list[Fit] = fits, **settings: Any) -> list[Repairer]:
        return [Regrow(fit.automaton, LAYOUTS[recipe.name], **settings) for fit in of]

    named: dict[str, list[Repairer]] = {f"{recipe.name} recipe": rows()}
    if recipe == DEFAULT:
        named["default recipe, single precision"] = rows(precision="single")
        named["default recipe, 8-bit rule"] = rows(precision="byte")
        named["default recipe, 10 x steps"] = rows(fits[:1], steps=10 * recipe.steps)  # slow: one fit
    return named


def run(
    experiment: Experiment, *, progress: Progress, recipes: tuple[Recipe, ...] = (REFERENCE, DEFAULT)
) -> tuple[dict[str, Any], dict[str, dict[str, list[Fit]]]]:
    """Runs the experiment. Answers with the result, ready for JSON, and the fits by network and recipe.

    Every run of every method is kept beside the summaries. Accuracies are percent of the 10,000 MNIST test images.
    """
    images, labels = datasets.mnist_test()
    inputs = tinymlp.standardised(images)
    networks: dict[str, Any] = {}
    all_fits: dict[str, dict[str, list[Fit]]] = {}
    for name in experiment.networks:
        network = tinymlp.shipped(name)
        if round(min(experiment.rates) * network.fc1.weight.numel()) < 1:
            raise InvalidInput(f"A rate of {min(experiment.rates)} erases none of network {name}'s FC1. Raise it.")
        repairers: dict[str, list[Repairer]] = {row: [one] for row, one in closed_form_repairers().items()}
        fits: dict[str, list[Fit]] = {}
        for recipe in recipes:
            fits[recipe.name] = _fits(network, name, recipe, experiment, progress)
            repairers |= fitted_repairers(recipe, fits[recipe.name])
        all_fits[name] = fits
        networks[name] = {
            "clean_accuracy": network.accuracy(inputs, labels),
            "fc1_bytes": network.fc1.weight.nbytes,
            "rows": _measure(network, repairers, experiment, inputs, labels, progress),
            "fits": {recipe: [_fit_summary(fit) for fit in recipe_fits] for recipe, recipe_fits in fits.items()},
        }
    result = {
        "experiment": experiment.to_dict(),
        "recipes": {recipe.name: asdict(recipe) | {"schedule": asdict(schedule_of(recipe))} for recipe in recipes},
        "better": {"accuracy": "higher", "r2": "higher", "bytes": "lower", "seconds": "lower"},
        "the_talk": {method: _by_rate(accuracies) for method, accuracies in THE_TALK.items()},
        "networks": networks,
        "provenance": provenance(),
    }
    return result, all_fits


def _fits(network: tinymlp.TinyMLP, name: str, recipe: Recipe, experiment: Experiment, progress: Progress) -> list[Fit]:
    fits = []
    for number in range(experiment.fits):

        def on_iteration(done: int, total: int, loss: float, number: int = number) -> None:
            progress(done, total, f"network {name}, {recipe.name} recipe, fit {number}: loss {loss:.3f}")

        fits.append(fit_recipe(network, recipe, seed=experiment.seed + number, on_iteration=on_iteration))
    return fits


def _fit_summary(fit: Fit) -> dict[str, Any]:
    return {
        "parameters": fit.automaton.parameter_count,
        "seconds": round(fit.seconds, 2),
        "iterations": len(fit.losses),
        "losses": [_rounded(loss) for loss in fit.losses],
        "held_out": [(iteration, _rounded(loss)) for iteration, loss in fit.held_out],
    }


def _measure(
    network: tinymlp.TinyMLP,
    repairers: dict[str, list[Repairer]],
    experiment: Experiment,
    inputs: Tensor,
    labels: Tensor,
    progress: Progress,
) -> list[dict[str, Any]]:
    weight = network.fc1.weight.detach()
    records = {row: [repairer.prepare(weight) for repairer in fitted] for row, fitted in repairers.items()}
    runs: dict[str, dict[str, dict[str, list[list[float]]]]] = {
        row: {
            str(rate): {what: [[] for _ in fitted] for what in ("accuracy", "r2", "seconds")}
            for rate in experiment.rates
        }
        for row, fitted in repairers.items()
    }
    total = len(experiment.rates) * experiment.masks
    for number, rate in enumerate(experiment.rates):
        for mask in range(experiment.masks):
            progress(number * experiment.masks + mask, total, f"repairs at {rate:.0%}")
            faults = stored_faults(weight, rate=rate, mask=mask, seed=experiment.seed)
            damaged, known = faults.replay(weight), faults.known
            for row, fitted in repairers.items():
                for fit, repairer in enumerate(fitted):
                    began = time.perf_counter()
                    repaired = repairer.restore(damaged, known, records[row][fit])
                    seconds = time.perf_counter() - began
                    accuracy = network.with_first_layer(repaired).accuracy(inputs, labels)
                    kept = runs[row][str(rate)]
                    kept["seconds"][fit].append(round(seconds, 4))
                    kept["accuracy"][fit].append(round(accuracy, 2))
                    kept["r2"][fit].append(round(missing_r2(weight, repaired, known), 4))
    progress(total, total, "repairs")
    return [
        {
            "method": row,
            "bytes": records[row][0].nbytes,
            "rates": {
                rate: {what: asdict(summary(values)) | {"runs": values} for what, values in measured.items()}
                for rate, measured in runs[row].items()
            },
        }
        for row in repairers
    ]


def missing_r2(
    intact: Float[Tensor, "*weight"], repaired: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"]
) -> float:
    """Share of the missing weights' variance that the repair explains: 1 is exact, 0 what their mean would do.

    Not a number if nothing is missing.
    """
    truth, guess = intact[~known].double(), repaired[~known].double()
    return float(1 - (truth - guess).square().sum() / (truth - truth.mean()).square().sum())


def _rounded(loss: float) -> float | None:
    """For JSON, which has no infinity: the loss of a diverged rollout is missing."""
    return round(loss, 5) if math.isfinite(loss) else None


def _by_rate(values: dict[float, float]) -> dict[str, float]:
    return {str(rate): value for rate, value in values.items()}
