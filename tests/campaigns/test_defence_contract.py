"""What every defence keeps to."""

import inspect

import pytest
import torch
from torch import Tensor

from planaria import streams
from planaria.damages import BitFlip, WholeWeight
from planaria.dtypes import integers
from planaria.errors import InvalidInput
from planaria_lab.campaigns import defences
from planaria_lab.campaigns.defences import (
    ClipToRange,
    Defence,
    NoDefence,
    PlanariaGuard,
    ResidualRepair,
    StoredCopy,
    ZeroGroups,
)
from planaria_lab.campaigns.defences.base import Protection, Tensors

DEFENCES: list[Defence] = [
    NoDefence(),
    StoredCopy(),
    ClipToRange(),
    ZeroGroups(),
    ZeroGroups(group=64, seed=1),
    PlanariaGuard(0.2, tiers=["copy", "parity", "sketch", "refinement"]),
    PlanariaGuard(0.1, tiers=["parity"], key="00" * 32),
    PlanariaGuard(nbytes=4000, tiers=["parity"], force=False),
    PlanariaGuard(0.2, tiers=["sketch", "refinement"], told=True),
    PlanariaGuard(0.1, tiers=["parity"], force=False),
    ResidualRepair({"head.weight": ()}),
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


@pytest.fixture(scope="module")
def prepared(intact: dict[str, Tensor]) -> dict[int, Protection]:
    """What each defence notes of the intact model, made once."""
    return {id(defence): defence.prepare(copies(intact)) for defence in DEFENCES}


def copies(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(bool((integers(one[n]) == integers(other[n])).all()) for n in one)


def test_every_defence_is_in_the_list() -> None:
    every = {one for _, one in inspect.getmembers(defences, inspect.isclass) if issubclass(one, Defence)} - {Defence}
    assert every == {type(one) for one in DEFENCES}


@pytest.mark.parametrize("defence", DEFENCES, ids=NAMES)
def test_an_intact_model_is_left_as_it_is(
    defence: Defence, intact: dict[str, Tensor], prepared: dict[int, Protection]
) -> None:
    given, protection = copies(intact), prepared[id(defence)]
    known = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in intact.items()}
    restored = protection.restore(given, known if defence.told else None)
    assert equal(restored.tensors, intact)
    assert equal(given, intact)
    assert not any(verdicts.any() for verdicts in restored.verdicts.values())
    assert (protection.nbytes > 0) == (not isinstance(defence, NoDefence))


@pytest.mark.parametrize("damage", [WholeWeight(count=20), BitFlip(0.01)], ids=repr)
@pytest.mark.parametrize("defence", DEFENCES, ids=NAMES)
def test_damaged_models_are_not_written_to_and_answers_repeat(
    defence: Defence, damage: BitFlip | WholeWeight, intact: dict[str, Tensor], prepared: dict[int, Protection]
) -> None:
    protection = prepared[id(defence)]
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


@pytest.mark.parametrize(("name", "bit"), [("steps", 7), ("layer.weight", 31), ("layer.weight", 30)])
def test_a_signature_sees_every_single_flipped_top_bit(name: str, bit: int, intact: dict[str, Tensor]) -> None:
    """Of floats those of the sign and of the exponent."""
    protection = ZeroGroups(8).prepare(intact)
    for place in range(0, intact[name].numel(), 97):
        damaged = copies(intact)
        bits = integers(damaged[name]).view(-1)
        bits[place] ^= torch.tensor(-(1 << bit) if bit == 31 else 1 << bit).to(bits.dtype)
        restored = protection.restore(damaged)
        assert restored.verdicts[name].view(-1)[place] > 0
        assert int((restored.verdicts[name] > 0).sum()) == 8
        assert float(restored.tensors[name].view(-1)[place]) == 0


def test_clipping_brings_back_into_the_range_and_leaves_no_infinity(intact: dict[str, Tensor]) -> None:
    protection = ClipToRange().prepare(intact)
    damaged = copies(intact)
    damaged["layer.bias"][:3] = torch.tensor([torch.nan, torch.inf, -1e30])
    restored = protection.restore(damaged).tensors["layer.bias"]
    assert restored[0] == 0 or intact["layer.bias"].min() > 0 or intact["layer.bias"].max() < 0
    assert restored[1] == intact["layer.bias"].max() and restored[2] == intact["layer.bias"].min()
    assert torch.equal(restored[3:], intact["layer.bias"][3:])


def test_a_guard_has_a_share_or_a_number_of_bytes(intact: dict[str, Tensor]) -> None:
    assert 2000 < PlanariaGuard(nbytes=3000, tiers=["parity"]).prepare(intact).nbytes <= 3000
    with pytest.raises(InvalidInput, match="not both"):
        PlanariaGuard(0.1, nbytes=3000)


def test_a_guard_that_is_not_forced_leaves_a_retrained_model_alone(intact: dict[str, Tensor]) -> None:
    later = {name: tensor * 1.01 if tensor.is_floating_point() else tensor.clone() for name, tensor in intact.items()}
    refused = PlanariaGuard(0.1, tiers=["parity"], force=False).prepare(intact).restore(later)
    assert refused.refused and equal(refused.tensors, later)
    forced = PlanariaGuard(0.1, tiers=["parity"]).prepare(intact).restore(later)
    assert not forced.refused and not equal(forced.tensors, later)


def test_groups_have_weights() -> None:
    with pytest.raises(InvalidInput, match="1 or more weights"):
        ZeroGroups(0)


def test_what_looks_like_another_model_is_repaired_by_force_alone(intact: dict[str, Tensor]) -> None:
    tuned = {name: tensor * 1.001 if tensor.is_floating_point() else tensor for name, tensor in intact.items()}
    for force in (True, False):
        restored = PlanariaGuard(0.1, tiers=["parity"], force=force).prepare(intact).restore(tuned)
        assert restored.refused == (not force)
        assert equal(restored.tensors, tuned) == (not force)
        assert not force or restored.verdicts["layer.weight"].all()


def test_only_guards_keep_a_file_and_one_that_is_none_is_refused(
    intact: dict[str, Tensor], prepared: dict[int, Protection]
) -> None:
    for defence in DEFENCES:
        protection = prepared[id(defence)]
        assert (protection.file is not None) == isinstance(defence, PlanariaGuard)
        if protection.file is None:
            assert protection.reading(b"") is protection
            continue
        refused = protection.reading(b"no guard")
        restored = refused.restore(intact)
        assert equal(restored.tensors, intact)
        assert all(bool((of == 4).all()) for of in restored.verdicts.values())
        assert refused.nbytes == protection.nbytes
        known = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in intact.items()}
        again = protection.reading(protection.file).restore(intact, known if defence.told else None)
        assert equal(again.tensors, intact) and not any(of.any() for of in again.verdicts.values())


def test_a_predictor_and_bits_that_are_none_are_refused(unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=r"Unknown predictor 'Moth'\. Predictors are: Kriging, RowKriging"):
        ResidualRepair({}, predictor="Moth")
    with pytest.raises(InvalidInput, match="Unknown bits 'exp'"):
        ResidualRepair({}, bits="exp")  # type: ignore[arg-type]
