"""Content that stands at the wrong place is put back bit for bit, and nothing else is written."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, examples
from hypothesis import given
from hypothesis import strategies as st
from models import bytes_of, copied, crowd, gaussian, random_bits, same, write
from torch import Tensor

from planaria.guard import Guard, moved, protect
from planaria.streams import generator

Tensors = dict[str, Tensor]
DIGESTS = ("digest",)  # nothing that could restore a single byte
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float64]


def layers(dtype: torch.dtype = torch.float32, *, side: int = 70) -> Tensors:
    """Three layers of alike tensors, whose last tiles are short: 15 KB to 120 KB in tiles of 4,096 bytes."""
    return {
        f"{layer}.{name}": random_bits(dtype, *shape, seed=10 * layer + place)
        for layer in range(3)
        for place, (name, shape) in enumerate({"weight": (side, side), "bias": (side,), "wide": (side, 31)}.items())
    }


@cache
def guard_of(dtype: torch.dtype, side: int, budget: float = 0.3) -> Guard:
    return protect(layers(dtype, side=side), budget=budget, tiers=DIGESTS)


def turned(tensors: Tensors, names: Sequence[str]) -> Tensors:
    """Each of these tensors has the content of the next, and the last that of the first."""
    return copied(tensors | {name: tensors[other] for name, other in zip(names, [*names[1:], names[0]], strict=True)})


def rolled(tensors: Tensors, name: str, by: Callable[[np.ndarray], np.ndarray]) -> Tensors:
    """With the bytes of a tensor in another order."""
    content = by(bytes_of(tensors)[name])
    tensor = tensors[name]
    return copied(tensors | {name: torch.from_numpy(content.copy()).view(tensor.dtype).view(tensor.shape)})


def assert_restored(guard: Guard, damaged: Tensors, intact: Tensors) -> None:
    assert not same(damaged, intact)
    checked = guard.check(damaged)
    report = guard.repair(damaged)
    assert same(damaged, intact)
    assert (checked.verdict, checked.exit_code, report.verdict, report.exit_code) == ("exact", 1, "exact", 0)
    assert any("other places" in note for note in report.notes) and report.notes == checked.notes


@pytest.mark.parametrize("names", [("0.weight", "2.weight"), ("1.bias", "2.bias"), ("2.wide", "0.wide", "1.wide")])
@pytest.mark.parametrize("side", [70, 129])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_that_changed_places_are_put_back(dtype: torch.dtype, side: int, names: Sequence[str]) -> None:
    tensors = layers(dtype, side=side)
    assert_restored(guard_of(dtype, side), turned(tensors, names), tensors)


@pytest.mark.parametrize("name", ["weight", "norm", "scale", "steps"])
@pytest.mark.parametrize(("one", "other"), [(1, 7), (2, 3), (0, 11)])
def test_tensors_of_a_guard_whose_digests_are_shared_are_put_back(name: str, one: int, other: int) -> None:
    tensors, guard = crowd(), protect(crowd(), budget=0.03, tiers=DIGESTS)
    assert guard.manifest.compact
    assert_restored(guard, turned(tensors, [f"layers.{one}.{name}", f"layers.{other}.{name}"]), tensors)


def test_tensors_of_one_shape_and_another_type_are_put_back_by_their_bytes() -> None:
    tensors = layers() | {"whole": random_bits(torch.int32, 70, 70, seed=77)}
    guard = protect(tensors, budget=0.3, tiers=DIGESTS)
    swapped = {"whole": tensors["1.weight"].view(torch.int32), "1.weight": tensors["whole"].view(torch.float32)}
    assert_restored(guard, copied(tensors | swapped), tensors)


@pytest.mark.parametrize("tiles", [1, -1, 2])
@pytest.mark.parametrize("side", [128, 192])
def test_tiles_that_moved_within_a_tensor_are_put_back(side: int, tiles: int) -> None:
    tensors = {"weight": drawn(side, side), "other": drawn(side, side, seed=1)}
    guard = protect(tensors, budget=0.3, tiers=DIGESTS)
    step = tiles * guard.manifest.tile
    assert_restored(guard, rolled(tensors, "weight", lambda content: np.roll(content, step)), tensors)


@examples(25)
@given(seed=st.integers(0, 999), tiles=st.integers(2, 30))
def test_tiles_that_exchanged_contents_anywhere_are_put_back(seed: int, tiles: int) -> None:
    tensors, guard = layers(side=129), guard_of(torch.float32, 129)
    layout, source = guard.layout, generator(seed, "test places")
    contents = {name: content.copy() for name, content in bytes_of(tensors).items()}
    full = [
        (entry.name, start)
        for entry in layout.entries
        for start in range(0, entry.nbytes - layout.tile + 1, layout.tile)
    ]
    places = [full[at] for at in torch.randperm(len(full), generator=source)[:tiles].tolist()]
    held = [contents[name][start : start + layout.tile].copy() for name, start in places]
    for (name, start), content in zip(places, [*held[1:], held[0]], strict=True):
        contents[name][start : start + layout.tile] = content
    assert_restored(guard, as_tensors(contents, tensors), tensors)


def as_tensors(contents: Mapping[str, np.ndarray], like: Tensors) -> Tensors:
    return {name: torch.from_numpy(contents[name]).view(one.dtype).view(one.shape) for name, one in like.items()}


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_content_copied_over_other_content_restores_nothing_but_its_own(dtype: torch.dtype) -> None:
    tensors, guard = layers(dtype), guard_of(dtype, 70)
    damaged = copied(tensors | {"0.weight": tensors["1.weight"]})
    report = guard.repair(damaged)
    assert report.verdict in ("estimated", "lost") and not any("places" in note for note in report.notes)
    assert all(same({"": damaged[name]}, {"": tensors[name]}) for name in tensors if name != "0.weight")
    # One that was overwritten and whose own content stands elsewhere is no longer lost; that elsewhere is.
    moved_on = copied(tensors | {"0.weight": tensors["1.weight"], "2.weight": tensors["0.weight"]})
    report = guard.repair(moved_on)
    assert same({"": moved_on["0.weight"]}, {"": tensors["0.weight"]})
    assert {tensor.name for tensor, region in report.regions() if region.verdict == "exact"} == {"0.weight"}


def test_a_tile_whose_twin_is_intact_is_restored_from_it() -> None:
    tensors = gaussian() | {"tied": gaussian()["wide.weight"]}
    guard = protect(tensors, budget=0.3, tiers=DIGESTS)
    damaged = copied(tensors)
    damaged["tied"][10:60] = 0
    assert_restored(guard, damaged, tensors)


def test_what_moved_and_then_broke_is_restored_but_for_the_broken_tiles() -> None:
    tensors, guard = layers(), guard_of(torch.float32, 70)
    damaged = turned(tensors, ["0.weight", "2.weight"])
    damaged["2.weight"][0, 0] = 7.0  # in the first tile, whose content belongs to the other
    report = guard.repair(damaged)
    (region,) = (region for _, region in report.regions() if region.verdict != "exact")
    assert (region.start, region.stop) == (0, guard.manifest.tile)
    wrong = {name: (damaged[name] != tensors[name]) & ~tensors[name].isnan() for name in tensors}
    assert not wrong["2.weight"].any() and not wrong["0.weight"].flatten()[1024:].any()


def test_a_guard_that_lost_its_tiles_digests_puts_whole_tensors_back() -> None:
    tensors, guard = layers(), guard_of(torch.float32, 70)
    arrays = {name: array for name, array in guard.arrays.items() if name != "digest.tiles"}
    assert_restored(Guard(guard.manifest, arrays), turned(tensors, ["0.weight", "2.weight"]), tensors)


@pytest.mark.parametrize("name", ["wide", "weight"])
def test_a_file_is_put_back_byte_for_byte(tmp_path: Path, name: str) -> None:
    tensors = layers()
    model = write(tmp_path, tensors)
    guard, intact = protect(model, budget=0.3, tiers=DIGESTS), model.read_bytes()
    write(tmp_path, turned(tensors, [f"{layer}.{name}" for layer in range(3)]))
    assert guard.repair(model, in_place=True).verdict == "exact"
    assert model.read_bytes() == intact


def test_the_rest_is_left_to_the_parity() -> None:
    tensors = layers()
    guard = protect(tensors, budget=0.1, tiers=("digest", "parity"))
    damaged = turned(tensors, ["0.weight", "2.weight"])
    damaged["1.bias"][5] += 1
    assert_restored(guard, damaged, tensors)


def test_what_the_digest_does_not_prove_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a model that changes while it is looked at."""
    tensors, guard = layers(), guard_of(torch.float32, 70)
    damaged = turned(tensors, ["0.bias", "2.bias"])
    before, true = copied(damaged), moved._found
    monkeypatch.setattr(moved, "_found", lambda *of: np.roll(true(*of), 1))
    guard.check(damaged)
    assert same(damaged, before)
    damaged = turned(tensors, ["0.bias", "1.bias", "2.bias"])
    report = guard.check(damaged)
    assert report.count("exact") == 0 and not report.notes
