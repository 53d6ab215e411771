"""Populations: trained together as if alone, split by network, resumed, and refused where they would mislead."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from planaria.errors import InvalidFile, InvalidInput
from planaria_lab import datasets, zoo
from planaria_lab.zoo import MLP, SmallCNN, TrainingRecipe, Variety
from planaria_lab.zoo.building import standardised
from planaria_lab.zoo.training import accuracies, train_together

DATA = datasets.digits()
SMALL = replace(DATA, train_images=DATA.train_images[:256], train_labels=DATA.train_labels[:256])
IMAGES = standardised(SMALL.train_images, DATA)
TINY = MLP(8, "relu", (12,))
VARIETY = Variety(("adam", "sgd"), (1e-2, 2e-2), (0.0, 0.1), (0.3, 1.0), (60.0, 90.0))


def built(folder: Path, count: int = 70, **settings: object) -> zoo.Population:
    zoo.build(folder, [TINY], SMALL, count=count, variety=Variety(epochs=(60.0,), learning_rates=(1e-2,)), **settings)
    ((population,), skipped) = zoo.open_zoo(folder)
    assert not skipped
    return population


def test_networks_are_those_that_torch_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 5, 784, generator=generator)
    for architecture, layers in [
        (MLP(28, "tanh", (6, 5)), [nn.Linear(784, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 10)]),
        (
            SmallCNN(28, "gelu"),
            [
                *(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.GELU()),
                *(nn.Conv2d(8, 6, 5), nn.MaxPool2d(2), nn.GELU(), nn.Conv2d(6, 4, 2), nn.GELU(), nn.Flatten()),
                *(nn.Linear(36, 20), nn.GELU(), nn.Linear(20, 10)),
            ],
        ),
    ]:
        both = [architecture.drawn(generator, 1.0) for _ in range(2)]
        stack = {name: torch.stack([one[name] for one in both]) for name in architecture.shapes}
        answers = architecture.answers(stack, images)
        for at, one in enumerate(both):
            network = nn.Sequential(*layers)
            for parameter, weight in zip(network.parameters(), one.values(), strict=True):
                parameter.data = weight
            torch.testing.assert_close(answers[at], network(images[at]), atol=1e-4, rtol=1e-4)
    assert SmallCNN(28).parameters == 2464


@pytest.mark.parametrize("architecture", [TINY, MLP(8, "gelu", (9, 7))], ids=repr)
def test_together_and_alone_networks_become_the_same(architecture: MLP) -> None:
    recipes = [VARIETY.drawn(3, network) for network in range(5)]
    assert len({recipe.optimiser for recipe in recipes}) == 2
    together = train_together(architecture, recipes, IMAGES, SMALL.train_labels, seed=3)
    for at in (0, 3):
        alone = train_together(architecture, recipes[at : at + 1], IMAGES, SMALL.train_labels, seed=3, first=at)
        for name in architecture.shapes:
            torch.testing.assert_close(alone[name][0], together[name][at], atol=2e-3, rtol=2e-3)
    right = accuracies(architecture, together, IMAGES, SMALL.train_labels)
    assert right.min() > 0.3 and right.max() > 0.9


def test_an_adam_step_is_torchs() -> None:
    recipe = TrainingRecipe("adam", 1e-2, 0.1, 1.0, 1 / 1000)
    stack = train_together(TINY, [recipe], IMAGES[:128], SMALL.train_labels[:128], seed=0)
    before = TINY.drawn(zoo.training.streams.generator(0, "zoo network 0"), 1.0)
    batch = torch.randint(128, (128,), generator=zoo.training.streams.generator(0, "zoo batches 0"))
    weights = [tensor.clone().requires_grad_() for tensor in before.values()]
    optimiser = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.1)
    hidden = torch.relu(nn.functional.linear(IMAGES[batch], weights[0], weights[1]))
    logits = nn.functional.linear(hidden, weights[2], weights[3])
    nn.functional.cross_entropy(logits, SMALL.train_labels[batch]).backward()
    optimiser.step()
    for found, expected in zip(stack.values(), weights, strict=True):
        torch.testing.assert_close(found[0], expected.detach(), atol=1e-4, rtol=1e-4)


def test_a_zoo_is_split_by_network_and_reads_back(tmp_path: Path, unchecked: None) -> None:
    population = built(tmp_path)
    assert len(population) == 70 and min(population.accuracies) > 0.7
    sizes = [len(population.part(part)) for part in ("train", "validation", "test")]
    assert sum(sizes) == 70 and sizes[0] == 49 and abs(sizes[1] - sizes[2]) <= 1
    names = [set(population.part(part).names) for part in ("train", "validation", "test")]
    assert not (names[0] & names[1] | names[0] & names[2] | names[1] & names[2])
    first = population.stack["fc1.weight"]
    assert (torch.cdist(first.flatten(1), first.flatten(1)) + torch.eye(70) > 0.5).all()  # of independent beginnings
    with pytest.raises(InvalidInput, match="split into"):
        population.part("holdout")  # type: ignore[arg-type]


def test_a_cut_build_goes_on_to_the_same_zoo(tmp_path: Path) -> None:
    whole = built(tmp_path / "whole")

    def cut(done: int, total: int, note: str) -> None:
        notes.append((done, note))
        if note == "stack 2":
            raise KeyboardInterrupt

    notes: list[tuple[int, str]] = []

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "cut", progress=cut)
    within = [done for done, note in notes if note.startswith("stack 1: step")]
    assert len(within) > 1 and within == sorted(within) and within[-1] == notes[-1][0] > 0
    with pytest.raises(InvalidInput, match="not finished"):
        zoo.open_zoo(tmp_path / "cut")
    again = built(tmp_path / "cut")
    assert again.names == whole.names and again.split == whole.split
    assert all(torch.equal(again.stack[name], whole.stack[name]) for name in whole.stack)
    with pytest.raises(InvalidInput, match="another seed"):
        built(tmp_path / "cut", seed=1)


def test_networks_that_learned_nothing_are_left_out(tmp_path: Path) -> None:
    wild = Variety(("sgd",), (9.0, 0.02), epochs=(60.0,))
    zoo.build(tmp_path, [TINY], SMALL, count=12, variety=wild)
    ((population,), _) = zoo.open_zoo(tmp_path)
    failed = json.loads((tmp_path / "stack-0000.json").read_text())["failed"]
    assert failed and len(population) == 12 - len(failed)
    assert not {str(number) for number in failed} & set(population.names)
    with pytest.raises(InvalidInput, match="learned nothing"):
        zoo.build(tmp_path / "none", [TINY], SMALL, count=2, variety=Variety(("sgd",), (9.0,), epochs=(6.0,)))


def test_shared_beginnings_are_the_easy_control(tmp_path: Path) -> None:
    stack = built(tmp_path, 6, shared=True).stack["fc1.weight"]
    apart = built(tmp_path / "apart", 6).stack["fc1.weight"]
    assert stack.var(0).mean() < 0.6 * apart.var(0).mean()


# --- Checkpoints of a user -------------------------------------------------------------------------------------------


def network(seed: int, width: int = 12) -> dict[str, Tensor]:
    return MLP(8, "relu", (width,)).drawn(torch.Generator().manual_seed(seed), 1.0)


def folder_of(path: Path, networks: dict[str, dict[str, Tensor]]) -> Path:
    for name, weights in networks.items():
        torch.save(weights, path / name) if name.endswith(".pt") else save_file(weights, path / name)
    return path


def test_a_folder_of_checkpoints_is_a_zoo_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, {f"{seed}.{'pt' if seed % 2 else 'safetensors'}": network(seed) for seed in range(20)})
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    (tmp_path / "torn.pt").write_bytes(b"torn")
    (tmp_path / "notes.txt").write_text("no model")
    ((population,), skipped) = zoo.open_zoo(tmp_path)
    assert len(population) == 20 and population.accuracies == (None,) * 20
    assert [one.partition(":")[0] for one in skipped] == ["torn.pt", "torn.safetensors"]
    assert [len(population.part(part)) for part in ("train", "validation", "test")] == [14, 3, 3]
    at = population.names.index("7.pt")
    assert torch.equal(population.stack["fc2.bias"][at], network(7)["fc2.bias"])
    assert zoo.open_zoo(tmp_path, seed=1)[0][0].split != population.split


def test_a_folder_that_would_mislead_is_refused(tmp_path: Path) -> None:
    def refused(match: str, networks: dict[str, dict[str, Tensor]]) -> None:
        path = tmp_path / match[:4]
        path.mkdir()
        with pytest.raises(InvalidInput, match=match):
            zoo.open_zoo(folder_of(path, networks))

    refused("one architecture: fc1.bias", {"a.pt": network(0), "b.pt": network(1, 13)})
    refused("no number", {"a.pt": network(0), "b.pt": network(1) | {"fc1.bias": torch.full((12,), torch.nan)}})
    refused("copies of one another", {f"{seed}.pt": network(seed % 5) for seed in range(20)})
    refused("no checkpoint", {})
    with pytest.raises(InvalidInput, match="no folder"):
        zoo.open_zoo(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["list", "stack", "count", "split", "shape"])
def test_a_damaged_zoo_is_refused(damage: str, tmp_path: Path) -> None:
    built(tmp_path, 4)
    stack, listed = tmp_path / "stack-0000.safetensors", tmp_path / "zoo.json"
    if damage == "list":
        listed.write_text("[")
    elif damage == "stack":
        stack.write_bytes(stack.read_bytes()[:-5])
    elif damage == "count":
        save_file({name: tensor[:3].clone() for name, tensor in load_file(stack).items()}, stack)
    elif damage == "split":
        listed.write_text(json.dumps(json.loads(listed.read_text()) | {"split": {"train": [0]}}))
    else:
        listed.write_text(json.dumps(json.loads(listed.read_text()) | {"stacks": "many"}))
    with pytest.raises(InvalidFile):
        zoo.open_zoo(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda path: zoo.build(path, [], SMALL, count=1), "architecture"),
        (lambda path: zoo.build(path, [TINY], SMALL, count=0), "0"),
        (lambda path: zoo.build(path, [MLP(28)], SMALL, count=1), "side"),
        (lambda path: MLP(8, "swish"), "Activations"),
        (lambda path: MLP(8, "relu", ()), "hidden layer"),
        (lambda path: SmallCNN(8), "28 x 28"),
        (lambda path: TrainingRecipe("lion"), "Optimisers"),
        (lambda path: TrainingRecipe(learning_rate=0.0), "learning rate"),
        (lambda path: TrainingRecipe(epochs=0.0), "epochs"),
        (lambda path: Variety(epochs=()), "epochs has none"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong, match: str, tmp_path: Path, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=match):
        wrong(tmp_path)
    assert list(tmp_path.iterdir()) == []
