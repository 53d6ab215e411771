"""What looks trained rather than damaged is named and left as found, unless forced; damage is not taken for it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, examples
from hypothesis import given
from hypothesis import strategies as st
from models import PLAIN, bytes_of, copied, same, write
from torch import Tensor, nn

from planaria.damages import (
    BitFlip,
    BurstFlip,
    Damage,
    NonFinite,
    NormalRandom,
    OnTensors,
    Run,
    SetValue,
    SetZero,
    StuckAt,
    SwappedTensors,
    TruncatedFile,
    WholeWeight,
)
from planaria.errors import LooksDifferent
from planaria.guard import Guard, Report, protect
from planaria.streams import generator

Tensors = dict[str, Tensor]
HALVES = (torch.float16, torch.bfloat16)
DTYPES = [torch.float32, *HALVES]


@cache
def intact(dtype: torch.dtype) -> Tensors:
    """A small network of every kind of tensor: 14,000 weights."""
    tensors = {
        "dense": 0.1 * drawn(48, 96),
        "mixing": 0.1 * drawn(48, 96, seed=1),
        "conv": 0.2 * drawn(12, 8, 3, 3, seed=2),
        "embedding": 0.3 * drawn(40, 64, seed=3),
        "norm": 1 + 0.05 * drawn(96, seed=4),
        "ones": torch.ones(96),
        "bias": 0.05 * drawn(10, seed=5),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


@cache
def weak(dtype: torch.dtype) -> Guard:
    """Its parity restores a few rows or small tensors, and no matrix."""
    guard = protect(intact(dtype), budget=0.32 / dtype.itemsize, tiers=PLAIN)
    assert not guard.manifest.compact  # each tile has a digest of its own
    return guard


@cache
def strong(dtype: torch.dtype) -> Guard:
    return with_copies(weak(dtype), intact(dtype))


def with_copies(guard: Guard, tensors: Tensors) -> Guard:
    """The guard with a copy of every tensor, which restores them as the parity of a large one does, and faster."""
    contents = bytes_of(tensors)
    copy = np.concatenate([contents[entry.name] for entry in guard.entries])
    manifest = replace(guard.manifest, version=max(2, guard.manifest.version), copied=tuple(range(len(guard.entries))))
    return Guard(manifest, {**guard.arrays, "copy": copy}, size=guard.size)


def noisy(tensor: Tensor, share: float, seed: int = 0) -> Tensor:
    """Every weight moved by about this share of a typical one."""
    typical = tensor.double().square().mean().sqrt()
    return (tensor.double() + share * typical * drawn(*tensor.shape, seed=seed, name="step")).to(tensor.dtype)


def merged(tensor: Tensor, seed: int = 0) -> Tensor:
    """With a low-rank update, as of an adapter."""
    update = drawn(len(tensor), 2, seed=seed) @ drawn(2, tensor[0].numel(), seed=seed + 1)
    return (tensor.double() + 0.02 * tensor.double().std() * update.view(tensor.shape)).to(tensor.dtype)


def on_rows(tensor: Tensor, *rows: int) -> Tensor:
    trained = tensor.clone()
    trained[list(rows)] = noisy(tensor, 0.1)[list(rows)]
    return trained


TRAINED = {
    "a matrix": lambda of: {"dense": noisy(of["dense"], 0.1)},
    "a matrix, slightly": lambda of: {"mixing": noisy(of["mixing"], 0.01)},
    "a matrix, scaled": lambda of: {"mixing": 0.97 * of["mixing"]},
    "an adapter": lambda of: {"dense": merged(of["dense"], 1)},
    "a convolution": lambda of: {"conv": noisy(of["conv"], 0.05)},
    "a norm": lambda of: {"norm": noisy(of["norm"], 0.02)},
    "a norm of ones": lambda of: {"ones": noisy(of["ones"], 0.02)},
    "norms and a bias": lambda of: {name: noisy(of[name], 0.05) for name in ("norm", "ones", "bias")},
    "rows": lambda of: {"embedding": on_rows(of["embedding"], *range(0, 40, 4))},
    "a row": lambda of: {"embedding": on_rows(of["embedding"], 17)},
    "neurons, where some inputs are always 0": lambda of: {
        "dense": torch.cat([of["dense"][:, :20], noisy(of["dense"], 0.1)[:, 20:]], 1)
    },
}


def verdicts(report: Report) -> dict[str, set[str]]:
    return {tensor.name: {region.verdict for region in tensor.regions} for tensor in report.tensors if tensor.regions}


@pytest.mark.parametrize("what", TRAINED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_was_trained_is_named_and_left_as_found_unless_forced(dtype: torch.dtype, what: str) -> None:
    tensors, guard = intact(dtype), strong(dtype)
    changes = TRAINED[what](tensors)
    later = copied(tensors | changes)
    before = copied(later)
    checked, report = guard.check(later), guard.repair(later)
    assert same(later, before)
    assert (report.verdict, report.exit_code, checked.exit_code) == ("changed", 5, 5)
    assert verdicts(report) == verdicts(checked) == {name: {"changed"} for name in changes}
    (note,) = report.notes
    assert note.startswith(f"{len(changes)} tensor") and all(name in note for name in changes) and note in str(report)
    forced = guard.repair(later, force=True)
    assert forced.verdict == "exact" and forced.exit_code == 0 and same(later, tensors)


@pytest.mark.parametrize(
    "what", ["a matrix", "a matrix, slightly", "an adapter", "neurons, where some inputs are always 0"]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_past_the_parity_a_tensor_that_looks_sound_stays(dtype: torch.dtype, what: str) -> None:
    tensors, guard = intact(dtype), weak(dtype)
    later = copied(tensors | TRAINED[what](tensors))
    before = copied(later)
    report = guard.repair(later)
    assert same(later, before) and report.verdict == "changed" and report.exit_code == 5


@pytest.mark.parametrize("what", ["a norm", "norms and a bias", "a row"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_parity_could_undo_is_left_as_found(dtype: torch.dtype, what: str) -> None:
    tensors, guard = intact(dtype), weak(dtype)
    later = copied(tensors | TRAINED[what](tensors))
    before = copied(later)
    assert guard.repair(later).verdict == "changed" and same(later, before)
    assert guard.repair(later, force=True).verdict == "exact" and same(later, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_damage_is_repaired_beside_what_was_trained(dtype: torch.dtype) -> None:
    tensors, guard = intact(dtype), strong(dtype)
    trained = {"norm": noisy(tensors["norm"], 0.02), "embedding": on_rows(tensors["embedding"], 3, 30)}
    later = copied(tensors | trained)
    later["conv"][2, 3] = 0
    later["dense"][5, 5] = torch.inf
    later["embedding"][20, 20] *= -1  # in a tile with rows that were trained
    report = guard.repair(later)
    assert same(later, tensors | trained)
    assert report.exit_code == 5
    assert {name for name, found in verdicts(report).items() if "changed" in found} == set(trained)
    assert verdicts(report)["conv"] == verdicts(report)["dense"] == {"exact"}


@pytest.mark.parametrize("what", ["a matrix", "a norm", "rows"])
def test_with_a_hardware_test_nothing_was_trained(what: str) -> None:
    tensors, guard = intact(torch.float32), strong(torch.float32)
    later = copied(tensors | TRAINED[what](tensors))
    known = {name: later[name] == tensors[name] for name in tensors}
    assert guard.repair(later, known=known).verdict == "exact" and same(later, tensors)


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_a_layer_after_steps_of_gradient_descent_is_left_as_found(layer: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 6))
    model = write(tmp_path, network.state_dict())
    guard = with_copies(protect(model, budget=0.1, tiers=PLAIN), network.state_dict())
    descent = torch.optim.Adam(network[layer].parameters(), lr=1e-3)
    for step in range(5):
        inputs = drawn(64, 24, seed=step)
        nn.functional.mse_loss(network(inputs), inputs[:, :6].sin()).backward()
        descent.step()
        descent.zero_grad()
    write(tmp_path, network.state_dict())
    trained = model.read_bytes()
    report = guard.repair(model, in_place=True)
    assert verdicts(report) == {f"{layer}.weight": {"changed"}, f"{layer}.bias": {"changed"}}
    assert report.exit_code == 5 and model.read_bytes() == trained


def test_a_guard_whose_digests_are_shared_names_just_what_was_trained() -> None:
    tensors = {
        f"{layer}.{name}": noisy(one, 0.5, layer) for layer in range(3) for name, one in intact(torch.float32).items()
    }
    guard = protect(tensors, budget=0.02, tiers=PLAIN)
    assert guard.manifest.compact
    later = copied(tensors | {"1.norm": noisy(tensors["1.norm"], 0.02)})
    before = copied(later)
    assert verdicts(guard.repair(later)) == {"1.norm": {"changed"}} and same(later, before)


# --- Damage is not taken for training --------------------------------------------------------------------------------

DAMAGES: list[Damage] = [
    *(BitFlip(rate) for rate in (1e-3, 0.02, 0.2, 0.5)),
    *(BitFlip(rate, bits="msb") for rate in (0.05, 0.5, 1.0)),
    *(BitFlip(rate, bits=[bit]) for rate in (0.5, 1.0) for bit in (0, 3, 6)),
    *(StuckAt(rate, value=value) for rate in (0.02, 0.5) for value in (0, 1)),
    *(StuckAt(1.0, value=value, bits=[2]) for value in (0, 1)),
    *(SetZero(rate) for rate in (0.05, 0.9, 1.0)),
    *(SetValue(rate, value=0.04) for rate in (0.05, 1.0)),
    *(WholeWeight(rate) for rate in (0.02, 0.9, 1.0)),
    NormalRandom(1.0, std=0.1),
    NonFinite(0.9),
    BurstFlip(1e-3, length=24),
]
LOST: list[Damage] = [
    *(Run(length, fill=fill) for length in (200, 4096, 9000) for fill in ("random", "zero")),
    *(TruncatedFile(kept) for kept in (0.5, 0.9)),
    SwappedTensors(),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=repr)
@pytest.mark.parametrize("name", ["dense", "norm", "bias", "embedding"])
def test_damage_whose_intact_content_is_known_is_restored(damage: Damage, name: str) -> None:
    for dtype in DTYPES:
        tensors, guard = intact(dtype), strong(dtype)
        faults = OnTensors(damage, names=[name]).apply_to_model(tensors, generator(0, "test damage"))
        damaged = copied(faults.replay(tensors))
        assert guard.repair(damaged).verdict in ("intact", "exact") and same(damaged, tensors)


@examples(30)
@given(
    seed=st.integers(0, 9999), damage=st.sampled_from([*DAMAGES[:4], *DAMAGES[13:17], *DAMAGES[19:], *LOST]),
    dtype=st.sampled_from(DTYPES), guard=st.sampled_from([strong, weak]),
)  # fmt: skip
def test_damage_anywhere_is_not_taken_for_training(
    seed: int, damage: Damage, dtype: torch.dtype, guard: Callable[[torch.dtype], Guard]
) -> None:
    tensors = intact(dtype)
    damaged = damage.apply_to_model(tensors, generator(seed, "test damage")).replay(tensors)
    try:
        assert guard(dtype).check(damaged).count("changed") == 0
    except LooksDifferent:  # of a whole model that shows nothing
        assert isinstance(damage, (StuckAt, SetValue, BitFlip))


@pytest.mark.parametrize("rows", [slice(8, 16), slice(0, 40)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_in_the_places_of_others_are_put_right(dtype: torch.dtype, rows: slice) -> None:
    tensors, guard = intact(dtype), strong(dtype)
    damaged = copied(tensors)
    damaged["embedding"][rows] = tensors["embedding"][rows].flip(0)
    assert guard.repair(damaged).verdict == "exact" and same(damaged, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_with_anothers_content_is_not_taken_for_a_trained_one(dtype: torch.dtype) -> None:
    tensors = intact(dtype)
    damaged = copied(tensors | {"mixing": tensors["dense"], "ones": tensors["norm"]})
    for guard in (strong, weak):
        assert guard(dtype).check(damaged).count("changed") == 0
