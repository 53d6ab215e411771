"""Trains a pretrained rule: `python benchmarks/train_pretrained_rule.py ZOO... -o sheet-1.safetensors`.

Zoos are folders of `planaria-lab zoo` of MNIST or Fashion-MNIST networks; what a tensor of one zoo's networks looks
like is a kind. `sheet-1` was trained on

    planaria-lab zoo -o mnist --data mnist --count 64 --mlp 64 --mlp 32 --varied --epochs 2 --seed 11
    planaria-lab zoo -o fashion --data fashion-mnist --count 64 --mlp 64 --mlp 32 --varied --epochs 2 --seed 12

and `kernel-1`, with `--tensor conv1.weight --tensor conv2.weight --name kernel-1`, on

    planaria-lab zoo -o mnist --data mnist --count 48 --cnn --epochs 1 --seed 21
    planaria-lab zoo -o fashion --data fashion-mnist --count 48 --cnn --epochs 1 --seed 21

A rule that never saw Fashion-MNIST is one trained on the first folder alone.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from planaria import streams
from planaria.fit import second_moments
from planaria.progress import progress_bar
from planaria_lab import datasets
from planaria_lab.pretrained import PopulationSchedule, fit_population, save_rule
from planaria_lab.zoo import Population, open_zoo
from planaria_lab.zoo.building import standardised
from planaria_lab.zoo.population import SETTINGS, read_json

SHEETS = "fc1.weight"
SIDE = 28  # of its sheets
LEAST_ACCURACY = {"mnist": 0.85, "fashion-mnist": 0.75}  # of a network of sheets that is trained on
IMAGES = 5000  # that second moments are measured on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--name", default="sheet-1")
    parser.add_argument("--tensor", action="append", help="tensors of the networks, each a kind; fc1.weight if none")
    arguments = parser.parse_args()
    kinds, moments = {}, {}
    schedule = PopulationSchedule() if not arguments.tensor else PopulationSchedule(grids=512)  # kernels are small
    for folder in arguments.zoos:
        data = read_json(folder / SETTINGS)["data"]
        populations, _ = open_zoo(folder)
        for tensor in arguments.tensor or [SHEETS]:
            kind = data if tensor == SHEETS else f"{data} {tensor}"
            networks = grids(populations, tensor, least=LEAST_ACCURACY[data] if tensor == SHEETS else 0.0)
            order = torch.randperm(len(networks), generator=streams.generator(0, f"mix {folder.name}"))
            kinds[kind] = [networks[at] for at in order.tolist()]
            if tensor == SHEETS:
                images = getattr(datasets, data.replace("-", "_"))()
                moments[kind] = second_moments(standardised(images.train_images[:IMAGES], images))
    with progress_bar("rule") as progress:
        rule = fit_population(kinds, name=arguments.name, moments=moments, schedule=schedule, progress=progress)
    save_rule(rule, arguments.output)
    print(rule.card)


def grids(populations: list[Population], tensor: str, *, least: float) -> list[Tensor]:
    """Of each network to learn from, the tensor as grids: kernels, or the sheets of neurons."""
    found = []
    for part in (population.part("train") for population in populations):
        for weight, accuracy in zip(part.stack[tensor], part.accuracies, strict=True):
            if accuracy is not None and accuracy > least:
                found.append(weight.flatten(0, 1) if weight.dim() == 4 else weight.view(-1, SIDE, SIDE))
    return found


if __name__ == "__main__":
    main()
