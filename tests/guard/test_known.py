"""Masks: in what forms they come, in two conventions, and what digests say against one that is upside down."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import drawn, mask
from models import PLAIN, copied, gaussian, gaussian_guard, same
from torch import Tensor

from planaria.damages import Erasure, ModelFaults, WholeWeight
from planaria.errors import InvalidInput
from planaria.guard import Guard, protect
from planaria.streams import generator

pytestmark = pytest.mark.usefixtures("unchecked")
Tensors = dict[str, Tensor]


def faults_of(rate: float, tensors: Tensors | None = None) -> tuple[Tensors, ModelFaults]:
    tensors = tensors or gaussian()
    faults = WholeWeight(rate).apply_to_model(tensors, generator(3, "damage"))
    return faults.replay(tensors), faults


def repaired(damaged: Tensors, guard: Guard | None = None, **masks: Any) -> Tensors:
    tensors = copied(damaged)
    (guard or gaussian_guard()).repair(tensors, **masks)
    return tensors


def mapped(masks: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    arrays = {}
    for number, (name, tensor) in enumerate(masks.items()):
        np.save(folder / f"{number}.npy", tensor.numpy())
        arrays[name] = np.load(folder / f"{number}.npy", mmap_mode="r" if tensor.numel() else None)
    return arrays


FORMS: dict[str, Callable[[Mapping[str, Tensor], Path], dict[str, Any]]] = {
    "NumPy": lambda masks, folder: {name: tensor.numpy() for name, tensor in masks.items()},
    "mapped from a file": mapped,
    "lists": lambda masks, folder: {name: tensor.tolist() for name, tensor in masks.items() if tensor.numel()},
    "backwards in memory": lambda masks, folder: {
        name: np.flip(np.flip(tensor.numpy()).copy()) for name, tensor in masks.items()
    },
    "a view of bytes": lambda masks, folder: {
        name: tensor.view(torch.uint8).numpy().view(bool) for name, tensor in masks.items()
    },
}


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_mask_and_both_conventions_say_the_same(form: str, rate: float, tmp_path: Path) -> None:
    damaged, faults = faults_of(rate)
    known = faults.known
    wanted = repaired(damaged, known=known)
    assert same(repaired(damaged, known=FORMS[form](known, tmp_path)), wanted)
    faulty = {name: ~tensor for name, tensor in known.items()}
    assert same(repaired(damaged, faulty=faulty), wanted)
    assert same(repaired(damaged, faulty=FORMS[form](faulty, tmp_path)), wanted)
    reports = [gaussian_guard().check(damaged, **way) for way in ({"known": known}, {"faulty": faulty})]
    assert reports[0].tensors == reports[1].tensors


@pytest.mark.parametrize("convention", ["known", "faulty"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"half": np.ones((70, 60), np.uint8)}, "NumPy array of uint8 and shape (70, 60); it must be bool"),
        ({"half": torch.ones(70, 60)}, "tensor of torch.float32 and shape (70, 60)"),
        (
            {"half": np.ones((60, 70), bool)},
            "array of bool and shape (60, 70); it must be bool of shape (70, 60)",
        ),
        ({"half": [[True], [True, False]]}, "'half', a list, is no array"),
        ({"half": None}, "is a NoneType of object"),
        ({"half": "yes"}, "is a str of"),
        ({"absent": np.ones(3, bool)}, "'absent', which the model lacks"),
        (np.ones((70, 60), bool), "not a ndarray"),
        (torch.ones(70, 60, dtype=torch.bool), "not a Tensor"),
    ],
)
def test_what_is_no_mask_is_refused_by_what_came(given: Any, told: str, convention: str) -> None:
    for action in ("check", "repair"):
        with pytest.raises(InvalidInput) as refused:
            getattr(gaussian_guard(), action)(gaussian(), **{convention: given})
        assert told in str(refused.value)


@pytest.mark.parametrize("action", ["check", "repair"])
def test_a_mask_in_both_conventions_is_refused(action: str) -> None:
    some = {"half": mask(70, 60)}
    with pytest.raises(InvalidInput, match="Give one"):
        getattr(gaussian_guard(), action)(gaussian(), known=some, faulty=some)


@pytest.mark.parametrize("device", ["a scalar", "an array"])
def test_a_mask_of_one_weight_may_be_a_plain_truth_value(device: str) -> None:
    truth = True if device == "a scalar" else np.True_
    assert gaussian_guard().check(gaussian(), known={"steps": truth}).verdict == "intact"


# --- Upside down -----------------------------------------------------------------------------------------------------

MODELS = {
    "float32": lambda: {"weight": drawn(200, 300), "bias": drawn(200, seed=1)},
    "bfloat16": lambda: {"weight": drawn(130, 90).bfloat16(), "more": drawn(40, 40, seed=1).bfloat16()},
    "int8": lambda: {"codes": (40 * drawn(150, 150)).to(torch.int8), "scale": drawn(150, seed=1)},
    "float64": lambda: {"double": drawn(60, 80).double(), "head": drawn(10, 60, seed=1)},
}
GUARDS: dict[str, Guard] = {}


def guard_of(model: str) -> Guard:
    if model not in GUARDS:
        GUARDS[model] = protect(MODELS[model](), budget=0.06, tiers=PLAIN)
    return GUARDS[model]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.3])
def test_a_mask_that_calls_most_of_what_matches_bad_is_refused_with_the_count(model: str, share: float) -> None:
    tensors, guard = MODELS[model](), guard_of(model)
    name = next(iter(tensors))
    known = mask(*tensors[name].shape, share=share)  # few are called good, and all are
    before = copied(tensors)
    bad = f"{int((~known).sum()):,} of {known.numel():,} weights of {name!r} bad, of which {int((~known).sum()):,} lie"
    for action in (guard.check, guard.repair):
        with pytest.raises(InvalidInput) as refused:
            action(tensors, known={name: known})
        assert bad in str(refused.value) and "faulty=MASK" in str(refused.value)
    assert same(tensors, before)
    assert guard.check(tensors, faulty={name: known}).verdict == "intact"
    assert guard.check(tensors, known={name: known}, force=True).verdict == "intact"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.7])
def test_a_run_of_damage_with_its_mask_upside_down_is_refused(model: str, part: float) -> None:
    tensors, guard = MODELS[model](), guard_of(model)
    name = next(iter(tensors))
    bad = torch.zeros(tensors[name].shape, dtype=torch.bool)
    flat = tensors[name].flatten()
    count = int(part * flat.numel())
    bad.view(-1)[:count] = True
    flat[:count] = flat[:count].flip(0)
    damaged = tensors | {name: flat.view(tensors[name].shape)}
    assert guard.check(damaged, known={name: ~bad}).verdict in ("exact", "estimated", "bounded", "lost")
    with pytest.raises(InvalidInput, match="upside down"):
        guard.check(damaged, known={name: bad})


@pytest.mark.parametrize("model", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3])
def test_where_every_tile_is_damaged_impossible_weights_tell_the_wrong_way_round(model: str, rate: float) -> None:
    """Zeros where no weight was zero, all of them marked good."""
    tensors, guard = MODELS[model](), guard_of(model)
    name = next(iter(tensors))
    faults = Erasure(rate).apply_to_model({name: tensors[name]}, generator(5, "damage"))
    damaged, known = tensors | faults.replay({name: tensors[name]}), faults.known
    guard.check(damaged, known=known)
    with pytest.raises(InvalidInput, match="cannot be right"):
        guard.check(damaged, known={name: ~known[name]})


def test_many_small_tensors_are_judged_together() -> None:
    tensors = {f"layers.{number}.scale": drawn(20, seed=number) for number in range(20)} | {"weight": drawn(90, 90)}
    guard = protect(tensors, budget=0.2, tiers=PLAIN)
    good = {name: torch.zeros(20, dtype=torch.bool) for name in tensors if name != "weight"}
    with pytest.raises(InvalidInput, match="400 of 400 of the weights it names"):
        guard.check(tensors, known=good)
    few = dict(list(good.items())[:3])
    assert guard.check(tensors, known=few).verdict == "intact"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_stuck_cells_that_happen_to_hold_right_values_are_no_contradiction(model: str, rate: float, seed: int) -> None:
    tensors, guard = MODELS[model](), guard_of(model)
    known = {name: ~mask(*tensor.shape, share=rate, seed=seed) for name, tensor in tensors.items()}
    assert guard.check(tensors, known=known).verdict == "intact"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rate", [0.1, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("wrong", [0.0, 0.1])
def test_an_honest_mask_is_no_contradiction_however_much_is_lost(model: str, rate: float, wrong: float) -> None:
    """Also one that is partly wrong, calling good what is broken, and bad what is not."""
    tensors, guard = MODELS[model](), guard_of(model)
    damage = Erasure(rate) if model in ("float32", "float64") else WholeWeight(rate)
    faults = damage.apply_to_model(tensors, generator(5, "damage"))
    known = {name: of ^ mask(*of.shape, share=wrong, seed=9) for name, of in faults.known.items()}
    guard.check(faults.replay(tensors), known=known)


@pytest.mark.parametrize("size", [(256, 64), (512, 96), (1000, 70)])
def test_tiles_of_zeros_that_a_lost_tensor_has_by_chance_are_no_contradiction(size: tuple[int, int]) -> None:
    tensors = {"embedding": drawn(*size), "head": drawn(20, 20, seed=1)}
    tensors["embedding"][size[0] // 4 : size[0] // 2] = 0  # rows of padding
    guard = protect(tensors, budget=0.06, tiers=PLAIN)
    lost = tensors | {"embedding": torch.zeros(size)}
    guard.check(lost, known={"embedding": torch.zeros(size, dtype=torch.bool)})
