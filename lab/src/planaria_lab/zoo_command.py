"""The command that trains a population of small networks."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from planaria.errors import InvalidInput
from planaria.guard_commands import Json
from planaria.progress import progress_bar

DATA = ("digits", "mnist", "fashion-mnist")


def zoo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the zoo; goes on with one that was cut.")],
    data: Annotated[str, typer.Option(help=f"Images to learn: {', '.join(DATA)}.")] = "digits",
    count: Annotated[int, typer.Option(min=1, help="Networks of each architecture and activation.")] = 64,
    mlp: Annotated[
        list[str] | None,
        typer.Option(help="Widths of hidden layers, as 64 or 32,32; may be given more than once.", show_default="32"),
    ] = None,
    cnn: Annotated[bool, typer.Option("--cnn", help="Also the convolutional network of 2,464 parameters.")] = False,
    activation: Annotated[
        list[str] | None,
        typer.Option(help="relu, tanh or gelu; may be given more than once.", show_default="relu"),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training images.")] = 20.0,
    varied: Annotated[
        bool, typer.Option("--varied", help="Optimisers, rates, decays, initial scales and epochs differ, too.")
    ] = False,
    shared: Annotated[bool, typer.Option("--shared", help="All start from the same numbers: an easy control.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    json_output: Json = False,
) -> None:
    """Train a population of small networks together, split by network for training and test of repairs."""
    from planaria_lab import datasets
    from planaria_lab.zoo import MLP, Architecture, SmallCNN, Variety, build, open_zoo

    if data not in DATA:
        raise InvalidInput(f"Data sets are {', '.join(DATA)}, not {data!r}.")
    images = datasets.digits() if data == "digits" else getattr(datasets, data.replace("-", "_"))()
    side = images.train_images.shape[-1]
    hidden = mlp or ([] if cnn else ["32"])
    chosen: list[Architecture] = []
    for one in activation or ["relu"]:
        chosen += [MLP(side, one, _widths(text)) for text in hidden]  # type: ignore[arg-type]
        chosen += [SmallCNN(side, one)] if cnn else []  # type: ignore[arg-type]
    variety = Variety(epochs=(epochs,))
    if varied:
        variety = Variety(
            optimisers=("adam", "sgd"),
            learning_rates=(5e-4, 1e-3, 2e-3, 5e-3),
            weight_decays=(0.0, 1e-2, 1e-1),
            initial_scales=(0.1, 0.3, 1.0),
            epochs=(epochs / 2, epochs, 2 * epochs),
        )
    with progress_bar("zoo") as progress:
        build(output, chosen, images, count=count, variety=variety, seed=seed, shared=shared, progress=progress)
    populations, _ = open_zoo(output)
    if json_output:
        print(
            json.dumps(
                [{"networks": len(of), "split": Counter(of.split), "accuracies": of.accuracies} for of in populations]
            )
        )
        return
    for of in populations:
        known = sorted(accuracy for accuracy in of.accuracies if accuracy is not None)
        split = Counter(of.split)
        Console(soft_wrap=True).print(
            f"{len(of)} networks of {sum(tensor[0].numel() for tensor in of.stack.values())} parameters: "
            f"{', '.join(f'{split[part]} {part}' for part in split)}; accuracy {100 * known[0]:.2f} to "
            f"{100 * known[-1]:.2f} %, median {100 * known[len(known) // 2]:.2f} %",
            highlight=False,
        )


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise InvalidInput(f"Widths are whole numbers, as 64 or 32,32, not {text!r}.") from None
