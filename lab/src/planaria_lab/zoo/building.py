"""Building a zoo: stacks of networks, each written whole, and a list of them at the end."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import save
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.files import make_folder, write_atomically
from planaria_lab import datasets
from planaria_lab.zoo.architectures import CLASSES, Architecture
from planaria_lab.zoo.population import LIST, SETTINGS, SPLITS, VERSION, drawn_split, read_json, stack_name
from planaria_lab.zoo.recipe import Variety
from planaria_lab.zoo.training import accuracies, train_together

TOGETHER = 64  # networks that are trained at once
LEAST_ACCURACY = 3 / CLASSES  # below it a network has learned nothing, or diverged: three times chance


def build(
    folder: Path,
    architectures: Sequence[Architecture],
    data: datasets.Dataset,
    *,
    count: int,
    variety: Variety | None = None,
    seed: int = 0,
    shared: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Trains `count` networks of each architecture into the folder, up to 64 at a time; what is there already is kept.

    Each stack of networks is written as one file when it is trained, with their records beside it, and the list of all
    when the last is: a build that was cut goes on with the stack that it was at, to the same zoo. Networks that
    diverged or learned nothing (less than three times chance on test images) are left out, and listed as failed.

    Args:
        data: images and labels. Pixels are standardised by mean and deviation of all training pixels.
        variety: of the recipes; by default `Variety()`.
        shared: whether all networks of an architecture start from the same numbers (an easy control).
        progress: called with networks done, all of them, and what is trained.

    Raises:
        InvalidInput: on no architecture or network, images of another side, or a folder that was begun with other
            settings.
        OutputFailed: if the folder cannot be written.
    """
    variety = Variety() if variety is None else variety
    if not architectures or count < 1:
        raise InvalidInput(f"A zoo needs an architecture and a network or more, not {len(architectures)} and {count}.")
    side = data.train_images.shape[-1]
    for architecture in architectures:
        if architecture.side != side:
            raise InvalidInput(f"{data.name} has images of side {side}; {architecture} takes {architecture.side}.")
    folder = make_folder(folder)
    settings = {
        "version": VERSION,
        "data": data.name,
        "seed": seed,
        "shared": shared,
        "count": count,
        "variety": {name: list(values) for name, values in vars(variety).items()},
        "architectures": [{"kind": type(one).__name__, **asdict(one)} for one in architectures],
    }
    _require_same(folder / SETTINGS, json.loads(json.dumps(settings)))
    train, test = standardised(data.train_images, data), standardised(data.test_images, data)
    parts = [(at, begin) for at in range(len(architectures)) for begin in range(0, count, TOGETHER)]
    total = count * len(architectures)
    for number, (at, begin) in enumerate(parts):
        architecture = architectures[at]
        first, size = at * count + begin, min(TOGETHER, count - begin)
        progress(first, total, f"stack {number + 1}")
        if (folder / f"{stack_name(number)}.json").is_file():
            continue
        recipes = [variety.drawn(seed, first + one) for one in range(size)]

        def told(step: int, steps: int, first: int = first, size: int = size, number: int = number) -> None:
            progress(first + size * step // steps, total, f"stack {number + 1}: step {step:,} of {steps:,}")

        stack = train_together(
            architecture,
            recipes,
            train,
            data.train_labels,
            seed=seed,
            first=first,
            shared=shared,
            device=device,
            told=told,
        )
        found = accuracies(architecture, stack, test, data.test_labels)
        sound = torch.stack([tensor.flatten(1).isfinite().all(1) for tensor in stack.values()]).all(0)
        kept = sound & (found >= LEAST_ACCURACY)
        records = [
            {"number": first + one, "accuracy": round(float(found[one]), 6), "recipe": asdict(recipe)}
            for one, recipe in enumerate(recipes)
        ]
        write_atomically(
            folder / f"{stack_name(number)}.safetensors",
            save({name: tensor[kept].contiguous() for name, tensor in stack.items()}),
        )
        content = {
            "architecture": at,
            "networks": [record for record, good in zip(records, kept.tolist(), strict=True) if good],
            "failed": [record["number"] for record, good in zip(records, kept.tolist(), strict=True) if not good],
        }
        write_atomically(folder / f"{stack_name(number)}.json", json.dumps(content, indent=1).encode())
    write_atomically(folder / LIST, json.dumps(_listed(folder, settings, len(parts)), indent=1).encode())
    progress(total, total, "done")


def standardised(
    images: UInt8[Tensor, "images height width"], data: datasets.Dataset
) -> Float[Tensor, "images pixels"]:
    """Images as a zoo's networks take them: flattened, in units of the training pixels' deviation about their mean."""
    pixels = data.train_images.float()
    return ((images.float() - pixels.mean()) / pixels.std()).flatten(1)


def _listed(folder: Path, settings: dict[str, Any], stacks: int) -> dict[str, Any]:
    """The zoo's list: settings, stacks, and the split, which is by network."""
    contents = [read_json(folder / f"{stack_name(number)}.json") for number in range(stacks)]
    numbers = [record["number"] for content in contents for record in content["networks"]]
    if not numbers:
        raise InvalidInput("All networks diverged or learned nothing. Train them longer, or at other learning rates.")
    drawn = dict(zip(numbers, drawn_split(len(numbers), settings["seed"]), strict=True))
    split = {part: [number for number in numbers if drawn[number] == part] for part in SPLITS}
    return settings | {"stacks": stacks, "split": split}


def _require_same(path: Path, settings: dict[str, Any]) -> None:
    if not path.is_file():
        write_atomically(path, json.dumps(settings, indent=1).encode())
    elif (found := read_json(path)) != settings:
        other = next(name for name in settings if found.get(name) != settings[name])
        raise InvalidInput(
            f"{path.parent} holds a zoo with another {other}: {found.get(other)}, not {settings[other]}. "
            "Choose another folder."
        )
