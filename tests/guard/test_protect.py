"""Making a guard: what it costs, what is in it, and why."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import drawn, examples, smooth_sheets
from hypothesis import example, given
from hypothesis import strategies as st
from models import (
    KEY,
    PLAIN,
    SHORT,
    WITH_RULES,
    copied,
    gaussian,
    gaussian_guard,
    random_bits,
    same,
    smooth_guard,
    write,
)
from safetensors.torch import save, save_file
from torch import Tensor

from planaria.checkpoints.state_dict import DTYPES
from planaria.errors import InvalidFile, InvalidGuard, InvalidInput, PlanariaError, UntrustedGuard
from planaria.guard import Guard, protect

budgets = st.floats(0.001, 0.3) | st.floats(0.3, 1) | st.sampled_from([0.01, 0.02, 0.05, 1.0])
models = st.lists(
    st.tuples(
        st.sampled_from([dtype for dtype in DTYPES if dtype != torch.float4_e2m1fn_x2]),
        st.lists(st.integers(0, 40), max_size=3),
    ),
    max_size=8,
).map(
    lambda parts: {
        "large": drawn(50, 101),
        **{f"part {number}": random_bits(dtype, *shape) for number, (dtype, shape) in enumerate(parts)},
    }
)


def nbytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def needed(refusal: pytest.ExceptionInfo[InvalidInput]) -> tuple[int, float]:
    """The bytes and the percentage that a message says would do."""
    told = re.search(r"takes ([\d,]+) bytes, ([\d.e+]+) %", str(refusal.value))
    assert told is not None
    return int(told[1].replace(",", "")), float(told[2])


def tight(tensors: dict[str, Tensor], **options: Any) -> tuple[int, float]:
    """What the smallest guard takes."""
    with pytest.raises(InvalidInput, match="too small") as refusal:
        protect(tensors, budget=1e-6, **options)
    return needed(refusal)


@examples(20)
@given(model=models, budget=budgets, tiers=st.sampled_from([("digest",), PLAIN]), key=st.sampled_from([None, KEY]))
def test_the_saved_file_is_within_its_budget_and_counted_to_the_byte(
    model: dict[str, Tensor], budget: float, tiers: tuple[str, ...], key: bytes | None, tmp_path: Path
) -> None:
    try:
        guard = protect(model, budget=budget, tiers=tiers, key=key)
    except InvalidInput:
        return  # too small, as the next test has it
    guard.save(tmp_path / "guard")
    size = (tmp_path / "guard").stat().st_size
    assert size == guard.size == sum(guard.tier_bytes().values()) <= budget * nbytes(model)
    assert all(count >= 0 for count in guard.tier_bytes().values())
    loaded = Guard.load(tmp_path / "guard", key=key)
    assert (loaded.manifest.encode() == guard.manifest.encode()).all() and loaded.size == size
    assert loaded.to_bytes() == guard.to_bytes()


@given(model=models, tiers=st.sampled_from([("digest",), PLAIN]), key=st.sampled_from([None, KEY]))
@example(model={"good": smooth_sheets(60, 8, 8), "flat": torch.ones(30, 30)}, tiers=(*PLAIN, "rule"), key=None)
def test_too_small_a_budget_names_what_would_do_and_that_does(
    model: dict[str, Tensor], tiers: tuple[str, ...], key: bytes | None
) -> None:
    size, percent = tight(model, tiers=tiers, key=key)
    for budget in ((size + 0.5) / nbytes(model), percent / 100):
        if budget <= 1:
            guard = protect(model, budget=budget, tiers=tiers, key=key, schedule=SHORT)
            assert guard.size <= budget * nbytes(model)
            assert guard.check(model).verdict == "intact"


def test_most_of_a_budget_is_used() -> None:
    for budget in (0.05, 0.1, 0.2):
        guard = protect(gaussian(), budget=budget, tiers=PLAIN)
        assert guard.size > 0.95 * budget * nbytes(gaussian())
        assert guard.tier_bytes()["parity"] > 0.5 * guard.size


@pytest.mark.parametrize("tiers", [("digest",), PLAIN])
@pytest.mark.parametrize("key", [None, KEY])
def test_the_same_model_and_settings_give_the_same_guard(tiers: tuple[str, ...], key: bytes | None) -> None:
    one, other = (
        protect(gaussian(), budget=0.1, tiers=tiers, key=key, threads=threads).to_bytes() for threads in (1, 3)
    )
    assert one == other


def test_a_fit_leaves_the_model_and_the_random_numbers_of_others_alone_and_gives_the_same_guard_again() -> None:
    tensors = {"features": smooth_sheets(40, 8, 8), "last": torch.full((3,), float("nan"))}
    before, state = copied(tensors), torch.get_rng_state()
    one = protect(tensors, budget=0.4, tiers=WITH_RULES, schedule=SHORT, seed=5)
    assert same(tensors, before) and torch.equal(torch.get_rng_state(), state)
    torch.rand(9)
    assert (
        one.manifest.rules
        and protect(tensors, budget=0.4, tiers=WITH_RULES, schedule=SHORT, seed=5).to_bytes() == one.to_bytes()
    )


@pytest.mark.parametrize(
    ("tiers", "made"),
    [((), {"digest"}), (("digest",), {"digest"}), (("parity",), {"digest", "parity"}), (PLAIN, {"digest", "parity"})],
)
def test_the_tiers_asked_for_are_made_and_the_digest_always(tiers: tuple[str, ...], made: set[str]) -> None:
    guard = protect(gaussian(), budget=0.1, tiers=tiers)
    assert {tier for tier in ("digest", "parity", "rule") if guard.tier_bytes()[tier]} == made
    assert (guard.manifest.parity is not None) == ("parity" in made)
    assert guard.manifest.reasons == {"not asked for": list(range(len(gaussian())))}
    assert guard.check(gaussian()).verdict == "intact"


def test_rules_are_made_where_neighbours_tell_of_a_weight_and_nowhere_else() -> None:
    guard = smooth_guard()
    assert guard.manifest.reasons == {"neighbours tell less than 10% of a weight": [0]}
    pretrained, fitted = guard.manifest.rules
    assert (pretrained.tensor, pretrained.recipe, pretrained.precision) == (
        1,
        "sheet-1",
        "frozen",
    ) and "rule.1" not in guard.arrays
    assert fitted.tensor == 2 and guard.tier_bytes()["rule"] == guard.arrays["rule.2"].nbytes > 0
    for rule in (pretrained, fitted):
        assert rule.errors[0] < 0.5 and rule.errors[-1] == max(rule.errors) < 1


def test_every_tensor_without_a_rule_has_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {
        "noise": drawn(40, 40),
        "codes": torch.ones(20, 20, dtype=torch.int32),
        "bias": drawn(400),
        "steps": torch.tensor(1),
        "tiny": smooth_sheets(3, 8, 8),
        "flat": torch.full((30, 30), 0.5),
        "zero": torch.zeros(30, 30),
        "broken": smooth_sheets(20, 8, 8).index_fill(1, torch.tensor([3]), float("nan")),
        "beyond": 1e300 * smooth_sheets(20, 8, 8).double(),
        "large": smooth_sheets(20, 40, 40),
        "short": smooth_sheets(1, 24, 20).view(24, 20),
        "good": smooth_sheets(60, 8, 8),
    }
    monkeypatch.setattr("planaria.guard.rules.MOST_WORK", SHORT.iterations * SHORT.batch * SHORT.lengths[1] * 1000.0)
    guard = protect(tensors, budget=0.1, tiers=WITH_RULES, schedule=SHORT)
    names = list(tensors)
    reasons = {names[index]: reason for reason, indices in guard.manifest.reasons.items() for index in indices}
    assert {
        "noise": "neighbours tell less than 10% of a weight",
        "codes": "not a floating-point type",
        "bias": "fewer than 2 axes",
        "steps": "not a floating-point type",
        "tiny": "too small",
        "flat": "neighbours tell less than 10% of a weight",
        "zero": "neighbours tell less than 10% of a weight",
        "broken": "not all finite",
        "beyond": "not all finite",
        "large": "a fit would take more than two minutes",
        "short": "a rule would take more than a quarter of its bytes",
    }.items() <= reasons.items()
    listed = [index for indices in guard.manifest.reasons.values() for index in indices]
    listed += [rule.tensor for rule in guard.manifest.rules]
    assert sorted(listed) == list(range(len(names)))
    assert [names[rule.tensor] for rule in guard.manifest.rules] == ["good"]


@pytest.mark.parametrize(
    ("tensor", "extra", "reasons"),
    [
        (smooth_sheets(1, 60, 50).view(60, 50), 400, {"no room in the budget": [0]}),
        (
            smooth_sheets(60, 8, 8),
            100,
            {},
        ),  # of a pretrained rule the guard says what it is worth; so it would of reasons
    ],
    ids=["fitted", "frozen"],
)
def test_a_rule_that_the_budget_has_no_room_for_is_not_made(
    tensor: Tensor, extra: int, reasons: dict[str, list[int]]
) -> None:
    size, _ = tight({"good": tensor})
    guard = protect({"good": tensor}, budget=(size + extra) / tensor.nbytes, tiers=WITH_RULES, schedule=SHORT)
    assert guard.manifest.rules == () and guard.manifest.reasons == reasons


def test_progress_rises_to_its_total() -> None:
    calls: list[tuple[int, int, str]] = []
    protect(gaussian(), budget=0.1, tiers=PLAIN, progress=lambda *call: calls.append(call))
    assert all(0 <= done <= total for done, total, _ in calls)
    for part in ("digests", "parity"):
        reading = [(done, total) for done, total, what in calls if what == part]
        assert reading == sorted(reading) and reading[-1][0] == reading[-1][1]
    protect(gaussian(), budget=0.1, tiers=("digest", "rule"), progress=lambda *call: calls.append(call))
    assert {what for *_, what in calls} > {f"looking for structure in {name}" for name in gaussian()}


@pytest.mark.parametrize("tensors", [{}, {"nothing": torch.zeros(0, 3)}, {"a": torch.zeros(0), "b": torch.zeros(2, 0)}])
def test_a_model_without_weights_is_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(InvalidInput, match="no weights"):
        protect(tensors, budget=1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"budget": budget} for budget in (0.0, -0.1, 1.1, float("nan"), float("inf"))),
        *({"key": key} for key in (b"", bytes(31), bytes(33))),
        {"tiers": ("parity", "digests")},
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        protect(gaussian(), **({"budget": 0.1} | wrong))


def test_tensors_without_weights_and_constant_ones_are_protected_too() -> None:
    tensors = gaussian() | {"a": torch.zeros(0), "flat": torch.full((30, 30), 0.5), "z": torch.zeros(0, 4, 2)}
    guard = protect(tensors, budget=0.1, tiers=PLAIN)
    assert guard.check(tensors).verdict == "intact"
    assert [report.name for report in guard.check(tensors).tensors] == list(tensors)


@pytest.mark.parametrize(
    ("made", "given_", "error"),
    [(KEY, None, InvalidInput), (None, KEY, UntrustedGuard), (KEY, KEY[::-1], UntrustedGuard)],
)
def test_a_guard_answers_to_the_key_it_was_made_with_alone(
    made: bytes | None, given_: bytes | None, error: type[PlanariaError]
) -> None:
    content = protect(gaussian(), budget=0.1, tiers=("digest",), key=made).to_bytes()
    with pytest.raises(error, match="key"):
        Guard.from_bytes(content, key=given_)
    assert Guard.from_bytes(content, key=made).check(gaussian()).keyed == (made is not None)


def test_a_key_is_neither_stored_nor_shown() -> None:
    guard = protect(gaussian(), budget=0.1, tiers=PLAIN, key=KEY)
    assert KEY not in guard.to_bytes() and KEY.hex().encode() not in guard.to_bytes()
    assert repr(KEY) not in repr(guard) and KEY.hex() not in repr(guard)
    digests, others = (protect(gaussian(), budget=0.1, tiers=PLAIN, key=key).arrays for key in (KEY, KEY[::-1]))
    for name in ("digest.tensors", "digest.tiles"):
        assert (digests[name] != others[name]).any(1).all()


def test_a_file_and_its_tensors_have_guards_of_the_same_tiers(tmp_path: Path) -> None:
    tensors = {"a": drawn(60, 50), "b": drawn(90, seed=1)}
    of_file = protect(write(tmp_path, tensors), budget=0.2, tiers=("digest",))
    of_memory = protect(tensors, budget=0.2, tiers=("digest",))
    for name in ("digest.tensors", "digest.tiles", "statistics"):
        assert (of_file.arrays[name] == of_memory.arrays[name]).all()
    assert of_file.headers["model.safetensors"] == tmp_path.joinpath("model.safetensors").read_bytes()[:-12360]


def test_a_model_is_no_guard(tmp_path: Path) -> None:
    save_file(gaussian(), tmp_path / "model.safetensors")
    with pytest.raises(InvalidGuard):
        Guard.load(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        Guard.load(tmp_path / "nothing")


@examples(10)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_guard_with_a_flipped_bit_loads_as_it_was(place: float, bit: int) -> None:
    content = gaussian_guard().to_bytes()
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= 1 << bit
    guard = Guard.from_bytes(bytes(damaged))
    assert guard.to_bytes() == content and guard.lost == () and guard.mended <= 1


def test_a_file_that_changes_while_it_is_protected_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"weight": torch.zeros(200, 200)}))

    def meddle(done: int, total: int, what: str) -> None:
        path.write_bytes(save({"weight": torch.ones(200, 200)}))

    with pytest.raises(InvalidFile, match="changed while it was being protected"):
        protect(path, budget=0.1, tiers=("digest", "parity"), progress=meddle)
