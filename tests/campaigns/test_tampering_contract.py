"""What no tampering achieves against a key: that wrong weights are called intact or exact."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from planaria import streams
from planaria.dtypes import integers
from planaria.errors import InvalidGuard, InvalidInput, UntrustedGuard
from planaria.guard import Guard, container, protect
from planaria.guard.report import VERDICTS
from planaria_lab.campaigns import tampering
from planaria_lab.campaigns.defences import PlanariaGuard, Protection, Restored
from planaria_lab.campaigns.tampering import (
    ForeignTiers,
    ForgedCopies,
    ForgedDigests,
    ForgedParity,
    NewGuard,
    NoisyTiers,
    NoTampering,
    PastedFingerprint,
    RandomBytes,
    RemovedTiers,
    SwappedDigests,
    Tampering,
    Truncation,
)
from planaria_lab.campaigns.tampering.forgery import closed, guard_like, opened

KEY = "5a" * 32
TIERS = ("copy", "parity", "sketch", "refinement")
EVERY = [*TIERS, "digest.tiles", "digest.tensors", "statistics"]
TAMPERINGS: list[Tampering] = [
    NoTampering(),
    RandomBytes(0.003),
    RandomBytes(0.3),
    Truncation(0.0),
    Truncation(0.5),
    Truncation(0.999),
    NewGuard(),
    PastedFingerprint(),
    *(
        kind(seal=seal)
        for kind in (ForgedDigests, ForgedParity, ForgedCopies, ForeignTiers)
        for seal in ("kept", "new")
    ),
    ForeignTiers(["copy", "parity"]),
    SwappedDigests(),
    SwappedDigests(seal="new"),
    SwappedDigests(["digest.tiles"]),
    SwappedDigests(["digest.tensors"]),
    *(RemovedTiers([tier], seal=seal) for tier in EVERY for seal in ("kept", "new")),
    RemovedTiers(["digest"]),
    RemovedTiers(["parity", "copy", "sketch", "refinement", "digest.tensors"]),
    *(NoisyTiers([tier]) for tier in EVERY if tier != "refinement"),  # this guard has none
    NoisyTiers(["parity", "copy", "sketch", "refinement", "digest.tiles"]),
    NoisyTiers(["manifest"]),
]


def called(one: object) -> str:
    return ", ".join([type(one).__name__, *(str(value) for value in vars(one).values())])


NAMES = [called(one) for one in TAMPERINGS]
every_tampering = pytest.mark.parametrize("tampering", TAMPERINGS, ids=NAMES)


@cache
def model() -> dict[str, Tensor]:
    draws = streams.generator(0, "model of a tampered guard")
    return {
        "layer.weight": torch.randn(48, 48, generator=draws),
        "layer.bias": torch.randn(48, generator=draws),
        "steps": torch.randint(-127, 128, (48, 48), generator=draws, dtype=torch.int8),
        "head.weight": torch.randn(10, 48, generator=draws).half(),
    }


@cache
def guard_bytes(key: str | None) -> bytes:
    made = protect(model(), budget=0.25, tiers=TIERS, key=None if key is None else bytes.fromhex(key), threads=1)
    return made.to_bytes()


def unharmed() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model().items()}


def few() -> dict[str, Tensor]:
    """One weight and one bias: the guard restores both."""
    broken = unharmed()
    broken["layer.weight"][3, 5] += 0.01
    broken["layer.bias"][7] *= -1
    broken["steps"][0, 0] ^= 1
    return broken


def many() -> dict[str, Tensor]:
    """A little of everything, as gradients would do it: beyond what the guard restores."""
    broken = unharmed()
    for name in ("layer.weight", "head.weight"):
        broken[name] *= 1.01
    broken["layer.bias"] += 0.01
    broken["steps"] ^= 1
    return broken


DAMAGES = [few, many]


def tampered(tampering: Tampering, damaged: dict[str, Tensor], key: str | None, seed: int = 0) -> bytes:
    return tampering.apply(guard_bytes(key), model(), damaged, streams.generator(seed, "tampering"))


def restored(content: bytes, damaged: dict[str, Tensor], key: str | None) -> Restored:
    """What the defence of a campaign makes of a model and a file."""
    return protection(key).reading(content).restore(damaged)


@cache
def protection(key: str | None) -> Protection:
    return PlanariaGuard(0.25, tiers=["parity"], key=key).prepare(model())


def wrong(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: integers(tensors[name]) != integers(of) for name, of in model().items()}


def claimed_wrongly(found: Restored) -> int:
    mistakes, exact = wrong(dict(found.tensors)), VERDICTS.index("exact")
    return sum(
        int((mistaken & (found.verdicts[name] <= exact)).sum()) if name in found.verdicts else int(mistaken.sum())
        for name, mistaken in mistakes.items()
    )


def assert_only_moved(found: Restored, damaged: dict[str, Tensor]) -> None:
    """What is wrong, and called intact or exact, is content of the model as it was found, a tile at a time."""
    tile = Guard.from_bytes(guard_bytes(None)).manifest.tile
    there = {part.tobytes() for of in damaged.values() for part in tiles(of, tile)}
    for name, mistaken in wrong(dict(found.tensors)).items():
        verdicts = found.verdicts.get(name, torch.zeros_like(mistaken, dtype=torch.uint8))
        believed = (mistaken & (verdicts <= VERDICTS.index("exact"))).flatten()
        per_tile = tile // found.tensors[name].element_size()
        for place, part in enumerate(tiles(found.tensors[name], tile)):
            if believed[place * per_tile : (place + 1) * per_tile].any():
                assert part.tobytes() in there


def tiles(tensor: Tensor, tile: int) -> list[NDArray[np.uint8]]:
    content = tensor.contiguous().view(torch.uint8).flatten().numpy()
    return [content[start : start + tile] for start in range(0, len(content), tile)]


def test_every_tampering_is_in_the_list() -> None:
    every = {one for _, one in inspect.getmembers(tampering, inspect.isclass) if issubclass(one, Tampering)}
    assert every - {Tampering} == {type(one) for one in TAMPERINGS}


@every_tampering
@pytest.mark.parametrize("damage", DAMAGES)
def test_with_a_key_nothing_wrong_is_called_intact_or_exact(
    tampering: Tampering, damage: Callable[[], dict[str, Tensor]]
) -> None:
    damaged = damage()
    found = restored(tampered(tampering, damaged, KEY), damaged, KEY)
    assert claimed_wrongly(found) == 0
    struck = any(mask.any() for mask in wrong(damaged).values())
    assert not struck or any(of.any() for of in found.verdicts.values()), "damage went unseen"


@every_tampering
@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_key_it_is_refused_or_loaded_and_nothing_crashes(
    tampering: Tampering, damage: Callable[[], dict[str, Tensor]]
) -> None:
    damaged = damage()
    before = {name: tensor.clone() for name, tensor in damaged.items()}
    found = restored(tampered(tampering, damaged, None), damaged, None)
    assert all(torch.equal(tensor, damaged[name]) for name, tensor in before.items())
    if isinstance(tampering, SwappedDigests):  # content is put where its digest says that it belongs
        assert_only_moved(found, damaged)
    elif not isinstance(tampering, (NewGuard, ForgedDigests)):  # the documented exceptions
        assert claimed_wrongly(found) == 0


@pytest.mark.parametrize("tampering", [NewGuard(), ForgedDigests()], ids=called)
def test_a_guard_without_a_key_is_rewritten_by_whoever_can_write_it(tampering: Tampering) -> None:
    damaged = few()
    found = restored(tampered(tampering, damaged, None), damaged, None)
    assert not any(of.any() for of in found.verdicts.values())
    assert claimed_wrongly(found) == 3


@every_tampering
def test_the_same_stream_gives_the_same_file_and_nothing_is_written_to(tampering: Tampering) -> None:
    damaged = few()
    before = torch.random.get_rng_state()
    once, again = (tampered(tampering, damaged, KEY) for _ in range(2))
    assert once == again
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, damaged[name]) for name, tensor in few().items())
    assert not any(mask.any() for mask in wrong(model()).values())


@every_tampering
@pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
def test_forged_files_agree_with_their_own_parity(tampering: Tampering, key: str | None) -> None:
    if isinstance(tampering, (RandomBytes, Truncation)):
        return
    content = tampered(tampering, few(), key)
    assert container.unpack(content, key=None).mended == 0


def test_tampering_changes_the_file() -> None:
    untouched = {called(one) for one in TAMPERINGS if tampered(one, many(), KEY) == guard_bytes(KEY)}
    # All tensors of so small a model share one digest, which there is none to swap with.
    assert untouched == {called(NoTampering()), called(SwappedDigests(tiers=["digest.tensors"]))}


def test_a_closed_file_of_the_same_tiers_is_the_same_file() -> None:
    for key in (None, KEY):
        content = guard_bytes(key)
        assert closed(opened(content).arrays, seals_of=[content]) == content
    assert closed(opened(guard_bytes(None)).arrays) == guard_bytes(None)


def test_a_kept_seal_still_proves_what_was_not_changed() -> None:
    content = tampered(NoisyTiers(["parity"]), few(), KEY)
    guard = Guard.from_bytes(content, key=bytes.fromhex(KEY))
    assert guard.lost == ("parity",)
    content = tampered(NoisyTiers(["manifest"]), few(), KEY)
    with pytest.raises(InvalidGuard):
        Guard.from_bytes(content, key=bytes.fromhex(KEY))


def test_pasted_fingerprints_and_missing_ones_are_refused_by_name() -> None:
    with pytest.raises(UntrustedGuard, match="without a key"):
        Guard.from_bytes(tampered(NewGuard(), few(), KEY), key=bytes.fromhex(KEY))
    content = tampered(PastedFingerprint(), few(), KEY)
    assert opened(content).manifest.key == opened(guard_bytes(KEY)).manifest.key
    with pytest.raises(InvalidGuard):
        Guard.from_bytes(content, key=bytes.fromhex(KEY))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomBytes(0), r"\(0, 1\], not 0"),
        (lambda: Truncation(1.0), r"\[0, 1\), not 1.0"),
        (lambda: ForgedDigests(seal="none"), "kept or new, not 'none'"),  # type: ignore[arg-type]
        (lambda: RemovedTiers([]), "one tier or more"),
        (lambda: NoisyTiers([""]), "one tier or more"),
        (lambda: SwappedDigests([]), "one tier or more"),
        (lambda: ForeignTiers(["rule"]), r"some of copy, parity, sketch, refinement, not \['rule'\]"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], Tampering], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_a_layout_that_no_guard_has_is_named() -> None:
    victim = opened(guard_bytes(KEY))
    odd = replace(victim, manifest=replace(victim.manifest, tile=64))
    with pytest.raises(InvalidInput, match="tiles of 64 bytes"):
        guard_like(odd, model(), tiers=())


# --- Holes: what a key should prevent and does not. Each fails until the guard is mended. -----------------------------


def small_guard(weight: Tensor) -> bytes:
    return protect({"weight": weight}, budget=0.1, tiers=("parity",), key=bytes.fromhex(KEY), threads=1).to_bytes()


def test_a_guard_that_lost_its_tile_digests_still_repairs_one_wrong_weight() -> None:
    weight = torch.randn(64, 64, generator=streams.generator(0, "tensor of four tiles"))
    content = small_guard(weight)
    tiers = {**opened(content).arrays}
    tiers["digest.tiles"] = np.zeros_like(tiers["digest.tiles"])
    guard = Guard.from_bytes(closed(tiers, seals_of=[content]), key=bytes.fromhex(KEY))
    assert guard.lost == ("digest.tiles",)
    broken = {"weight": weight.clone()}
    broken["weight"][3, 5] += 0.01
    report = guard.repair(broken, threads=1, force=True)  # else it even looks like another model
    assert report.verdict == "exact" and torch.equal(broken["weight"], weight)


def test_tiers_of_two_guards_under_one_key_are_not_taken_for_one_guard() -> None:
    """An older guard of the same model gives tile digests, and with them old tiles are called intact."""
    draws = streams.generator(0, "older and newer weights")
    older, newer = torch.randn(64, 64, generator=draws), torch.randn(64, 64, generator=draws)
    files = [small_guard(newer), small_guard(older)]
    tiers = {**opened(files[0]).arrays, "digest.tiles": opened(files[1]).arrays["digest.tiles"]}
    with pytest.raises(InvalidGuard):  # as long as every tier is proven, the seal of the whole stands against it
        Guard.from_bytes(closed(tiers, seals_of=files), key=bytes.fromhex(KEY))
    tiers["parity"] = np.zeros_like(tiers["parity"])
    with pytest.raises(InvalidGuard, match="belong together"):  # nor when one of them is spoilt on purpose
        Guard.from_bytes(closed(tiers, seals_of=files), key=bytes.fromhex(KEY))
