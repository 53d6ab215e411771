"""First layers over images: one matrix loses weights, and each neuron's are an image."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from planaria import streams
from planaria.damages import Erasure
from planaria.layouts import Sheet
from planaria.pretrained import shipped
from planaria.repairers import RegrowPretrained, Repairer
from planaria_lab import datasets
from planaria_lab.bench import tinymlp
from planaria_lab.bench.population.judge import BETTER, Judge, cell
from planaria_lab.bench.population.settings import PopulationSettings
from planaria_lab.bench.population.zoos import Tell, loaded, zoo
from planaria_lab.pretrained import without_kind
from planaria_lab.repairers import Kriging, MeanFill, SurvivorKriging, ZeroFill
from planaria_lab.zoo import MLP, Variety
from planaria_lab.zoo.building import standardised

SPACE = (28, 28)
SHEETS = Sheet(SPACE)
LAYER = "fc1.weight"
OWN = "kriging, own covariance"

ROWS: dict[str, Repairer] = {
    "zero": ZeroFill(),
    "mean": MeanFill(),
    "kriging from survivors": SurvivorKriging(SHEETS),
    OWN: Kriging(SHEETS),
    "pretrained sheet-1": RegrowPretrained(shipped("sheet-1"), SHEETS),
    "pretrained sheet-1, MNIST unknown": RegrowPretrained(without_kind(shipped("sheet-1"), 0), SHEETS),
    "pretrained sheet-1, Fashion-MNIST unknown": RegrowPretrained(without_kind(shipped("sheet-1"), 1), SHEETS),
}
"""By name. Repairers keep nothing but their settings: what they note of a network is in the record."""


@dataclass(frozen=True, eq=False)
class SheetSubject:
    """One network, as a stack of one, and the images that it is tested on."""

    name: str
    architecture: MLP
    stack: dict[str, Tensor]
    inputs: Float[Tensor, "images pixels"]
    labels: Int64[Tensor, " images"]


def groups(settings: PopulationSettings) -> Iterator[str]:
    """Names of the groups of networks: data sets and initialisations, and each network that comes along."""
    told = settings.sheets
    yield from (f"{data}, {scale}" for data in told.data for scale in told.scales)
    yield from (f"TinyMLP {name}" for name in told.shipped)


def subjects(settings: PopulationSettings, group: str, folder: Path, tell: Tell) -> list[SheetSubject]:
    """The networks of a group, trained first if the folder lacks them."""
    told = settings.sheets
    if group.startswith("TinyMLP "):
        network = tinymlp.shipped(group.removeprefix("TinyMLP "))
        images, labels = datasets.mnist_test()
        stack = {name: tensor.detach()[None] for name, tensor in network.state_dict().items()}
        architecture = MLP(SPACE[0], "relu", (network.fc1.out_features,))
        return [SheetSubject(group, architecture, stack, tinymlp.standardised(images), labels)]
    name, scale = group.split(", ")
    data = loaded(name)
    inputs = standardised(data.test_images, data)
    variety = Variety(initial_scales=(told.scales[scale],), epochs=(told.epochs,))
    found = []
    for width in told.widths:
        architecture = MLP(SPACE[0], "relu", (width,))
        population = zoo(
            folder / f"sheets-{name}-{scale}-{width}",
            architecture,
            data,
            count=told.networks,
            variety=variety,
            seed=told.seed,
            tell=tell,
        )
        for at, number in enumerate(population.names):
            stack = {key: tensor[at : at + 1] for key, tensor in population.stack.items()}
            label = f"{group}, width {width}, network {number}"
            found.append(SheetSubject(label, architecture, stack, inputs, data.test_labels))
    return found


def measure(some: list[SheetSubject], settings: PopulationSettings, row: str, group: str, tell: Tell) -> dict[str, Any]:
    """One row on one group, ready for JSON; all runs are kept, by measure and rate, then mask, then network."""
    told, repairer = settings.sheets, ROWS[row]
    runs: dict[str, dict[str, list[list[float]]]] = {
        name: {str(rate): [[] for _ in range(told.masks)] for rate in told.rates} for name in BETTER
    }
    nbytes, intact, prepared, restored = [], [], [], []
    for subject in some:
        weight = subject.stack[LAYER][0]
        judge = Judge(subject.architecture, subject.stack, subject.inputs, subject.labels)
        intact.append(float(judge.accuracy))
        began = time.perf_counter()
        record = repairer.prepare(weight)
        prepared.append(time.perf_counter() - began)
        nbytes.append(record.nbytes)
        for rate in told.rates:
            for mask in range(told.masks):
                tell(f"{subject.name}: {rate:.0%}, mask {mask}")
                draws = streams.generator(settings.seed, f"{subject.name}, rate {rate}, mask {mask}")
                known = Erasure(rate).apply(weight, draws)[1].known
                began = time.perf_counter()
                repaired = repairer.restore(torch.where(known, weight, torch.nan), known, record)
                restored.append(time.perf_counter() - began)
                whole = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in subject.stack.items()}
                measured = judge.measures(subject.stack | {LAYER: repaired[None]}, whole | {LAYER: known[None]})
                for name, values in measured.items():
                    runs[name][str(rate)][mask].append(round(float(values), 6))
    return {
        "part": "sheets",
        "row": row,
        "group": group,
        "networks": len(some),
        "bytes": round(fmean(nbytes)),
        "layer_bytes": round(fmean(subject.stack[LAYER].nbytes for subject in some)),
        "seconds_to_prepare": round(fmean(prepared), 4),
        "seconds_a_repair": round(fmean(restored), 4),
        "intact": cell("accuracy", [intact]),
        "rates": {str(rate): {name: summarised(name, runs[name][str(rate)]) for name in runs} for rate in told.rates},
        "runs": runs,
    }


def summarised(measure: str, runs: list[list[float]]) -> dict[str, Any]:
    """Of runs by mask and network: the interval is over networks, of means over masks; over masks of one network."""
    return cell(measure, runs if len(runs[0]) > 1 else [[run[0] for run in runs]])


def differences(point: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """By rate and measure, how much more a point has than another, run by run; "worst" as of the measure itself."""
    return {
        rate: {
            name: summarised(
                name,
                [
                    [one - two for one, two in zip(mine, theirs, strict=True)]
                    for mine, theirs in zip(by_rate[rate], other["runs"][name][rate], strict=True)
                ],
            )
            for name, by_rate in point["runs"].items()
        }
        for rate in point["rates"]
    }
