"""The populations that repairs are learned from and measured on; built once into a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from planaria.errors import InvalidInput
from planaria_lab import datasets
from planaria_lab.bench.population.settings import PopulationSettings
from planaria_lab.zoo import MLP, Population, Variety, build, open_zoo
from planaria_lab.zoo.building import standardised

SIDE, WIDTH = 8, 24
OTHER_SHAPES = {"width 16": (16,), "width 32": (32,), "two hidden layers": (WIDTH, WIDTH)}
IN_ZOO, UNSEEN_SEEDS, SHARED = "in the zoo", "unseen seeds", "shared initialisation"

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TestSet:
    """Networks that lose weights, and the images that they are tested on."""

    name: str
    architecture: MLP
    networks: Population
    inputs: Float[Tensor, "images pixels"]
    labels: Int64[Tensor, " images"]


@dataclass(frozen=True, eq=False)
class World:
    """Whole networks of digits, and their relatives.

    Attributes:
        trained: what is learned from.
        shared: what is learned from instead, where all start from the same numbers.
        inputs: training images without labels, as the networks take them.
        tests: by name. That called `SHARED` belongs to `shared`, all others to `trained`.
    """

    architecture: MLP
    trained: Population
    shared: Population
    inputs: Float[Tensor, "images pixels"]
    tests: Mapping[str, TestSet]


def build_world(settings: PopulationSettings, folder: Path, tell: Tell) -> World:
    """Trains what the folder lacks. Raises as `planaria_lab.zoo.build` and the data sets do."""
    told = settings.networks
    digits, plain = loaded("digits"), MLP(SIDE, "relu", (WIDTH,))
    variety, unseen = Variety(**told.variety), Variety(**told.unseen)

    def made(name: str, architecture: MLP, data: datasets.Dataset, count: int, stream: int, **how: Any) -> Population:
        place, how = folder / name.replace(" ", "-"), {"variety": variety} | how
        return zoo(place, architecture, data, count=count, seed=settings.seed + stream, tell=tell, **how)

    whole = made("digits", plain, digits, told.count, 0)
    shared = made("shared", plain, digits, told.shared, 1, shared=True)
    tests: dict[str, TestSet] = {}

    def test(name: str, networks: Population, architecture: MLP = plain, data: datasets.Dataset = digits) -> None:
        inputs = standardised(data.test_images[: told.images], data)
        tests[name] = TestSet(name, architecture, first(networks, told.tested), inputs, data.test_labels[: told.images])

    test(IN_ZOO, whole.part("train"))
    test(UNSEEN_SEEDS, whole.part("test"))
    test("unseen settings", made("settings", plain, digits, told.others, 2, variety=unseen))
    for number, (name, widths) in enumerate(OTHER_SHAPES.items(), start=3):
        other = MLP(SIDE, "relu", widths)
        test(name, made(name, other, digits, told.others, number), other)
    for number, name in enumerate(("mnist", "fashion-mnist"), start=6):
        data = pooled(loaded(name))
        networks = made(name, plain, data, told.others, number, variety=replace(variety, epochs=(told.image_epochs,)))
        test(data.name, networks, plain, data)
    test(SHARED, shared.part("test"))
    inputs = standardised(digits.train_images, digits)
    return World(plain, whole.part("train"), shared.part("train"), inputs, tests)


def zoo(
    folder: Path,
    architecture: MLP,
    data: datasets.Dataset,
    *,
    count: int,
    variety: Variety,
    seed: int,
    tell: Tell,
    shared: bool = False,
) -> Population:
    """The networks of this folder, trained first if they are not there."""

    def progress(done: int, total: int, note: str) -> None:
        tell(f"{folder.name}, network {done} of {total}")

    folder.parent.mkdir(parents=True, exist_ok=True)
    build(folder, [architecture], data, count=count, variety=variety, seed=seed, shared=shared, progress=progress)
    (population,), _ = open_zoo(folder)
    return population


def first(population: Population, count: int) -> Population:
    """The first so many of its networks."""
    return Population(
        {name: tensor[:count] for name, tensor in population.stack.items()},
        population.names[:count],
        population.split[:count],
        population.accuracies[:count],
    )


def loaded(name: str) -> datasets.Dataset:
    """A data set by name. Raises `InvalidInput` on an unknown one, and as the data sets do."""
    known: Mapping[str, Callable[[], datasets.Dataset]] = {
        "digits": datasets.digits,
        "mnist": datasets.mnist,
        "fashion-mnist": datasets.fashion_mnist,
    }
    if name not in known:
        raise InvalidInput(f"Data sets are {', '.join(known)}, not {name!r}.")
    return known[name]()


def pooled(data: datasets.Dataset) -> datasets.Dataset:
    """The same of images of 28 x 28 as 8 x 8: two pixels of the lowest value around, then means of 4 x 4."""

    def small(images: UInt8[Tensor, "images 28 28"]) -> UInt8[Tensor, "images 8 8"]:
        return F.avg_pool2d(F.pad(images[:, None].float(), (2, 2, 2, 2)), 4)[:, 0].round().to(images.dtype)

    return datasets.Dataset(
        f"{data.name}, 8 x 8", small(data.train_images), data.train_labels, small(data.test_images), data.test_labels
    )
