"""Guards that name a pretrained rule, of which they hold nothing."""

from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch
from helpers import drawn, smooth_sheets
from models import SHORT, WITH_RULES, smooth, smooth_guard
from torch import Tensor

from planaria.damages import WholeWeight
from planaria.errors import InvalidFile, InvalidGuard
from planaria.guard import Guard, protect, rules
from planaria.guard.container import pack
from planaria.pretrained import SHIPPED, shipped
from planaria.repairers import RegrowPretrained
from planaria.streams import generator
from planaria_lab.campaigns.tampering.forgery import with_fields

RECIPES = ("kernel-1", "sheet-1")


@pytest.mark.parametrize(
    ("shape", "recipes"),
    [((24, 8, 5, 5), RECIPES), ((40, 12, 3, 3), RECIPES), ((30, 3, 9, 8), ("sheet-1",))],
    ids=str,
)
def test_kernels_and_patches_have_pretrained_rules(shape: tuple[int, ...], recipes: tuple[str, ...]) -> None:
    """In the flat layout neighbours across channels have nothing in common. Of kernels the better rule is taken."""
    count, height, width = shape[0] * shape[1], *shape[2:]
    tensors = {"kernels": smooth_sheets(count, height, width).view(shape)}
    guard = protect(tensors, budget=0.1, tiers=WITH_RULES, schedule=SHORT)
    (rule,) = guard.manifest.rules
    assert rule.recipe in recipes and (rule.precision, tuple(rule.space)) == ("frozen", shape[2:])
    assert rule.errors[0] < 0.6
    faults = WholeWeight(0.3).apply_to_model(tensors, generator(0, "damage"))
    broken = faults.replay(tensors)
    report = Guard.from_bytes(guard.to_bytes()).repair(broken)
    error = (broken["kernels"] - tensors["kernels"])[~faults.known["kernels"]].square().mean()
    assert report.tensors[0].method == "rule" and error < 0.5 * tensors["kernels"].square().mean()


def damaged() -> dict[str, Tensor]:
    return WholeWeight(0.3).apply_to_model(smooth(), generator(0, "damage")).replay(smooth())


def forged(**change: object) -> bytes:
    """A guard whose pretrained rule says something else of itself."""
    guard = smooth_guard()
    told = [asdict(rule) for rule in guard.manifest.rules]
    told[0] |= change
    return pack({**guard.arrays, "manifest": with_fields(guard.arrays["manifest"], rules=told)}, key=None)


def test_kernels_without_structure_have_none() -> None:
    guard = protect({"noise": drawn(30, 8, 3, 3)}, budget=0.3, tiers=WITH_RULES, schedule=SHORT)
    assert guard.manifest.rules == () and guard.manifest.reasons == {"neighbours tell less than 10% of a weight": [0]}


def test_a_pretrained_rule_that_zeros_beat_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inverted answers have neighbours' structure, and harm; then one is fitted."""
    monkeypatch.setattr(RegrowPretrained, "_fill", lambda self, visible, known, record: -torch.ones_like(visible))
    guard = protect(smooth(), budget=0.2, tiers=WITH_RULES, schedule=SHORT)
    assert all(rule.precision != "frozen" for rule in guard.manifest.rules) and guard.manifest.rules


def test_a_rule_that_errs_less_in_weights_and_more_in_outputs_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offset of half a deviation: a quarter of the squared error of zeros, but over bright inputs it adds up."""
    weight = drawn(60, 64)

    def biased(self: RegrowPretrained, visible: Tensor, known: Tensor, record: object) -> Tensor:
        return weight + 0.5 * weight.std()

    monkeypatch.setattr(RegrowPretrained, "_fill", biased)
    options = {"explained": 0.1, "tile_cells": 64, "moments": None, "seed": 0}
    assert rules.pretrained_for(weight, 0, (8, 8), **options) is None  # type: ignore[arg-type]
    blind = rules.pretrained_for(weight, 0, (8, 8), **options | {"moments": torch.eye(64)})  # type: ignore[arg-type]
    assert blind is not None and blind.shape.errors[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "sheet-0"}, "does not know: There is no pretrained rule 'sheet-0'"),
        ({"space": [40, 40]}, "space"),
        ({"space": [3, 8]}, "space"),
        ({"space": []}, "space"),
        ({"space": [64]}, "space"),
        ({"precision": "half"}, ""),
    ],
)
def test_a_pretrained_rule_that_is_not_as_it_was_is_refused_in_one_line(change: dict[str, object], said: str) -> None:
    if not said:  # as if its bytes were lost: then it is not used
        assert Guard.from_bytes(forged(**change)).repair(damaged()).exit_code == 2
        return
    with pytest.raises(InvalidGuard, match=said) as refused:
        Guard.from_bytes(forged(**change)).repair(damaged())
    assert "\n" not in str(refused.value)


def test_the_bytes_of_a_pretrained_rule_are_refused() -> None:
    arrays = {**smooth_guard().arrays, "rule.1": np.zeros(8, np.uint8)}
    with pytest.raises(InvalidGuard, match="comes with planaria"):
        Guard.from_bytes(pack(arrays, key=None))


def test_a_pretrained_rule_whose_file_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHIPPED, "sheet-1", "0" * 64)
    shipped.cache_clear()
    broken = damaged()
    with pytest.raises(InvalidFile, match="changed on disk"):
        smooth_guard().repair(broken)
    monkeypatch.undo()
    assert smooth_guard().repair(broken).verdict == "estimated"


def test_a_rule_is_not_used_at_damage_at_which_it_tells_hardly_more_than_zeros() -> None:
    guard, filters = Guard.from_bytes(forged(errors=[0.1, 0.2, 0.99])), smooth()["filters"]
    for share, method in ((0.5, "rule"), (0.9, "zero")):
        known = torch.rand(filters.shape, generator=generator(0, "mask")) >= share
        broken = smooth() | {"filters": torch.where(known, filters, 7.0)}
        report = guard.repair(broken, known={"filters": known})
        assert {tensor.name: tensor.method for tensor in report.tensors}["filters"] == method
        assert torch.equal(broken["filters"][known], filters[known])
        assert method == "rule" or not broken["filters"][~known].any()


@cache
def guarded_sheets() -> tuple[dict[str, Tensor], Guard]:
    tensors = {"sheets": smooth_sheets(40, 20, 20)}
    return tensors, protect(tensors, budget=0.1, tiers=WITH_RULES, schedule=SHORT)


@pytest.mark.parametrize("rows", [10, 14, 17])
def test_a_rule_does_not_extrapolate_far_into_what_is_lost(rows: int) -> None:
    """Of sheets that lost all but their first rows, what lies more than three rows on stays zero."""
    tensors, guard = guarded_sheets()
    assert guard.manifest.rules[0].recipe == "sheet-1"
    known = torch.ones(40, 20, 20, dtype=torch.bool)
    known[:20, 20 - rows :] = False
    broken = {"sheets": torch.where(known.flatten(1), tensors["sheets"], 0.0)}
    report = guard.repair(broken, known={"sheets": known.flatten(1)})
    filled = broken["sheets"].view(40, 20, 20)[:20, 20 - rows :]
    assert report.tensors[0].method == "rule" and filled[:, :3].all()
    assert not filled[:, 3:].any()
    error = (broken["sheets"] - tensors["sheets"])[~known.flatten(1)].square().mean().sqrt()
    assert 0.5 * error < (report.tensors[0].expected_error or 0.0) < 2 * error


@pytest.mark.parametrize("garbage", [1e30, 50.0, -1e-20])
def test_a_rule_does_not_start_from_what_cannot_be_right(garbage: float) -> None:
    """Though a hardware test calls it good: nothing else is worse for it."""
    tensors, guard = guarded_sheets()
    draws = torch.rand(40, 400, generator=generator(0, "places"))
    known, spoilt = draws >= 0.2, draws >= 0.9
    errors = []
    for value in (tensors["sheets"], torch.full((), garbage)):
        broken = {"sheets": torch.where(spoilt, value, torch.where(known, tensors["sheets"], 0.0))}
        guard.repair(broken, known={"sheets": known})
        errors.append((broken["sheets"] - tensors["sheets"])[~known].square().mean().sqrt())
        assert torch.equal(broken["sheets"][spoilt], value.expand(40, 400)[spoilt])
    assert errors[1] < 1.3 * errors[0] < tensors["sheets"].std()
