"""Guards and models that an attacker made are refused in one line, or do no harm. Made by `attacks/`."""

import importlib.util
import os
import subprocess
import sys
import time
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from planaria import command_line
from planaria.errors import InvalidGuard
from planaria.guard import Guard, Report, protect

ATTACKS = Path(__file__).parents[2] / "attacks"
_spec = importlib.util.spec_from_file_location("hostile_guards", ATTACKS / "hostile_guards.py")
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

# Few of what takes an automaton or a long code, many of what is refused at once.
COUNTS = dict.fromkeys(hostile.RAW, 1100) | dict.fromkeys(hostile.FORGED, 200)
COUNTS |= {"flipped bits": 600, "a run of bytes overwritten": 800, "cut short": 1800, "bytes removed or inserted": 1800}
COUNTS |= {"a huge parity": 80, "a rule of other numbers": 60, "digests and parity of no model": 100}
COUNTS |= {"statistics that are no numbers": 100}
SAMPLE = 8
VICTIMS = [hostile.damaged(how) for how in range(3)]


@cache
def good_guard(rule: bool) -> Guard:
    return hostile.good_guard(rule=rule)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """What is compiled or made on first use costs its time and memory here."""
    good_guard(True).check(VICTIMS[2])


def made(name: str, seed: int) -> bytes:
    guard = good_guard("rule" in name or seed % 10 == 0)
    if name in hostile.RAW:
        return hostile.RAW[name](guard.to_bytes(), np.random.default_rng(seed))
    return hostile.forge(guard, hostile.FORGED[name], seed)


def judged(name: str, seed: int) -> str:
    try:
        return hostile.outcome(made(name, seed), VICTIMS[seed % 3])
    except hostile.Misbehaved as error:
        return f"seed {seed}: {error}"


def test_ten_thousand_files_are_made() -> None:
    assert sum(COUNTS.values()) >= 10_000


@pytest.mark.parametrize("every", [pytest.param(4, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", COUNTS)
def test_a_hostile_guard_is_refused_in_one_line_or_does_no_harm(name: str, every: int, unchecked: None) -> None:
    answers = [judged(name, seed) for seed in range(0, COUNTS[name], every)]
    assert [answer for answer in answers if not answer.startswith(("refused: ", "harmless: "))] == []
    assert any(answer.startswith("refused: ") for answer in answers)


@pytest.mark.parametrize("name", COUNTS)
def test_a_hostile_guard_takes_no_more_memory_than_its_size_and_the_models(
    name: str, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    monkeypatch.setattr(hostile, "SECONDS", 60.0)  # counting memory takes time
    size = sum(tensor.nbytes for tensor in VICTIMS[0].values())
    for seed in range(SAMPLE):
        content = made(name, seed)
        tracemalloc.start()
        try:
            hostile.outcome(content, VICTIMS[seed % 3])
            assert tracemalloc.get_traced_memory()[1] < 64 * (size + len(content)), seed
        finally:
            tracemalloc.stop()


def test_the_same_seed_makes_the_same_file() -> None:
    assert all(made(name, seed) == made(name, seed) for name in COUNTS for seed in range(2))


def test_the_judge_of_these_tests_is_not_lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    content, victim = good_guard(False).to_bytes(), VICTIMS[0]
    assert hostile.outcome(content, victim).startswith("harmless: 1 of 7")
    assert hostile.outcome(content[:50], victim).startswith("refused")

    def failing(error: Exception) -> None:
        monkeypatch.setattr(Guard, "from_bytes", lambda *_, **__: (_ for _ in ()).throw(error))

    failing(KeyError("headers"))
    with pytest.raises(hostile.Misbehaved, match="KeyError"):
        hostile.outcome(content, victim)
    failing(InvalidGuard("two\nlines"))
    with pytest.raises(hostile.Misbehaved, match="not one line"):
        hostile.outcome(content, victim)
    monkeypatch.undo()
    monkeypatch.setattr(
        Guard,
        "check",
        lambda self, model, **_: (model["matrix"].zero_(), Report(action="check", tensors=(), tile=64))[1],
    )
    with pytest.raises(hostile.Misbehaved, match="a check changed the model"):
        hostile.outcome(content, victim)
    monkeypatch.setattr(hostile, "SECONDS", 0.1)
    monkeypatch.setattr(Guard, "check", lambda *_, **__: time.sleep(20))
    with pytest.raises(hostile.Misbehaved, match=r"more than 0\.1 s"):
        hostile.outcome(content, victim)


@pytest.mark.parametrize(
    "count", [pytest.param(100, marks=pytest.mark.slow), pytest.param(250, marks=pytest.mark.long)]
)
def test_a_model_with_a_hostile_header_is_refused_or_made_loadable(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # most of the time
    path, output = tmp_path / "model.safetensors", tmp_path / "repaired.safetensors"
    save_file(hostile.model(), path)
    content, guard = path.read_bytes(), hostile.good_guard(path)
    header = int.from_bytes(content[:8], "little") + 8
    answers = []
    for seed in range(count):
        draw = np.random.default_rng(seed)
        for broken in (
            hostile.rewrite_the_header(content, draw),
            hostile.flip_bits(content[:header], draw, most=30) + content[header:],
            hostile.cut_short(content, draw),
            int(draw.integers(0, 2**63)).to_bytes(8, "little") + content[8:],
        ):
            path.write_bytes(broken)
            answers.append(hostile.outcome_on_disk(guard, path, output).split(":")[0])
    assert set(answers) == {"refused", "harmless"} and len(answers) == 4 * count


@pytest.mark.parametrize("name", hostile.OUTSIDE, ids=lambda name: ascii(name)[:20])
def test_names_of_files_lead_nowhere_outside_the_folder(name: str, tmp_path: Path, unchecked: None) -> None:
    shards = hostile.write_shards(tmp_path / "in" / "shards")
    guard = hostile.good_guard(shards)
    (tmp_path / "secret").write_text("not yours")
    (tmp_path / "out").mkdir()
    try:
        forged = hostile.with_a_shard_called(guard, name)
    except InvalidGuard as error:
        hostile.one_line(error)
    else:
        hostile.outcome_on_disk(forged, shards, tmp_path / "out" / "repaired")
        hostile.outcome_on_disk(forged, shards / "part-1.safetensors", tmp_path / "out" / "one.safetensors")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.parent != shards) == [
        "in",
        "out",
        "secret",
        "shards",
    ]


def test_a_shard_that_is_a_link_is_never_opened_to_write_and_another_output_leaves_what_it_leads_to(
    tmp_path: Path, unchecked: None
) -> None:
    shards = hostile.write_shards(tmp_path / "shards")
    guard = protect(shards, budget=0.3, tiers=("digest", "parity"))
    target = (shards / "part-1.safetensors").rename(tmp_path / "target.safetensors")
    content = target.read_bytes()
    broken = content[:-1] + bytes([content[-1] ^ 1])
    target.write_bytes(broken)
    (shards / "part-1.safetensors").symlink_to(target)
    assert hostile.outcome_on_disk(guard, shards, tmp_path / "repaired").startswith("harmless: 1 of")
    assert target.read_bytes() == broken
    (tmp_path / "other").hardlink_to(target)
    guard.repair(shards, in_place=True)
    assert (shards / "part-1.safetensors").is_symlink() and target.read_bytes() == content
    assert (tmp_path / "other").read_bytes() == broken  # a copy took its place


@pytest.mark.parametrize("name", COUNTS)
def test_the_command_line_answers_a_hostile_guard_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unchecked: None
) -> None:
    file = tmp_path / "hostile.guard"
    for seed in range(SAMPLE):
        file.write_bytes(made(name, seed))
        monkeypatch.setattr(sys, "argv", ["planaria", "inspect", str(file), "--json"])
        with pytest.raises(SystemExit) as done:
            command_line.main()
        said = capsys.readouterr()
        assert done.value.code in (0, 3, 4)
        assert (len(said.out.splitlines()), len(said.err.splitlines())) == ((1, 0) if done.value.code == 0 else (0, 1))
        assert (said.out + said.err).rstrip("\n").isprintable()


def test_the_attacks_of_the_readme_run_and_end_as_it_says() -> None:
    done = subprocess.run(
        [sys.executable, ATTACKS / "run.py", "2"], capture_output=True, text=True, timeout=300, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "0 misbehaved", done.stdout + done.stderr
    stopped_by_nothing = [line.split(":")[0] for line in lines if ": NOT STOPPED" in line]
    assert stopped_by_nothing == ["a guard of other weights where there is no key", "a guard with the stolen key"]
    told = {line.split(" | ")[0].removeprefix("| ") for line in (ATTACKS / "README.md").read_text().splitlines()}
    assert {line.split(":")[0] for line in lines[:-1] if not line.startswith("a shard called")} <= told
