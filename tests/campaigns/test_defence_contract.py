"""What every defence keeps to."""

import inspect

import pytest
import torch
from torch import Tensor

from planaria import streams
from planaria.campaigns import defences
from planaria.campaigns.defences import (
    ClipToRange,
    Defence,
    NoDefence,
    PlanariaGuard,
    ResidualRepair,
    StoredCopy,
    ZeroGroups,
)
from planaria.campaigns.defences.base import Tensors
from planaria.damages import BitFlip, WholeWeight
from planaria.damages.faults import integers
from planaria.errors import InvalidInput

DEFENCES: list[Defence] = [
    NoDefence(),
    StoredCopy(),
    ClipToRange(),
    ZeroGroups(),
    ZeroGroups(group=64, seed=1),
    PlanariaGuard(0.2),
    PlanariaGuard(0.1, tiers=["parity"], key="00" * 32),
    PlanariaGuard(0.2, tiers=["hint", "ladder"], told=True),
    ResidualRepair({"layer.weight": (8, 8), "head.weight": ()}),
    ResidualRepair({"layer.weight": (8, 8)}, bits="exponent", predictor="RowKriging"),
]
NAMES = [f"{number} {type(one).__name__}" for number, one in enumerate(DEFENCES)]


@pytest.fixture(scope="module")
def intact() -> dict[str, Tensor]:
    draws = streams.generator(0, "defended weights")
    smooth = torch.randn(48, 8, 8, generator=draws).cumsum(1).cumsum(2)
    return {
        "layer.weight": (smooth / smooth.std()).flatten(1),
        "layer.bias": torch.randn(48, generator=draws),
        "head.weight": torch.randn(10, 48, generator=draws),
        "steps": torch.randint(-127, 128, (64, 9), generator=draws, dtype=torch.int8),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }


def copies(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(bool((integers(one[n]) == integers(other[n])).all()) for n in one)


def test_every_defence_is_in_the_list() -> None:
    every = {one for _, one in inspect.getmembers(defences, inspect.isclass) if issubclass(one, Defence)} - {Defence}
    assert every == {type(one) for one in DEFENCES}


@pytest.mark.parametrize("defence", DEFENCES, ids=NAMES)
def test_an_intact_model_is_left_as_it_is(defence: Defence, intact: dict[str, Tensor]) -> None:
    given = copies(intact)
    protection = defence.prepare(given)
    known = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in intact.items()}
    restored = protection.restore(given, known if defence.told else None)
    assert equal(restored.tensors, intact)
    assert equal(given, intact)
    assert not any(verdicts.any() for verdicts in restored.verdicts.values())
    assert (protection.nbytes > 0) == (not isinstance(defence, NoDefence))


@pytest.mark.parametrize("damage", [WholeWeight(count=20), BitFlip(0.01)], ids=repr)
@pytest.mark.parametrize("defence", DEFENCES, ids=NAMES)
def test_damaged_models_are_not_written_to_and_answers_repeat(
    defence: Defence, damage: BitFlip | WholeWeight, intact: dict[str, Tensor]
) -> None:
    protection = defence.prepare(intact)
    faults = damage.apply_to_model(intact, streams.generator(0, "damage of a defended model"))
    damaged = faults.replay(intact)
    given = copies(damaged)
    known = faults.known if defence.told else None
    first, second = protection.restore(given, known), protection.restore(given, known)
    assert equal(given, damaged)
    assert equal(first.tensors, second.tensors)
    assert {name: tuple(of.shape) for name, of in first.tensors.items()} == {
        name: tuple(of.shape) for name, of in intact.items()
    }
    for name, verdicts in first.verdicts.items():
        assert verdicts.shape == intact[name].shape and bool((verdicts <= 4).all())
    if isinstance(defence, StoredCopy):
        assert equal(first.tensors, intact)


def test_a_signature_sees_every_single_flipped_top_bit(intact: dict[str, Tensor]) -> None:
    protection = ZeroGroups(8).prepare(intact)
    for place in range(0, intact["steps"].numel(), 7):
        damaged = copies(intact)
        damaged["steps"].view(-1)[place] ^= -128
        restored = protection.restore(damaged)
        assert restored.verdicts["steps"].view(-1)[place] > 0
        assert int((restored.verdicts["steps"] > 0).sum()) == 8
        assert int(restored.tensors["steps"].view(-1)[place]) == 0


def test_clipping_brings_back_into_the_range_and_leaves_no_infinity(intact: dict[str, Tensor]) -> None:
    protection = ClipToRange().prepare(intact)
    damaged = copies(intact)
    damaged["layer.bias"][:3] = torch.tensor([torch.nan, torch.inf, -1e30])
    restored = protection.restore(damaged).tensors["layer.bias"]
    assert restored[0] == 0 or intact["layer.bias"].min() > 0 or intact["layer.bias"].max() < 0
    assert restored[1] == intact["layer.bias"].max() and restored[2] == intact["layer.bias"].min()
    assert torch.equal(restored[3:], intact["layer.bias"][3:])


def test_groups_have_weights() -> None:
    with pytest.raises(InvalidInput, match="1 or more weights"):
        ZeroGroups(0)


def test_a_predictor_and_bits_that_are_none_are_refused(unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"Unknown predictor 'Moth'\. Predictors are: Kriging, RowKriging"):
        ResidualRepair({}, predictor="Moth")
    with pytest.raises(InvalidInput, match="Unknown bits 'exp'"):
        ResidualRepair({}, bits="exp")  # type: ignore[arg-type]
