"""What becomes of damaged weights: exact within the parity's strength, and past it never worse and never claimed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from helpers import drawn, examples
from hypothesis import given
from hypothesis import strategies as st
from models import (
    bytes_of,
    copied,
    crowd,
    crowd_guard,
    gaussian,
    gaussian_guard,
    random_bits,
    same,
    scattered,
    smooth,
    smooth_guard,
    struck,
)
from torch import Tensor

from planaria.codes import ReedSolomon
from planaria.damages import BitFlip, Damage, ModelFaults, Run, WholeWeight
from planaria.errors import InvalidInput, LooksDifferent, OtherModel, VerificationFailed
from planaria.guard import Guard, Report, container, protect
from planaria.guard import repair as repairing
from planaria.guard.estimate import _mean_within
from planaria.guard.report import VERDICTS
from planaria.streams import generator

pytestmark = pytest.mark.usefixtures("unchecked")  # shape checks make a rule ten times slower
Tensors = dict[str, Tensor]
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

DAMAGES = [
    *(BitFlip(rate) for rate in (0.0002, 0.001, 0.004, 0.02)),
    *(BitFlip(rate, bits="msb") for rate in (0.005, 0.05)),
    *(WholeWeight(rate) for rate in (0.002, 0.04, 0.1, 0.4)),
    *(Run(length, fill=fill) for length in (500, 9000, 60_000) for fill in ("random", "zero")),
]
CASES = [
    *((gaussian, gaussian_guard, damage) for damage in DAMAGES),
    *((crowd, crowd_guard, damage) for damage in DAMAGES[::2]),  # a compact one
    *((smooth, smooth_guard, damage) for damage in DAMAGES[1::4]),  # rules take longer
]
Case = tuple[Callable[[], Tensors], Callable[[], Guard], Damage]
anything = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__} {case[2]!r}")


def broken(tensors: Tensors, damage: Damage, seed: int) -> tuple[Tensors, ModelFaults]:
    faults = damage.apply_to_model(tensors, generator(seed, "damage"))
    return faults.replay(tensors), faults


def repaired(guard: Guard, damaged: Tensors, *, known: Mapping[str, Tensor] | None = None) -> tuple[Tensors, Report]:
    tensors = copied(damaged)
    return tensors, guard.repair(tensors, known=known, force=True)


@dataclass(frozen=True)
class Outcome:
    """A model, its guard, what it became, and what the repair made of that."""

    tensors: Tensors
    guard: Guard
    damaged: Tensors
    faults: ModelFaults
    result: Tensors
    report: Report


@cache
def outcome(case: Case, seed: int = 0) -> Outcome:
    tensors, guard = case[0](), case[1]()
    damaged, faults = broken(tensors, case[2], seed)
    return Outcome(tensors, guard, damaged, faults, *repaired(guard, damaged))


def tiles_of(report: Report, verdict: str) -> dict[str, np.ndarray]:
    """By tensor, whether each byte lies in a region of this verdict."""
    marked = {}
    for tensor in report.tensors:
        marked[tensor.name] = np.zeros(tensor.nbytes, bool)
        for region in tensor.regions:
            if region.verdict == verdict:
                marked[tensor.name][region.start : region.stop] = True
    return marked


def by_tile(guard: Guard, struck: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By tensor, whether each byte lies in a tile that was struck, and in a hash group of tiles that was."""
    layout = guard.layout
    starts = [np.arange(0, entry.nbytes, layout.tile) for entry in layout.entries]
    tiles = np.concatenate(
        [
            np.logical_or.reduceat(struck[entry.name], at) if entry.nbytes else np.zeros(0, bool)
            for entry, at in zip(layout.entries, starts, strict=True)
        ]
    )
    hash_groups = np.isin(layout.hash_group_of, layout.hash_group_of[tiles])
    return tuple(  # type: ignore[return-value]
        {
            entry.name: np.repeat(mask[layout.tiles_of_tensor(index)], layout.tile)[: entry.nbytes]
            for index, entry in enumerate(layout.entries)
        }
        for mask in (tiles, hash_groups)
    )


def different(one: Tensors, other: Tensors) -> dict[str, np.ndarray]:
    """By tensor, whether each byte differs."""
    theirs = bytes_of(other)
    return {name: content != theirs[name] for name, content in bytes_of(one).items()}


def assert_sound(report: Report, guard: Guard) -> None:
    """What holds for every report."""
    assert [tensor.name for tensor in report.tensors] == [entry.name for entry in guard.entries]
    counts = dict.fromkeys(VERDICTS, 0)
    for tensor in report.tensors:
        of_tensor = {verdict: tensor.count(verdict, tile=report.tile) for verdict in VERDICTS}
        assert min(of_tensor.values()) >= 0 and sum(of_tensor.values()) == tensor.tiles
        assert tensor.tiles == -(-tensor.nbytes // report.tile)
        counts = {verdict: counts[verdict] + of_tensor[verdict] for verdict in VERDICTS}
        stops = [0, *(region.stop for region in tensor.regions)]
        for stop, region in zip(stops, tensor.regions, strict=False):
            assert stop <= region.start < region.stop <= tensor.nbytes and region.verdict != "intact"
            assert region.start % report.tile == 0
        assert (tensor.expected_error is None) == (tensor.method is None) == (tensor.estimated == 0)
        assert tensor.bound is None or tensor.bound > 0
    assert counts == {verdict: report.count(verdict) for verdict in VERDICTS}
    assert report.verdict == max((v for v in VERDICTS if counts[v]), key=VERDICTS.index)
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["tiles"] == counts and told["verdict"] == report.verdict and told["exit_code"] == report.exit_code
    assert [tensor["name"] for tensor in told["tensors"]] == [t.name for t in report.tensors if t.regions]
    assert str(report)


# --- Within the strength ---------------------------------------------------------------------------------------------


@examples(12)
@given(seed=st.integers(0, 999), share=st.floats(0.01, 1))
def test_random_bytes_anywhere_within_the_strength_are_restored_bit_for_bit(seed: int, share: float) -> None:
    tensors, guard = gaussian(), gaussian_guard()
    assert guard.manifest.parity is not None
    half = guard.manifest.parity.check // 2  # of them each codeword meets at most these
    damaged = copied(tensors)
    sizes = [tensor.nbytes for tensor in tensors.values()]
    places = scattered(max(1, int(share * half)), sum(sizes), seed=seed)
    whole = b"".join(content.tobytes() for content in bytes_of(tensors).values())
    content = np.frombuffer(struck(whole, places, seed=seed), np.uint8)
    for part, tensor in zip(np.split(content, np.cumsum(sizes)[:-1]), damaged.values(), strict=True):
        if tensor.numel():
            line = torch.from_numpy(part.copy()).view(tensor.dtype)
            tensor.copy_(line.view(tensor.shape))
    assert not same(damaged, tensors)
    checked = guard.check(damaged)
    result, report = repaired(guard, damaged)
    assert same(result, tensors)
    assert (checked.verdict, checked.exit_code, report.verdict, report.exit_code) == ("exact", 1, "exact", 0)
    wrong = different(damaged, tensors)
    for name, exact in tiles_of(report, "exact").items():
        assert exact[wrong[name]].all()
    assert [tensor.regions for tensor in checked.tensors] == [tensor.regions for tensor in report.tensors]
    assert_sound(report, guard)
    assert_sound(checked, guard)


@pytest.mark.parametrize("damage", [BitFlip(count=9), WholeWeight(count=9), Run(1500), Run(999, fill="zero")], ids=repr)
@pytest.mark.parametrize(("model", "guarded"), [(gaussian, gaussian_guard), (smooth, smooth_guard)])
def test_damage_within_the_strength_is_restored_bit_for_bit(
    model: Callable[[], Tensors], guarded: Callable[[], Guard], damage: Damage
) -> None:
    tensors, guard = model(), guarded()
    if guard.manifest.rules and isinstance(damage, Run):
        damage = Run(200)  # rules leave less to the parity
    damaged, _ = broken(tensors, damage, 0)
    result, report = repaired(guard, damaged)
    assert same(result, tensors) and report.verdict == "exact"
    assert not same(damaged, tensors)
    again, second = repaired(guard, result)
    assert second.verdict == "intact" and same(again, tensors)


# --- Anything --------------------------------------------------------------------------------------------------------


@anything
def test_a_verdict_says_no_more_than_is_true(case: Case) -> None:
    tensors, report = outcome(case).tensors, outcome(case).report
    damaged, result = outcome(case).damaged, outcome(case).result
    assert_sound(report, outcome(case).guard)
    struck_, left = different(damaged, tensors), different(result, tensors)
    changed = different(result, damaged)
    bounded = tiles_of(report, "bounded")
    damaged_tiles, sharing = by_tile(outcome(case).guard, struck_)
    doubtful = {
        name: bounded[name] | estimated | tiles_of(report, "lost")[name]
        for name, estimated in tiles_of(report, "estimated").items()
    }
    for tensor in report.tensors:
        name = tensor.name
        assert not left[name][~doubtful[name]].any()  # what is reported intact or exact is what it was
        assert not changed[name][~sharing[name]].any()  # and nothing outside damaged hash groups changes
        told = tiles_of(report, "exact")[name] | doubtful[name]
        assert not (told & ~sharing[name]).any() and not (struck_[name] & ~told).any()
        # A tile that shares no digest is told of just if it is damaged; so is, once it is proven, one that does.
        own = damaged_tiles[name] | (sharing[name] & doubtful[name])
        assert np.array_equal(told, own)
        if bounded[name].any():
            each = torch.from_numpy(bounded[name]).view(-1, tensors[name].element_size()).any(1)
            error = (result[name].double() - tensors[name].double()).abs().flatten()[each]
            assert float(error.max()) <= (tensor.bound or 0.0)


@anything
def test_a_check_tells_what_a_repair_does_and_changes_nothing(case: Case) -> None:
    damaged, report = copied(outcome(case).damaged), outcome(case).report
    checked = outcome(case).guard.check(damaged, force=True)
    assert same(damaged, outcome(case).damaged)
    assert checked.tensors == report.tensors
    assert checked.exit_code == {"intact": 0, "exact": 1}.get(checked.verdict, 2)
    assert report.exit_code == (0 if report.verdict in ("intact", "exact") else 2)


@anything
def test_every_repaired_weight_is_finite_and_within_the_intact_range(case: Case) -> None:
    tensors, guard = outcome(case).tensors, outcome(case).guard
    for name, tensor in outcome(case).result.items():
        measured = guard.statistics(guard.layout.index[name]) is not None
        assert measured or not tensor.dtype.is_floating_point or tensor.isfinite().all()
        if tensor.dtype in FLOATS and tensor.numel() and measured:
            low, high = (bound.float().item() for bound in tensors[name].aminmax())
            assert tensor.isfinite().all()
            assert (tensor.float() >= low).all() and (tensor.float() <= high).all()


@anything
@pytest.mark.parametrize("seed", [0, 1])
def test_a_repair_is_never_worse_than_zero_in_place_of_the_damaged_tiles(case: Case, seed: int) -> None:
    tensors, result = outcome(case, seed).tensors, outcome(case, seed).result
    for tensor in outcome(case, seed).report.tensors:
        truth = tensors[tensor.name]
        measured = outcome(case).guard.statistics(outcome(case).guard.layout.index[tensor.name]) is not None
        if truth.dtype in FLOATS and tensor.regions and measured:
            zeroed = bytes_of({"": truth})[""]
            for region in tensor.regions:
                zeroed[region.start : region.stop] = 0
            plain = torch.from_numpy(zeroed).view(truth.dtype).view(truth.shape)
            error, worst = ((value.double() - truth.double()).square().sum() for value in (result[tensor.name], plain))
            assert error <= worst


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_past_the_strength_zeros_cost_no_intact_weight_of_their_tiles(share: float) -> None:
    tensors = {"weight": gaussian()["wide.weight"]}
    guard = protect(tensors, budget=0.05, tiers=("digest", "parity"))
    damaged = copied(tensors)
    damaged["weight"][10:20, : int(150 * share)] = 0
    result, report = repaired(guard, damaged)
    assert report.verdict in ("estimated", "lost")
    wrong = (result["weight"] != tensors["weight"]) & (damaged["weight"] == tensors["weight"])
    assert wrong.double().mean() < 0.01  # those in the outermost of the intact range, seen from their row and column


def test_zeros_show_where_the_intact_tensor_has_few() -> None:
    weight = drawn(96, 150)
    weight[::8, ::8] = 0
    guard = protect({"weight": weight}, budget=0.05, tiers=("digest", "parity"))
    damaged = {"weight": torch.where(torch.arange(96)[:, None] < 40, 0.0, weight)}
    report = guard.repair(damaged, force=True)
    assert report.tensors[0].estimated >= 40 * 150 and report.tensors[0].kept > 0
    assert torch.equal(damaged["weight"][48:], weight[48:])


@anything
def test_weights_known_to_be_good_never_change_and_only_others_are_filled_in(case: Case) -> None:
    tensors, guard, faults = outcome(case).tensors, outcome(case).guard, outcome(case).faults
    result, report = repaired(guard, outcome(case).damaged, known=faults.known)
    assert_sound(report, guard)
    for tensor in report.tensors:
        known = faults.known[tensor.name]
        assert same({"": result[tensor.name][known]}, {"": tensors[tensor.name][known]})
        assert tensor.estimated + tensor.kept <= int((~known).sum())


def test_known_places_are_worth_twice_the_strength() -> None:
    tensors, guard = gaussian(), gaussian_guard()
    damaged, faults = broken(tensors, WholeWeight(0.03), 0)
    assert repaired(guard, damaged)[1].verdict != "exact"
    result, report = repaired(guard, damaged, known=faults.known)
    assert report.verdict == "exact" and same(result, tensors)


def test_tensors_left_out_of_a_mask_are_all_good() -> None:
    tensors, guard = gaussian(), gaussian_guard()
    damaged, _ = broken({"wide.weight": tensors["wide.weight"]}, WholeWeight(0.3), 0)
    good = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}
    spelled_out, _ = repaired(guard, tensors | damaged, known=good)
    left_out, _ = repaired(guard, tensors | damaged, known={"half": good["half"]})
    assert same(left_out, spelled_out)


@pytest.mark.parametrize(
    "known",
    [
        {"other": torch.ones(3, dtype=torch.bool)},
        {"half": torch.ones(60, 70, dtype=torch.bool)},
        {"half": torch.ones(70, 60)},
    ],
)
def test_a_mask_that_does_not_fit_is_refused(known: Mapping[str, Tensor]) -> None:
    with pytest.raises(InvalidInput, match="mask"):
        gaussian_guard().check(gaussian(), known=known)


def test_a_weight_whose_upper_half_is_proven_is_off_by_its_bound_at_most() -> None:
    tensors = {"weight": gaussian()["wide.weight"]}
    guard = protect(tensors, budget=0.05, tiers=("digest", "parity"))
    assert guard.manifest.parity is not None
    assert guard.manifest.parity.width % 2 == 0  # lower and upper halves have codewords of their own
    damaged = copied(tensors)
    lower = damaged["weight"].view(torch.int16).view(-1, 2)[:, 0]
    lower[torch.rand(len(lower), generator=generator(0, "test damage")) < 0.2] ^= 12345
    result, report = repaired(guard, damaged)
    error = (result["weight"] - tensors["weight"]).abs().max()
    assert report.verdict == "bounded" and report.exit_code == 2
    assert 0 < error <= (report.tensors[0].bound or 0) < 0.1
    assert report.tensors[0].estimated == report.tensors[0].kept == 0


@pytest.mark.parametrize("damage", [Run(40_000, fill="zero"), Run(40_000)], ids=repr)
def test_repairing_what_could_only_be_estimated_again_changes_nothing_more(damage: Damage) -> None:
    tensors, guard = gaussian(), gaussian_guard()
    once, first = repaired(guard, broken(tensors, damage, 1)[0])
    twice, second = repaired(guard, once)
    assert first.exit_code == second.exit_code == 2
    assert same(twice, once)


# --- A rule, and a guard that lost some of itself -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["filters", "film"])
@pytest.mark.parametrize("damage", [WholeWeight(0.3), BitFlip(0.01), Run(9000, fill="zero")], ids=repr)
def test_a_rule_restores_most_of_what_no_code_can(damage: Damage, name: str) -> None:
    tensors, guard = smooth(), smooth_guard()
    part = {name: tensors[name]}
    damaged, faults = broken(part, damage, 0)
    result, report = repaired(guard, tensors | damaged)
    (tensor,) = (tensor for tensor in report.tensors if tensor.regions)
    assert tensor.name == name and tensor.method == "rule" and report.verdict == "estimated"
    assert tensor.expected_error is not None and tensor.expected_error < 1.1 * float(part[name].std())
    if not isinstance(damage, Run):
        lost = ~faults.known[name]
        error = (result[name] - part[name])[lost].square().mean()
        assert error < 0.25 * part[name][lost].square().mean()


def without(guard: Guard, tier: str) -> Guard:
    """The guard with one tier changed, and its own parity made anew so that it cannot mend it."""
    content = guard.to_bytes()
    start = content.index(guard.arrays[tier].tobytes())
    damaged = struck(content, slice(start, start + guard.arrays[tier].nbytes))
    width, check = container.geometry(len(content))
    data = np.frombuffer(damaged[: -2 * width * check], "<u2")
    rows = np.concatenate([data, np.zeros(-len(data) % width, np.uint16)]).reshape(-1, width)
    return Guard.from_bytes(data.tobytes() + ReedSolomon(check).feed(rows).tobytes())


@pytest.mark.parametrize("tier", ["parity", "digest.tiles", "digest.tensors", "statistics", "rule.2"])
def test_a_guard_that_lost_a_tier_does_without_and_says_so(tier: str) -> None:
    tensors, guard = (smooth(), smooth_guard()) if tier == "rule.2" else (gaussian(), gaussian_guard())
    guard = without(guard, tier)
    assert guard.lost == (tier,) and tier not in guard.arrays
    intact = guard.check(tensors)
    assert intact.verdict == "intact" and intact.guard_lost == (tier,) and tier in str(intact)
    damaged, _ = broken(tensors, WholeWeight(0.1), 0)
    result, report = repaired(guard, damaged)
    assert_sound(report, guard)
    left = different(result, tensors)
    proven = {
        name: ~(estimated | tiles_of(report, "lost")[name] | tiles_of(report, "bounded")[name])
        for name, estimated in tiles_of(report, "estimated").items()
    }
    assert report.exit_code == 2 and not any(left[name][proven[name]].any() for name in left)


# --- Other models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.1])
def test_a_fine_tuned_model_is_refused_untouched_unless_forced(scale: float) -> None:
    noise = generator(0, "test tuning")
    tuned = gaussian()
    for tensor in tuned.values():
        if tensor.dtype in FLOATS and tensor.numel():
            tensor += scale * tensor.double().std().item() * torch.randn(tensor.shape, generator=noise).to(tensor.dtype)
    tuned["half"] = tuned["half"] * 1.02
    before = copied(tuned)
    guard = gaussian_guard()
    for act in (guard.check, guard.repair):
        with pytest.raises(LooksDifferent, match="fine-tuned"):
            act(tuned)
    assert same(tuned, before)
    assert guard.check(tuned, force=True).exit_code == 2 and guard.repair(tuned, force=True).exit_code == 2
    for name in ("wide.weight", "half"):  # what looks right stays where nothing better is known
        assert (tuned[name] == before[name]).double().mean() > 0.99


@pytest.mark.parametrize("damage", [BitFlip(0.02), WholeWeight(0.3), WholeWeight(0.9)], ids=repr)
def test_a_heavily_damaged_model_is_not_taken_for_another(damage: Damage) -> None:
    damaged, _ = broken(gaussian(), damage, 0)
    assert gaussian_guard().check(damaged).exit_code == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "half"}, "'half' is missing"),
        (lambda tensors: tensors | {"new": torch.zeros(3)}, "'new' is not in the guard"),
        (lambda tensors: tensors | {"half": tensors["half"].t().contiguous()}, "half"),
        (lambda tensors: tensors | {"half": tensors["half"].half()}, "half"),
        (lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()}, "more"),
        (lambda tensors: {}, "missing"),
    ],
)
def test_a_model_of_other_names_types_or_shapes_is_refused_untouched(
    change: Callable[[Tensors], Tensors], told: str
) -> None:
    other = change(gaussian())
    before = copied(other)
    for force in (False, True):
        with pytest.raises(OtherModel, match=told):
            gaussian_guard().repair(other, force=force)
    assert same(other, before)


def test_tensors_may_come_in_any_order() -> None:
    reordered = dict(reversed(gaussian().items()))
    assert gaussian_guard().check(reordered).verdict == "intact"


def test_a_repair_that_does_not_verify_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged, _ = broken(gaussian(), WholeWeight(0.05), 0)
    before = copied(damaged)
    monkeypatch.setattr(repairing, "damaged_tiles", lambda guard, overlay, within: np.ones(guard.layout.tiles, bool))
    with pytest.raises(VerificationFailed):
        gaussian_guard().repair(damaged)
    assert same(damaged, before)


def test_progress_rises_to_its_total() -> None:
    damaged, _ = broken(gaussian(), WholeWeight(0.05), 0)
    for act, what in ((gaussian_guard().check, "check"), (gaussian_guard().repair, "repair")):
        calls: list[tuple[int, int, str]] = []
        act(damaged, progress=lambda *call, calls=calls: calls.append(call))
        done = [call[0] for call in calls]
        assert done == sorted(done) and done[-1] == calls[-1][1] and {call[2] for call in calls} == {what}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_of_every_kind_of_number_is_found_intact_and_estimated(dtype: torch.dtype, seed: int) -> None:
    tensors = {"wild": random_bits(dtype, 60, 70, seed=seed)}
    guard = protect(tensors, budget=0.3, tiers=("digest",))
    assert guard.check(tensors).verdict == "intact"
    result, report = repaired(guard, broken(tensors, WholeWeight(0.1), seed)[0])
    assert_sound(report, guard)
    assert report.exit_code == 2 and result["wild"].isfinite().any()


def test_numbers_past_the_range_of_float32_are_estimated() -> None:
    tensors = {"large": 1e100 * drawn(60, 70).double()}
    guard = protect(tensors, budget=0.3, tiers=("digest",))
    _, report = repaired(guard, broken(tensors, WholeWeight(0.1), 0)[0])
    assert report.verdict in ("estimated", "lost") and json.dumps(report.to_json(), allow_nan=False)


# --- Between bounds --------------------------------------------------------------------------------------------------


def test_between_bounds_the_mean_is_that_of_a_normal_variable() -> None:
    value = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.3, 0.3], dtype=torch.float64)
    low = torch.tensor([-1.0, 0.5, 0.2999, -torch.inf, 9.0, -torch.inf], dtype=torch.float64)
    high = torch.tensor([0.4, 2.0, 0.30005, 0.1, 9.5, torch.inf], dtype=torch.float64)
    found = _mean_within(value, 0.5, low, high)
    drawn_values = 0.3 + 0.5 * torch.randn(2_000_000, generator=generator(0, "normal"), dtype=torch.float64)
    for place in (0, 1, 3):
        inside = drawn_values[(drawn_values >= low[place]) & (drawn_values <= high[place])]
        assert float(found[place]) == pytest.approx(float(inside.mean()), abs=3e-3)
    assert float(found[2]) == pytest.approx(0.299975)
    assert found[4] == 0.3 and found[5] == pytest.approx(0.3), "what cannot be is for the bounds to clamp"
