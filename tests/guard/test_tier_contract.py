"""What every tier keeps to: those of the format, and one of somebody else's."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from models import SHORT, gaussian, smooth, struck, write
from stripe_tier import stripe_tier
from torch import Tensor

from planaria.errors import InvalidGuard, InvalidInput
from planaria.guard import Guard, protect, tiers
from planaria.guard.tiers import TIERS, Tier, register

pytestmark = pytest.mark.usefixtures("unchecked")  # shape checks make a rule ten times slower
OURS = ["digest", "copy", "rule", "sketch", "refinement", "parity"]
STRIPE = "stripe"
names = pytest.mark.parametrize("name", [*OURS, STRIPE])
EXACT = ("copy", "parity", STRIPE)  # what restores a lost tile without help


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stripes of docs/tiers.md beside our own, for one test at a time."""
    before = dict(TIERS)
    register(stripe_tier())
    yield
    TIERS.clear()
    TIERS.update(before)


def model() -> dict[str, Tensor]:
    """Something for every tier."""
    return {**smooth(), **gaussian(), "flat": torch.linspace(0.5, 1.5, 400)}


@cache
def guard_of(name: str, *, budget: float = 0.2, key: bytes | None = None) -> Guard:
    return protect(model(), budget=budget, tiers=("digest", name), schedule=SHORT, key=key)


def test_every_tier_of_ours_has_a_row_and_parity_plans_last() -> None:
    classes = {member for member in vars(tiers).values() if isinstance(member, type) and issubclass(member, Tier)}
    assert {tier.name for tier in classes - {Tier}} == set(OURS) == set(TIERS) - {STRIPE}
    assert list(TIERS)[-1] == "parity"


@names
def test_what_it_makes_is_its_own_and_comes_back_from_a_file(name: str) -> None:
    guard, without = guard_of(name), guard_of("digest")
    own = {array for array in guard.arrays if TIERS[name].owns(array)}
    assert own
    others = {array for array in set(guard.arrays) - own if not (name == "refinement" and array.startswith("hint."))}
    assert others <= set(without.arrays)  # what a refinement leaves may have a prior, which stands with the sketches
    assert guard.size <= 0.2 * guard.protected_bytes and guard.tier_bytes()[name] > 0
    again = Guard.from_bytes(guard.to_bytes())
    assert again == guard and again.to_bytes() == guard.to_bytes()
    assert again.check(model()).verdict == "intact"


@names
def test_the_same_model_gives_the_same_bytes_and_a_key_changes_them(name: str) -> None:
    assert guard_of(name) == guard_of.__wrapped__(name)
    assert guard_of(name, key=bytes(range(32))) != guard_of(name)


@names
def test_without_room_there_is_none_of_it(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        guard_of("digest", budget=1e-6)
    smallest = float(str(refusal.value).split("bytes, ")[1].split(" %")[0]) / 100
    guard = guard_of(name, budget=smallest)
    assert guard.size <= smallest * guard.protected_bytes
    assert name == "digest" or not any(TIERS[name].owns(array) for array in guard.arrays)
    assert guard.check(model()).verdict == "intact"


@names
@pytest.mark.parametrize("change", ["shorter", "another type", "gone"])
def test_arrays_of_other_shapes_and_types_are_refused(name: str, change: str) -> None:
    guard = guard_of(name)
    for array, content in guard.arrays.items():
        if not TIERS[name].owns(array):
            continue
        if change == "shorter":
            other = {array: content.reshape(-1)[:-1].copy()}
        elif change == "another type":
            other = {array: content.astype(np.float32)}
        else:
            other = {}
        arrays = {of: kept for of, kept in guard.arrays.items() if of != array} | other
        try:
            forged = Guard.from_bytes(Guard(guard.manifest, arrays).to_bytes())
            forged.repair({key: torch.zeros_like(tensor) for key, tensor in model().items()}, force=True)
        except InvalidGuard:
            continue
        assert name == "rule" and change != "another type"  # a rule that is lost or cut is not used, or refused on use


@names
def test_lost_to_damage_of_the_guard_itself_it_is_named_and_all_else_serves(name: str) -> None:
    guard = guard_of(name)
    content = guard.to_bytes()
    for array in [array for array in guard.arrays if TIERS[name].owns(array)][:1]:
        at = content.find(guard.arrays[array].tobytes())
        assert at > 0
        broken = bytearray(content)
        size = guard.arrays[array].nbytes
        broken[at : at + size] = bytes(255 - byte for byte in broken[at : at + size])
        try:
            left = Guard.from_bytes(bytes(broken))
        except InvalidGuard:  # too much of a small guard for what is left to prove
            continue
        assert left.mended > 0 or array in left.lost
        assert left.check(model()).verdict == "intact"


@names
def test_a_lost_tile_is_restored_exactly_or_never_called_so(name: str) -> None:
    guard, intact = guard_of(name), model()
    damaged = {key: tensor.clone() for key, tensor in intact.items()}
    damaged["flat"][:] = 7.0
    report = guard.repair(damaged)
    restored = torch.equal(damaged["flat"], intact["flat"])
    assert (report.verdict == "exact") == restored and (restored or name not in EXACT)


@names
def test_it_describes_itself_in_plain_values_and_whole_sentences(name: str) -> None:
    guard = guard_of(name)
    json.dumps(TIERS[name].describe(guard), allow_nan=False)
    for sentence in TIERS[name].promises(guard):
        assert sentence[0].isupper() and sentence.endswith(".")
    kept = [TIERS[name].kept_of(guard, tensor) for tensor in range(len(guard.entries))]
    assert all(isinstance(words, str) for words in kept)


def test_a_guard_with_a_tier_that_is_not_known_is_read_and_says_so(tmp_path: Path) -> None:
    path, guard_path = write(tmp_path, model()), tmp_path / "guard"
    protect(path, budget=0.3, tiers=("digest", STRIPE, "parity")).save(guard_path)
    del TIERS[STRIPE]
    guard = Guard.load(guard_path)
    assert guard.unknown == (STRIPE,) and guard.tier_bytes()[STRIPE] > 0
    assert guard.to_bytes() == guard_path.read_bytes()
    intact = path.read_bytes()
    path.write_bytes(struck(intact, slice(len(intact) - 300, len(intact))))
    assert guard.check(path).verdict == "exact"
    assert guard.repair(path, in_place=True).verdict == "exact" and path.read_bytes() == intact


@pytest.mark.parametrize("name", ["", "parity", "Stripe", "a.b", "a b", "seal", "manifest", "x" * 40])
def test_other_names_are_refused(name: str) -> None:
    class Other(type(stripe_tier())):  # type: ignore[misc]
        pass

    Other.name = name
    with pytest.raises(InvalidInput):
        register(Other())
    manifest = replace(guard_of(STRIPE).manifest, tiers={name: {}})
    if name != "parity":
        with pytest.raises(InvalidGuard):
            type(manifest).decode(manifest.encode().tobytes())
