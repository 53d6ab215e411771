"""The campaigns on guards, on models small enough for a test."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import drawn, same_bits
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import Tensor

from planaria import streams
from planaria.checkpoints import open_checkpoint
from planaria.errors import DataNotFound, InvalidFile, InvalidInput, LooksDifferent
from planaria.guard import Guard, Report, TensorReport, protect
from planaria_lab import command_line
from planaria_lab.bench import guard, guard_campaign, guard_memory, guard_speed, guard_subjects, guard_tables, par2
from planaria_lab.bench.statistics import median, proportion

TENSORS = {
    "encoder.weight": drawn(128, 192),
    "encoder.scale": drawn(100, 301, seed=1).bfloat16(),
    "steps": torch.arange(300),
    "flags": torch.arange(77) % 3 == 0,
}
SETTINGS = guard.GuardSettings(
    campaigns=2,
    seed=0,
    repeats=1,
    pairs=2,
    gigabytes=0.001,
    guards=[
        {
            "models": [guard_subjects.MINILM],
            "budgets": [0.02, 0.03],
            "damages": ["1 weight", "50 % of encoder.weight erased"],
        }
    ],
)
plain = partial(protect, tiers=("digest", "parity"))


def quiet(*told: object) -> None:
    pass


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_file(TENSORS, file)
    return file


@pytest.fixture(scope="module")
def subject(file: Path) -> guard_subjects.GuardSubject:
    with open_checkpoint(file) as checkpoint:
        return guard_subjects.GuardSubject("small", file, {name: TENSORS[name] for name in checkpoint.entries}, None)


@pytest.fixture(scope="module")
def guarding(file: Path) -> Guard:
    return plain(file, budget=0.03)


@pytest.fixture
def small(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model in the place of all-MiniLM-L6-v2, no rules, and a small encoder."""
    monkeypatch.setattr(guard_subjects, "model_file", lambda name: file)
    monkeypatch.setattr(guard, "protect", plain)
    sizes = {"WORDS": 1000, "WIDTH": 16, "HEADS": 2, "INNER": 32, "LAYERS": 1, "BATCH": 1, "TOKENS": 4, "BUDGET": 0.03}
    for name, size in sizes.items():
        monkeypatch.setattr(guard_speed, name, size)
    monkeypatch.setattr(guard_speed, "SECONDS", 0.02)
    monkeypatch.setattr(guard_memory, "TINY", 300_000)
    monkeypatch.setattr(guard_memory, "peak_memory", guard_memory._perform)


class Lying:
    """A guard whose repair does something else than it reports: by default nothing, and that all is intact."""

    size = 4_800

    def __init__(self, do: Callable[[Mapping[str, Tensor]], object] = quiet, refuses: bool = False):
        self.do, self.refuses = do, refuses

    def tier_bytes(self) -> dict[str, int]:
        return {"digest": self.size}

    def repair(self, model: Mapping[str, Tensor], *, known: object, force: bool = False) -> Report:
        if self.refuses and not force:
            raise LooksDifferent("It looks fine-tuned.")
        self.do(model)
        tensors = [
            TensorReport(name=name, dtype="?", shape=tuple(one.shape), nbytes=one.nbytes, tiles=9)
            for name, one in model.items()
        ]
        return Report(action="repair", tensors=tensors, tile=4096)


def attacked(
    subject: guard_subjects.GuardSubject, by: Any, damage: str, *, runs: int = 3, seed: int = 0
) -> dict[str, Any]:
    result = guard_campaign.campaign(subject, by, damage, runs=runs, seed=seed, tell=quiet)
    return json.loads(json.dumps(result, allow_nan=False))


@pytest.mark.parametrize("damage", ["1 bit", "10 weights", "bit error rate 1e-5", "run of 1 KiB"])
def test_damage_that_the_parity_covers_is_seen_and_restored_in_every_run(
    subject: guard_subjects.GuardSubject, guarding: Guard, damage: str
) -> None:
    found = attacked(subject, guarding, damage)
    assert found["restored"]["guard"]["count"] == found["restored"]["guard"]["of"] == 3
    assert found["exact"]["guard"]["minimum"] == 1 and found["error"]["guard"] == 0
    assert found["unseen"] == found["silent"] == found["refused"] == 0
    assert sum(found["tiers"].values()) == found["guard_bytes"] == guarding.size <= 0.03 * subject.nbytes


def test_damage_past_the_parity_is_counted_as_inexact_and_never_as_silent(
    subject: guard_subjects.GuardSubject, guarding: Guard
) -> None:
    found = attacked(subject, guarding, "bit error rate 2e-2")
    assert found["restored"]["guard"]["count"] == 0 and found["exact"]["guard"]["mean"] < 1
    assert found["unseen"] == found["silent"] == 0
    assert 0 < found["error"]["guard"] < 2
    assert found["error"]["unrepaired"] is None or found["error"]["unrepaired"] > 1e3


def test_a_campaign_leaves_the_model_alone_and_repeats_itself(
    subject: guard_subjects.GuardSubject, guarding: Guard
) -> None:
    before = {name: tensor.clone() for name, tensor in subject.tensors.items()}
    one, other, third = (attacked(subject, guarding, "run of 20 KiB", seed=seed) for seed in (0, 0, 1))
    assert all(same_bits(tensor, before[name]) for name, tensor in subject.tensors.items())
    for found in (one, other, third):
        del found["seconds"], found["runs"]["seconds"], found["seed"]
    assert one == other != third


def test_damage_that_a_guard_neither_repairs_nor_reports_is_told(subject: guard_subjects.GuardSubject) -> None:
    found = attacked(subject, Lying(), "7 weights")
    assert found["unseen"] == found["silent"] == 3 * 7
    assert found["restored"]["guard"]["count"] == 0 and found["exact"]["guard"]["mean"] == 0
    assert found["error"]["guard"] == found["error"]["unrepaired"]


def test_a_repair_that_breaks_another_weight_restores_nothing(subject: guard_subjects.GuardSubject) -> None:
    def wrong_repair(model: Mapping[str, Tensor]) -> None:
        for name, tensor in model.items():
            tensor.copy_(subject.tensors[name])
        model["encoder.weight"][5, 5] += 1

    found = attacked(subject, Lying(wrong_repair), "1 weight")
    assert found["restored"]["guard"]["count"] == 0 and found["silent"] == 3 and found["unseen"] == 3


def test_a_repair_that_had_to_be_forced_is_told(subject: guard_subjects.GuardSubject) -> None:
    assert attacked(subject, Lying(refuses=True), "1 weight")["refused"] == 3


def test_erased_weights_that_are_known_are_those_that_are_not(
    subject: guard_subjects.GuardSubject, guarding: Guard
) -> None:
    unknown, known = (
        attacked(subject, guarding, f"50 % of encoder.weight erased{how}", runs=1) for how in ("", ", known")
    )
    assert known["weights"] == unknown["weights"] == 128 * 192 / 2
    assert known["error"]["unrepaired"] == unknown["error"]["unrepaired"] == pytest.approx(0.5**0.5, abs=0.02)
    assert known["silent"] == known["unseen"] == 0


@pytest.mark.slow
def test_without_a_rule_a_network_is_as_accurate_as_one_whose_erased_weights_are_zero() -> None:
    tiny = guard_subjects.load_subject("TinyMLP A")
    found = attacked(tiny, plain(tiny.file, budget=0.03), "50 % of fc1.weight erased, known", runs=2)
    accuracy = found["accuracy"]
    assert accuracy["intact"] == pytest.approx(96.72, abs=0.01)
    assert accuracy["guard"] == accuracy["unrepaired"] == accuracy["par2"]
    assert accuracy["guard"]["mean"] < accuracy["intact"]


@given(nbytes=st.integers(1, 10**8), share=st.floats(0.001, 0.3))
def test_every_choice_of_par2_keeps_to_its_bytes_and_its_number_of_blocks(nbytes: int, share: float) -> None:
    allowed = int(share * nbytes)
    for one in par2.Blocks.choices(nbytes, allowed):
        assert one.size % 4 == 0 and one.size * (one.count - 1) < nbytes <= one.size * one.count
        assert 1 <= one.count <= par2.PAR2_MOST_BLOCKS and one.recovery >= 1
        assert one.nbytes <= allowed < one.nbytes + par2.PAR2_RECOVERY + one.size


@pytest.mark.parametrize("damage", ["30 weights", "bit error rate 1e-3", "run of 3 KiB", "0 bits"])
def test_broken_blocks_are_those_whose_bytes_differ(subject: guard_subjects.GuardSubject, damage: str) -> None:
    faults = guard_subjects.drawn(damage, subject.tensors, streams.generator(0, damage))
    model = faults.replay(subject.tensors)

    def content(tensors: Mapping[str, Tensor]) -> bytes:
        return b"".join(tensors[name].view(torch.uint8).numpy().tobytes() for name in subject.tensors)

    intact, broken = content(subject.tensors), content(model)
    choices = [par2.Blocks(size, -(-subject.nbytes // size), 1) for size in (4, 52, 1000, 2**17)]
    for size, count in par2.broken_blocks(subject, faults, choices).items():
        starts = range(0, len(intact), size)
        assert count == sum(intact[at : at + size] != broken[at : at + size] for at in starts)


def test_par2_recovers_as_many_blocks_as_it_has_and_else_nothing(subject: guard_subjects.GuardSubject) -> None:
    few, many = (attacked(subject, Lying(), damage) for damage in ("1 weight", "5000 weights"))
    assert few["restored"]["par2"]["count"] == 3 and few["error"]["par2"] == 0
    assert many["restored"]["par2"]["count"] == 0 and many["exact"]["par2"]["mean"] == 0
    assert many["error"]["par2"] == many["error"]["unrepaired"]
    assert few["par2"]["nbytes"] <= few["guard_bytes"]


def test_the_real_par2_does_as_its_rule_says_or_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = par2.par2_rule(tell=quiet)
    if found["program"] is not None:
        assert all(case["as_modelled"] for case in found["cases"])
        assert {case["recovered"] for case in found["cases"]} == {True, False}
    monkeypatch.setattr(par2.shutil, "which", lambda *_, **__: None)
    assert par2.par2_rule(tell=quiet) == {"program": None}
    assert "no par2 is installed" in guard_tables._rule_table({"program": None})


def test_false_alarms_are_counted_by_the_way_to_the_model(
    subject: guard_subjects.GuardSubject, guarding: Guard
) -> None:
    assert set(guard_campaign.false_alarms(subject, guarding, checks=2, tell=quiet)["alarms"].values()) == {0}
    flipped = subject.tensors | {"flags": ~subject.tensors["flags"]}
    found = guard_campaign.false_alarms(replace(subject, tensors=flipped), guarding, checks=2, tell=quiet)
    assert found["alarms"] == {"file": 0, "module": 2, "state dict": 2}


def test_a_module_of_tensors_has_them_as_its_state_dict() -> None:
    state = guard_subjects.module_of(TENSORS).state_dict()
    assert state.keys() == TENSORS.keys()
    assert all(state[name].data_ptr() == tensor.data_ptr() for name, tensor in TENSORS.items())


def test_every_damage_that_comes_with_the_package_is_understood() -> None:
    settings = guard.GuardSettings.packaged()
    assert settings.campaigns >= 100
    tensors = {"fc1.weight": drawn(300, 400)}
    for damage in {damage for group in settings.guards for damage in group["damages"]}:
        faults = guard_subjects.drawn(damage, tensors, streams.generator(0, damage)).tensors["fc1.weight"]
        if "weight" in damage.split()[1]:
            assert len(faults.index) == int(damage.split()[0])
        if damage.endswith(("erased", "known")):
            assert len(faults.index) == float(damage.split()[0]) / 100 * 120_000
    with pytest.raises(InvalidInput, match="all weights of it"):
        guard_subjects.drawn("all weights of it", tensors, streams.generator(0, ""))


def test_a_model_that_is_not_installed_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_subjects.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataNotFound, match=r"planaria-lab\[bench\]"):
        guard_subjects.model_file(guard_subjects.MINILM)
    for unknown in ("TinyMLP Z", "another"):
        with pytest.raises(InvalidInput, match=unknown[-1]):
            guard_subjects.model_file(unknown)
    assert load_file(guard_subjects.model_file("TinyMLP B"))["fc1.weight"].shape == (128, 784)


@pytest.mark.usefixtures("small")
def test_a_run_in_parts_is_a_run_of_all_and_has_a_line_for_each_damage() -> None:
    calls: list[tuple[int, int, str]] = []
    first = guard.run(SETTINGS, only="campaign", progress=lambda *told: calls.append(told))
    assert len(first["points"]) == 4 and calls[-1] == (4, 4, "done")
    whole = guard.run(SETTINGS, only="alarms", earlier=first, progress=quiet)
    assert list(whole["points"]) == [name for name in guard.points(SETTINGS) if name[:6] in ("campai", "alarms")]
    assert all(whole["points"][name] is point for name, point in first["points"].items())
    whole = json.loads(json.dumps(whole, allow_nan=False))
    assert all({"commit", "time", "machine"} <= point["provenance"].keys() for point in whole["points"].values())
    written = guard_tables.tables(whole)
    assert written.count("| 1 weight | 1 | 2 of 2 (34.2 to 100.0 %) | 100.00 % (100.00 %) | 0 | 0 |") == 2
    assert written.count("| 50 % of encoder.weight erased |") == 4
    assert written.count("| 0 of 2 | 0 of 2 | 0 of 2 |") == 2
    assert "| 1 weight | 1 | 2 of 2 | 2 of 2 | 100.00 % | 0 | 0 of 2 |" in guard_tables.overview(whole)
    with pytest.raises(InvalidInput, match="'nothing'"):
        guard.run(SETTINGS, only="nothing", progress=quiet)


@pytest.mark.long
@pytest.mark.usefixtures("small")
def test_speed_scrubber_and_memory_are_measured_and_written() -> None:
    result: dict[str, Any] = {"points": {}}
    for name in ("speed", "scrubber", "memory"):
        result = guard.run(SETTINGS, only=name, earlier=result, progress=quiet)
    result = json.loads(json.dumps(result, allow_nan=False))
    speed, scrubber, memory = (result["points"][name] for name in ("speed", "scrubber", "memory"))
    assert all(act["seconds"]["median"] > 0 and len(act["runs"]) == 1 for act in speed["acts"].values())
    assert scrubber["tiles"] > 0 and scrubber["false_alarms"] == 0 and scrubber["last_error"] is None
    assert scrubber["overhead"]["count"] == 2 and scrubber["overhead"]["median"] < 1
    assert memory["guard_bytes"] <= guard_memory.BUDGET * memory["nbytes"]
    assert all(peak["peak"] >= peak["tiny"] > 0 for peak in memory["peaks"].values())
    written = guard_tables.tables(result)
    for title in ("**Speed**", "**Scrubber**", "**Memory**", "| protect |", "Measured with planaria"):
        assert title in written


@pytest.mark.long
def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    guard_memory.make_sharded_checkpoint(tmp_path / "model", 4_000_000)
    del (lambda size: [b"x" * size])(2**30)[:]
    assert 4_000_000 < guard_memory.peak_memory("protect", tmp_path) < 2**30


@pytest.mark.parametrize("nbytes", [3_000, 1_000_000])
def test_a_made_checkpoint_has_its_size_and_repeats_itself(tmp_path: Path, nbytes: int) -> None:
    made, again, other = (
        guard_memory.make_sharded_checkpoint(tmp_path / name, nbytes, seed=seed)
        for name, seed in (("one", 0), ("two", 0), ("three", 1))
    )
    assert made == again == other and nbytes <= made.nbytes < nbytes + made.largest + 1
    with open_checkpoint(tmp_path / "one") as checkpoint:
        sizes = [entry.nbytes for entry in checkpoint.entries.values()]
        assert {entry.dtype for entry in checkpoint.entries.values()} == {"BF16", "F32"}
    assert sum(sizes) == made.nbytes and max(sizes) == made.largest <= nbytes / 8
    contents = [[(path.name, path.read_bytes()) for path in sorted((tmp_path / of).iterdir())] for of in ("one", "two")]
    assert contents[0] == contents[1] != [(p.name, p.read_bytes()) for p in sorted((tmp_path / "three").iterdir())]


def test_a_large_checkpoint_is_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_memory, "SHARD", 300_000)
    made = guard_memory.make_sharded_checkpoint(tmp_path / "model", 1_000_000)
    assert made.shards == len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    with open_checkpoint(tmp_path / "model") as checkpoint:
        assert sum(entry.nbytes for entry in checkpoint.entries.values()) == made.nbytes


@pytest.mark.usefixtures("small")
def test_the_command_adds_to_what_is_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.GuardSettings, "packaged", classmethod(lambda cls: replace(SETTINGS, campaigns=100)))

    def planaria(*more: str) -> int:
        command = ["planaria-lab", "bench", "guard", "--output", str(tmp_path), "--campaigns", "2", *more]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            command_line.main()
        return int(stopped.value.code or 0)

    assert planaria("--only", " 2 %, 1 weight") == planaria("--only", " 3 %, 1 weight") == 0
    result = json.loads((tmp_path / "guard.json").read_text())
    assert list(result["points"]) == [f"campaign: {guard_subjects.MINILM}, {budget} %, 1 weight" for budget in (2, 3)]
    assert all(point["restored"]["guard"]["of"] == 2 for point in result["points"].values())
    assert (tmp_path / "guard.md").read_text() == guard_tables.tables(result)
    (tmp_path / "guard.json").write_text("[]")
    assert planaria("--only", "1 weight") == 6


def test_another_file_is_not_added_to(tmp_path: Path) -> None:
    assert guard.earlier(tmp_path) is None
    for content in ("{", "[]", '{"points": []}', "{}"):
        (tmp_path / "guard.json").write_text(content)
        with pytest.raises(InvalidFile, match=r"guard\.json"):
            guard.earlier(tmp_path)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_interval_of_a_proportion_is_wilsons(outcomes: list[bool]) -> None:
    found, of, z = proportion(outcomes), len(outcomes), 1.959963984540054
    share = sum(outcomes) / of
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    assert (found.count, found.of) == (sum(outcomes), of)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60, unique=True))
def test_the_interval_of_a_median_is_the_narrowest_between_measurements_that_holds_95_percent(
    values: list[float],
) -> None:
    found, count, ordered = median(values), len(values), sorted(values)
    assert found.median == pytest.approx(float(np.median(values))) and found.count == count
    # That many measurements lie below the median, by chance: those cut off on either side.
    cut = [sides for sides in range(count // 2) if 2 * stats.binom.cdf(sides, count, 0.5) < 0.05]
    if not cut:
        assert found.low is found.high is None
    else:
        assert (found.low, found.high) == (ordered[cut[-1]], ordered[-1 - cut[-1]])
