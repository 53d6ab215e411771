"""Trains the frozen rule for sheets: `python benchmarks/train_sheet_rule.py ZOO... -o sheet-1.safetensors`.

Zoos are folders of `planaria zoo` of MNIST or Fashion-MNIST networks; each is a kind. The shipped one was trained on

    planaria zoo -o mnist --data mnist --count 64 --mlp 64 --mlp 32 --varied --epochs 2 --seed 11
    planaria zoo -o fashion --data fashion-mnist --count 64 --mlp 64 --mlp 32 --varied --epochs 2 --seed 12

A rule that never saw Fashion-MNIST is one trained on the first folder alone.
"""

import argparse
from pathlib import Path

import torch

from planaria import datasets, streams
from planaria.fit import second_moments
from planaria.fit.population import fit_population
from planaria.progress import progress_bar
from planaria.zoo import open_zoo
from planaria.zoo.building import standardised
from planaria.zoo.population import SETTINGS, read_json

LEAST_ACCURACY = {"mnist": 0.85, "fashion-mnist": 0.75}  # of a network that is trained on
IMAGES = 5000  # that second moments are measured on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--name", default="sheet-1")
    arguments = parser.parse_args()
    kinds, moments = {}, {}
    for folder in arguments.zoos:
        kind = read_json(folder / SETTINGS)["data"]
        populations, _ = open_zoo(folder)
        networks = [
            weight.view(-1, 28, 28)
            for part in (population.part("train") for population in populations)
            for weight, accuracy in zip(part.stack["fc1.weight"], part.accuracies, strict=True)
            if accuracy is not None and accuracy > LEAST_ACCURACY[kind]
        ]
        order = torch.randperm(len(networks), generator=streams.generator(0, f"mix {folder.name}"))
        kinds[kind] = [networks[at] for at in order.tolist()]
        images = getattr(datasets, kind.replace("-", "_"))()
        moments[kind] = second_moments(standardised(images.train_images[:IMAGES], images))
    with progress_bar("rule") as progress:
        rule = fit_population(kinds, name=arguments.name, moments=moments, progress=progress)
    rule.save(arguments.output)
    print(rule.card)


if __name__ == "__main__":
    main()
