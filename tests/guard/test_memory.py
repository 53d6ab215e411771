"""Copies, sketches and the refinement: what they restore, what they promise, and what of them is refused."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import drawn, examples, mask, same_bits, smooth_sheets
from hypothesis import given
from hypothesis import strategies as st
from models import PLAIN, copied
from safetensors.torch import save_file
from torch import Tensor

from planaria.errors import InvalidGuard, InvalidInput
from planaria.guard import Guard, Report, TensorReport, container, plan_memory, protect
from planaria.guard.decode_memory import memory_of

pytestmark = pytest.mark.usefixtures("unchecked")  # shape checks double what plans take; tests/memory has them
ALL = ("digest", "copy", "parity", "sketch", "refinement")
REFINEMENT = ("digest", "copy", "refinement")
Fields = dict[str, Any]


def network() -> dict[str, Tensor]:
    """Sheets of 8 x 8, noise, a convolution and vectors: 53 KB."""
    return {
        "fc1.weight": smooth_sheets(64, 8, 8),
        "fc1.bias": drawn(64, seed=1),
        "fc2.weight": 0.1 * drawn(64, 64, seed=2),
        "conv.weight": 0.05 * drawn(32, 16, 3, 3, seed=3),
        "norm": (1 + 0.01 * drawn(32, seed=4)).bfloat16(),
        "steps": torch.tensor(12),
    }


@cache
def guard_of(tiers: tuple[str, ...] = ALL, expect: float | None = 0.3, budget: float = 0.15) -> Guard:
    return Guard.from_bytes(protect(network(), budget=budget, expect=expect, tiers=tiers).to_bytes())


def nbytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def error(found: Tensor, intact: Tensor) -> float:
    """Mean square, in units of the intact tensor's."""
    return float((found - intact).double().square().mean() / intact.double().square().mean())


def scattered(share: float, *, seed: int = 5) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network with zeros at a share of the weights of its matrices, and the mask of the others."""
    tensors = network()
    known = {name: ~mask(*of.shape, share=share, seed=seed) for name, of in tensors.items() if of.dim() > 1}
    return {name: tensor * known.get(name, 1) for name, tensor in tensors.items()}, known


def of(report: Report, name: str) -> TensorReport:
    return next(tensor for tensor in report.tensors if tensor.name == name)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_lost_tensor_is_regrown_from_its_sketch_better_than_zero(value: float) -> None:
    guard, damaged = guard_of(("digest", "sketch"), 1.0), network()
    damaged["fc1.weight"].fill_(value)
    report = guard.repair(damaged)
    told = of(report, "fc1.weight")
    assert told.method == "sketch" and told.estimated == 64 * 64 and told.regions[0].verdict == "estimated"
    found = error(damaged["fc1.weight"], network()["fc1.weight"])
    assert found < 0.3
    assert told.expected_error == pytest.approx(
        found**0.5 * float(network()["fc1.weight"].square().mean().sqrt()), rel=0.02
    )


@pytest.mark.parametrize("name", ["fc1.bias", "norm", "steps"])
def test_small_tensors_are_exact_even_if_all_is_lost(name: str) -> None:
    guard, damaged = guard_of(), {key: torch.zeros_like(tensor) for key, tensor in network().items()}
    report = guard.repair(damaged)
    assert same_bits(damaged[name], network()[name])
    assert of(report, name).regions[0].verdict == "exact" and of(report, name).estimated == 0


def test_known_scattered_damage_is_restored_between_true_bounds() -> None:
    guard = guard_of(REFINEMENT, 0.3)
    damaged, known = scattered(0.28)
    report = guard.repair(damaged, known=known)
    for name, there in known.items():
        intact, told = network()[name], of(report, name)
        assert same_bits(damaged[name][there], intact[there])
        assert told.method == "refinement" and told.estimated == told.kept == 0 and told.expected_error is None
        assert told.bound is not None and float((damaged[name] - intact).abs().max()) <= told.bound
        assert {region.verdict for region in told.regions} == {"bounded"}
        assert error(damaged[name], intact) < 0.02
    assert report.verdict == "bounded"


def test_unknown_scattered_damage_is_located_and_restored_by_the_refinement() -> None:
    guard = guard_of(REFINEMENT, 0.3)
    damaged, known = scattered(0.2)
    report = guard.repair(damaged)
    for name, there in known.items():
        assert same_bits(damaged[name][there], network()[name][there])
        assert error(damaged[name], network()[name]) < 0.02 and of(report, name).method == "refinement"


def test_weights_that_only_look_right_do_not_mislead_the_refinement() -> None:
    guard = guard_of(REFINEMENT, 0.3)
    damaged, known = scattered(0.1)
    lie = mask(64, 64, share=0.02, seed=8)
    damaged["fc2.weight"][lie] = -damaged["fc2.weight"][lie]  # as large as others, and of the wrong sign
    report = guard.repair(damaged)
    for name in known:
        told, worst = of(report, name), float((damaged[name] - network()[name])[~known[name]].abs().max())
        assert told.estimated or (told.bound is not None and worst <= told.bound)


def test_possible_weights_far_from_their_sketch_are_replaced() -> None:
    guard = protect(network(), budget=0.15, expect=0.3, tiers=("digest", "sketch"))
    tensors = network()
    filters, stuck = tensors["fc1.weight"], mask(*tensors["fc1.weight"].shape, share=0.1, seed=9)
    intact = filters.clone()
    filters[stuck] = torch.where(intact[stuck] > 0, intact.min(), intact.max())  # in the intact range
    before = float((filters - intact).square().mean())
    told = of(guard.repair(tensors, force=True), "fc1.weight")
    assert told.kept > 0 and 0.25 * int(stuck.sum()) < told.estimated <= int(stuck.sum())
    assert float((tensors["fc1.weight"] - intact).square().mean()) < 0.7 * before


def test_twice_the_expected_damage_is_not_worse_than_sketches_alone() -> None:
    damaged, known = scattered(0.6)
    by_sketch = copied(damaged)
    planned = guard_of(("digest", "sketch", "refinement"), 0.3)
    assert planned.manifest.memory is not None and planned.manifest.memory.strengths
    planned.repair(damaged, known=known)
    zeros = {name: error(tensor, network()[name]) for name, tensor in by_sketch.items()}
    for name in known:
        assert error(damaged[name], network()[name]) <= 1.001 * zeros[name]


def test_a_whole_lost_tensor_is_within_a_refinement_of_its_strength() -> None:
    guard, damaged = guard_of(REFINEMENT, 0.5), network()
    damaged["fc2.weight"].fill_(torch.nan)  # a third of the weights under the refinement
    told = of(guard.repair(damaged), "fc2.weight")
    assert told.method == "refinement" and told.regions[0].verdict == "bounded"
    assert told.bound is not None and float((damaged["fc2.weight"] - network()["fc2.weight"]).abs().max()) <= told.bound


def test_a_check_says_what_a_repair_does_and_changes_nothing() -> None:
    damaged, known = scattered(0.25)
    before = copied(damaged)
    seen = guard_of(REFINEMENT, 0.3).check(damaged, known=known)
    assert all(same_bits(damaged[name], before[name]) for name in before)
    done = guard_of(REFINEMENT, 0.3).repair(damaged, known=known)
    assert [tensor.regions for tensor in seen.tensors] == [tensor.regions for tensor in done.tensors]


@examples(4)
@given(
    budget=st.floats(0.05, 0.5),
    expect=st.floats(0.01, 1),
    tiers=st.sampled_from([ALL, REFINEMENT, ("digest", "sketch")]),
)
def test_the_budget_is_never_exceeded_and_the_guard_reads_back(
    budget: float, expect: float | None, tiers: tuple[str, ...]
) -> None:
    require_within(budget, expect, tiers)


@pytest.mark.long
@examples(3)
@given(
    budget=st.floats(0.03, 1),
    tiers=st.sampled_from([ALL, REFINEMENT, ("digest", "parity", "sketch", "refinement", "rule")]),
)
def test_the_budget_is_never_exceeded_by_a_guard_for_any_damage(budget: float, tiers: tuple[str, ...]) -> None:
    require_within(budget, None, tiers)


def require_within(budget: float, expect: float | None, tiers: tuple[str, ...]) -> None:
    guard = protect(network(), budget=budget, expect=expect, tiers=tiers)
    content = guard.to_bytes()
    assert len(content) == guard.size == sum(guard.tier_bytes().values()) <= budget * nbytes(network())
    again = Guard.from_bytes(content)
    assert again.to_bytes() == content and again.check(network()).verdict == "intact"
    absent = {"copy", "parity", "refinement"} - set(tiers)
    assert all(guard.tier_bytes()[tier] == 0 for tier in absent)


def test_what_parity_restores_exactly_is_left_to_it() -> None:
    lines: list[str] = []
    guard = protect(network(), budget=0.2, expect=0.02, tiers=ALL, explain=lines.append)
    assert guard.manifest.memory is None and guard.tier_bytes()["parity"] > 0.5 * guard.size
    assert any("bit for bit" in line for line in lines)
    damaged, known = scattered(0.02)
    assert guard.repair(damaged, known=known).verdict == "exact"


def test_the_explanation_names_every_tensor_and_what_it_got() -> None:
    lines: list[str] = []
    guard = protect(network(), budget=0.15, expect=0.3, tiers=ALL, explain=lines.append)
    assert all(any(name in line for line in lines) for name in network())
    assert guard.to_bytes() == guard_of().to_bytes()
    assert any(line.startswith("memory: * ") for line in lines) and any("refinement:" in line for line in lines)


def test_a_model_too_large_to_plan_for_gets_the_other_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_memory, "MOST_WEIGHTS", 10_000)
    told: list[str] = []
    guard = protect(network(), budget=0.15, tiers=ALL, explain=told.append)
    assert guard.tier_bytes()["sketch"] == guard.tier_bytes()["refinement"] == 0 < guard.tier_bytes()["parity"]
    assert any("for models of up to 10,000 floating-point weights" in line for line in told)


def test_without_memory_tiers_the_guard_is_of_version_1() -> None:
    assert protect(network(), budget=0.1, tiers=PLAIN).manifest.version == 1
    assert guard_of().manifest.version == 2


def test_a_calibration_spends_the_bytes_where_outputs_feel_them(tmp_path: Path) -> None:
    moments = torch.eye(64)
    moments[:8, :8] *= 1000
    guard = protect(network(), budget=0.06, expect=1.0, tiers=("digest", "sketch"), calibration={"fc2.weight": moments})
    damaged = network()
    damaged["fc2.weight"].zero_()
    guard.repair(damaged)
    felt, ignored = (
        error(damaged["fc2.weight"][:, part], network()["fc2.weight"][:, part]) for part in (slice(8), slice(8, 64))
    )
    assert felt < 0.5 * ignored
    save_file({"fc2.weight.second_moment": moments}, tmp_path / "c.safetensors")
    from_file = protect(
        network(), budget=0.06, expect=1.0, tiers=("digest", "sketch"), calibration=tmp_path / "c.safetensors"
    )
    assert from_file.to_bytes() == guard.to_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"calibration": {"fc3.weight": torch.eye(64)}}, "no such matrix"),
        ({"calibration": {"fc1.bias": torch.eye(64)}}, "no such matrix"),
        ({"calibration": {"fc2.weight": torch.eye(63)}}, r"shape \(64, 64\)"),
        ({"calibration": {"fc2.weight": torch.eye(64).int()}}, "floats"),
        ({"calibration": {"fc2.weight": torch.full((64, 64), torch.inf)}}, "finite"),
        *(({"expect": share}, "expect") for share in (0.0, -0.1, 1.5, float("nan"))),
        ({"tiers": ("digest", "sketches")}, "Tiers are: digest, copy"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        protect(network(), **{"budget": 0.1, "tiers": ALL, **arguments})


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((40, 40), 0.5),
        torch.zeros(40, 40),
        1e-30 * drawn(40, 40),
        1e30 * drawn(40, 40),
        1e-42 * drawn(40, 40).double(),
        drawn(40, 40).index_fill(1, torch.tensor([3]), torch.inf),
        drawn(40, 40).double(),
        drawn(40, 40).to(torch.float8_e4m3fn),
        drawn(300, 1),
        drawn(1, 300),
    ],
    ids=["constant", "zeros", "tiny", "huge", "subnormal", "infinite", "double", "byte", "column", "row"],
)
def test_odd_tensors_are_protected_and_repaired(tensor: Tensor) -> None:
    tensor = tensor.float() if tensor.abs().double().max() < 1e-40 else tensor
    intact = {"odd": tensor, "plain": drawn(40, 41, seed=2)}
    guard = Guard.from_bytes(
        protect(intact, budget=0.5, expect=0.2, tiers=("digest", "sketch", "refinement")).to_bytes()
    )
    assert guard.check(intact).verdict == "intact"
    known = {name: ~mask(*of.shape, share=0.2, seed=6) for name, of in intact.items()}
    damaged = {name: torch.where(known[name], of.float(), 0.0).to(of.dtype) for name, of in intact.items()}
    if tensor.dtype == torch.float64:
        damaged["odd"] = torch.where(known["odd"], tensor, 0.0)
    report = guard.repair(damaged, known=known)
    for name, there in known.items():
        assert same_bits(damaged[name][there], intact[name][there])
        finite = intact[name].double().isfinite()
        left, told = (damaged[name].double() - intact[name].double())[finite & ~there], of(report, name)
        assert damaged[name].double()[finite].isfinite().all()
        scale = intact[name].double()[finite & ~there].abs().max()
        assert float(left.abs().max()) <= 2 * float(scale)
        if told.bound is not None and not told.estimated:
            assert float(left.abs().max()) <= told.bound * 1.0001


def test_a_prior_alone_is_used() -> None:
    tensors = {"sheets": smooth_sheets(64, 16, 16, seed=3)}
    guard = protect(tensors, budget=0.04, expect=0.3, tiers=("digest", "refinement"))
    assert guard.manifest.memory is not None
    (kept,) = guard.manifest.memory.tensors
    assert kept.prior and not kept.codec
    known = ~mask(64, 256, share=0.5, seed=7)  # more than the refinement is made for
    damaged = {"sheets": torch.where(known, tensors["sheets"], 0.0)}
    assert of(guard.repair(damaged, known={"sheets": known}), "sheets").method == "sketch"
    lost = (damaged["sheets"] - tensors["sheets"])[~known]
    assert lost.square().mean() < 0.2 * tensors["sheets"].square().mean()


def test_a_lost_sketch_takes_the_refinement_with_it_and_nothing_else() -> None:
    guard = guard_of(("digest", "sketch", "refinement"), 0.3)
    (sketch, *_) = (name for name in guard.arrays if name.startswith("hint."))
    left = Guard(
        guard.manifest,
        {name: array for name, array in guard.arrays.items() if name != sketch},
        size=guard.size,
        lost=(sketch,),
    )
    memory = memory_of(left)
    assert memory is not None and memory.refinement is None and memory.strengths == ()
    damaged, known = scattered(0.2)
    assert left.repair(damaged, known=known).verdict in ("estimated", "lost")


def forged(change: Callable[[dict[str, np.ndarray], Fields], None]) -> bytes:
    """A guard with two sketches and a refinement, changed and sealed anew."""
    guard = guard_of(("digest", "copy", "sketch", "refinement"), 0.3)
    arrays = {name: array.copy() for name, array in guard.arrays.items()}
    fields = json.loads(arrays["manifest"].tobytes())
    change(arrays, fields)
    arrays["manifest"] = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    return container.pack(arrays, key=None)


def entry(place: int, value: Any) -> Callable[[dict[str, np.ndarray], Fields], None]:
    return lambda arrays, fields: fields["memory"]["tensors"][0].__setitem__(place, value)


def put(name: str, value: Any) -> Callable[[dict[str, np.ndarray], Fields], None]:
    return lambda arrays, fields: fields["memory"].__setitem__(name, value)


def array(name: str, made: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray], Fields], None]:
    return lambda arrays, fields: arrays.__setitem__(name, made(arrays[name]))


HOSTILE = {
    "unknown codec": entry(1, "magic"),
    "no codec": entry(1, 5),
    "wrong index": entry(0, 99),
    "index of a vector": entry(0, 1),
    "negative index": entry(0, -1),
    "space that does not fit": entry(2, [7, 7]),
    "space without end": entry(2, [2**20, 2**20, 2**20]),
    "no such flag": entry(3, 2),
    "another prior": lambda arrays, fields: fields["memory"]["tensors"][0].__setitem__(
        4, 1 - fields["memory"]["tensors"][0][4]
    ),
    "error that is no number": entry(5, float("nan")),
    "endless error": entry(5, 1e300),
    "one entry too few": lambda arrays, fields: fields["memory"]["tensors"].pop(),
    "an entry twice": lambda arrays, fields: fields["memory"]["tensors"].append(fields["memory"]["tensors"][-1]),
    "no entries": put("tensors", []),
    "strengths beyond 1": put("strengths", [1.5]),
    "strengths that rise": put("strengths", [0.1, 0.2]),
    "another number of stages": put("strengths", [0.5, 0.4, 0.3, 0.2]),
    "no strengths": put("strengths", []),
    "endless strengths": put("strengths", [0.1] * 1000),
    "unknown field": put("colour", 1),
    "refinement cut off": array("ladder", lambda content: content[:-5]),
    "refinement too long": array("ladder", lambda content: np.append(content, content[:9])),
    "refinement of no bytes": array("ladder", lambda content: content[:0]),
    "other depths": array("ladder", lambda content: np.concatenate([content[:30], 255 - content[30:60], content[60:]])),
    "other scales": array(
        "ladder", lambda content: np.concatenate([content[:5], np.full(4, 255, np.uint8), content[9:]])
    ),
    "no refinement": lambda arrays, fields: arrays.pop("ladder"),
    "a sketch more": lambda arrays, fields: arrays.__setitem__("hint.1", np.zeros(9, np.uint8)),
    "copy cut off": array("copy", lambda content: content[:-1]),
    "copies of what is not there": lambda arrays, fields: fields.__setitem__("copied", [1, 99]),
    "copies out of order": lambda arrays, fields: fields["copied"].reverse(),
    "no copies named": lambda arrays, fields: fields.pop("copied"),
    "version 1": lambda arrays, fields: fields.__setitem__("version", 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_memory_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidGuard) as refusal:
        Guard.from_bytes(forged(HOSTILE[name]))
    assert len(str(refusal.value).splitlines()) == 1


@given(seed=st.integers(0, 10**6))
@examples(20)
def test_other_bytes_in_sketches_and_refinement_are_refused_or_do_no_harm(seed: int) -> None:
    def spoil(arrays: dict[str, np.ndarray], fields: Fields) -> None:
        draw = np.random.default_rng(seed)
        name = draw.choice([name for name in arrays if name.startswith(("hint.", "ladder"))])
        arrays[name][draw.integers(0, arrays[name].size, 3)] = draw.integers(0, 256, 3)

    damaged, known = scattered(0.2)
    try:
        Guard.from_bytes(forged(spoil)).repair(damaged, known=known)
    except InvalidGuard:
        return
    assert all(same_bits(damaged[name][there], network()[name][there]) for name, there in known.items())
    assert all(tensor.isfinite().all() for tensor in damaged.values())
