"""A zoo as it is read: stacks of weights, and which network is for training."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from planaria import streams
from planaria.checkpoints.header import strict_json
from planaria.checkpoints.opening import load_state_dict
from planaria.errors import InvalidFile, InvalidInput, PlanariaError

Split = Literal["train", "validation", "test"]
SPLITS: dict[str, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}
VERSION = 1
LIST, SETTINGS = "zoo.json", "settings.json"
SUFFIXES = (".safetensors", ".pt")
MOST_JSON = 2**26  # bytes
Stack = dict[str, Float[Tensor, "_ ..."]]


@dataclass(frozen=True)
class Population:
    """Networks of one architecture.

    Attributes:
        stack: by name, tensors with one entry a network on their first axis.
        names: of the networks: their numbers, or their files' names.
        split: of each network.
        accuracies: share of test images right, of each network; None where nobody knows.
    """

    stack: Stack
    names: tuple[str, ...]
    split: tuple[str, ...]
    accuracies: tuple[float | None, ...]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, split: Split) -> "Population":
        """The networks of this part. Raises `InvalidInput` on an unknown one."""
        if split not in get_args(Split):
            raise InvalidInput(f"A zoo is split into {', '.join(get_args(Split))}, not {split!r}.")
        chosen = [at for at, of in enumerate(self.split) if of == split]
        return Population(
            {name: tensor[chosen] for name, tensor in self.stack.items()},
            tuple(self.names[at] for at in chosen),
            tuple(self.split[at] for at in chosen),
            tuple(self.accuracies[at] for at in chosen),
        )


def open_zoo(folder: Path, *, seed: int = 0) -> tuple[list[Population], list[str]]:
    """The populations of a folder, one for each architecture, and what was skipped and why.

    A folder that `build` made has a list of its networks. Any other folder is a zoo of the checkpoints in it, all of
    one architecture: `.safetensors` and `.pt` files, each one network, split by `seed`. Those that cannot be read are
    skipped.

    Raises:
        InvalidFile: if a zoo's own file is missing or damaged.
        InvalidInput: if there is no network, or a zoo is not finished; if checkpoints differ in names or shapes, or
            hold what is no number; if two networks of different parts of the split are copies of one another.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder. Name one that `planaria-lab zoo` made, or one with checkpoints.")
    if (folder / SETTINGS).is_file() and not (folder / LIST).is_file():
        raise InvalidInput(f"The zoo in {folder} is not finished. Build it on with the same settings.")
    populations, skipped = (_built(folder), []) if (folder / LIST).is_file() else _of_checkpoints(folder, seed)
    for population in populations:
        _require_sound(population, folder)
    return populations, skipped


def drawn_split(count: int, seed: int) -> tuple[str, ...]:
    """The part of each of so many networks."""
    order = torch.randperm(count, generator=streams.generator(seed, "zoo split")).tolist()
    ends = (SPLITS["train"] * count, (1 - SPLITS["test"]) * count)
    return tuple("train" if at < ends[0] else "validation" if at < ends[1] else "test" for at in order)


def stack_name(number: int) -> str:
    """Of a stack's files, without their endings."""
    return f"stack-{number:04d}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `InvalidFile`."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise InvalidFile(f"{path} has more than {MOST_JSON} bytes, too many for a zoo's list. Build the zoo anew.")
        return strict_json(path.read_bytes())
    except (OSError, ValueError) as error:  # a broken file, or no JSON object
        raise InvalidFile(f"{path} cannot be read as a zoo's list ({error}). Build the zoo anew.") from error


def _built(folder: Path) -> list[Population]:
    content = read_json(folder / LIST)
    try:
        split_of = {number: part for part in SPLITS for number in content["split"][part]}
        parts: dict[int, list[tuple[Stack, list[dict[str, Any]]]]] = defaultdict(list)
        for number in range(int(content["stacks"])):
            about = read_json(folder / f"{stack_name(number)}.json")
            stack = _loaded(folder / f"{stack_name(number)}.safetensors")
            if any(tensor.shape[:1] != (len(about["networks"]),) for tensor in stack.values()):
                raise InvalidFile(f"{folder / stack_name(number)}: the stack and its list differ. Build the zoo anew.")
            if about["networks"]:
                parts[int(about["architecture"])].append((stack, about["networks"]))
        populations = []
        for _, some in sorted(parts.items()):
            records = [record for _, listed in some for record in listed]
            populations.append(
                Population(
                    _joined([stack for stack, _ in some], folder),
                    tuple(str(record["number"]) for record in records),
                    tuple(split_of[record["number"]] for record in records),
                    tuple(float(record["accuracy"]) for record in records),
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, PlanariaError):
            raise
        raise InvalidFile(f"{folder / LIST} is no list of a zoo ({error!r}). Build the zoo anew.") from error
    return populations


def _of_checkpoints(folder: Path, seed: int) -> tuple[list[Population], list[str]]:
    networks: dict[str, Mapping[str, Tensor]] = {}
    skipped = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()):
        try:
            networks[path.name] = _loaded(path)
        except PlanariaError as error:  # noqa: PERF203 - one torn file costs that network alone
            skipped.append(f"{path.name}: {error}")
    if not networks:
        why = f" Skipped: {'; '.join(skipped)}" if skipped else ""
        raise InvalidInput(f"{folder} holds no checkpoint that can be read ({', '.join(SUFFIXES)}).{why}")
    first, like = next(iter(networks.items()))
    for name, network in networks.items():
        if (shapes := _shapes(network)) != (wanted := _shapes(like)):
            other = min(key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))
            raise InvalidInput(
                f"A zoo holds one architecture: {other} is {wanted.get(other, 'missing')} in {first} and "
                f"{shapes.get(other, 'missing')} in {name}. Put them into different folders."
            )
    stack = {name: torch.stack([network[name] for network in networks.values()]) for name in like}
    return [Population(stack, tuple(networks), drawn_split(len(networks), seed), (None,) * len(networks))], skipped


def _loaded(path: Path) -> Stack:
    try:
        found = load_state_dict(path) if path.suffix == ".pt" else load(path.read_bytes())
        return {name: tensor.float() for name, tensor in found.items()}
    except (OSError, SafetensorError) as error:
        raise InvalidFile(f"{path} cannot be read ({error}).") from error


def _joined(stacks: Sequence[Stack], folder: Path) -> Stack:
    shapes = [{name: tensor.shape[1:] for name, tensor in stack.items()} for stack in stacks]
    if any(shape != shapes[0] for shape in shapes):
        raise InvalidFile(f"{folder}: stacks of one architecture differ in names or shapes. Build the zoo anew.")
    return {name: torch.cat([stack[name] for stack in stacks]) for name in shapes[0]}


def _shapes(network: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.items()}


def _require_sound(population: Population, folder: Path) -> None:
    """Raises on weights that are no numbers, and on copies of one network in two parts of the split."""
    seen: dict[bytes, int] = {}
    for at, name in enumerate(population.names):
        digest = hashlib.blake2b(digest_size=16)
        for key in sorted(population.stack):
            weight = population.stack[key][at]
            if not weight.isfinite().all():
                raise InvalidInput(
                    f"{key} of network {name} in {folder} holds what is no number. Take the network out."
                )
            digest.update(weight.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        other = seen.setdefault(digest.digest(), at)
        if population.split[other] != population.split[at]:
            raise InvalidInput(
                f"Networks {population.names[other]} ({population.split[other]}) and {name} ({population.split[at]}) "
                f"of {folder} are copies of one another: what is measured would have been seen. Take one of them out."
            )
