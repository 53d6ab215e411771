"""The command of the laboratory as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from planaria.errors import DataNotFound, InvalidInput
from planaria.fit import Schedule
from planaria_lab import command_line
from planaria_lab.bench import engine, repair_table
from planaria_lab.bench.experiment import Experiment

TINY = Experiment(networks=("A",), rates=(0.5, 0.9), masks=2, fits=1, seed=0)


class Outcome:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    def is_one_line_without_a_traceback(self) -> bool:
        return self.err.count("\n") == 1 and self.err.startswith("planaria-lab: ") and "Traceback" not in self.err


@pytest.fixture
def planaria_lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `planaria-lab ARGUMENTS` in this process."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["planaria-lab", *arguments])
        with pytest.raises(SystemExit) as stopped:
            command_line.main()
        said = capsys.readouterr()
        return Outcome(stopped.value.code, said.out, said.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "listed"), [(["--help"], ["demo", "bench"]), (["bench", "--help"], ["tinymlp", "engine"])]
)
def test_help_lists_the_commands(arguments: list[str], listed: list[str], planaria_lab) -> None:
    outcome = planaria_lab(*arguments)
    assert outcome.code == 0
    assert all(command in outcome.out for command in listed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["regrow"],
        ["bench", "regrow"],
        ["--verbose"],
        ["demo", "--colour"],
        ["demo", "surplus"],
        ["--threads", "0", "demo"],
        ["--threads", "many", "demo"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_three(arguments: list[str], planaria_lab) -> None:
    outcome = planaria_lab(*arguments)
    assert outcome.code == 3
    assert outcome.is_one_line_without_a_traceback()
    assert outcome.out == ""


def test_a_fresh_process_answers_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from planaria_lab.command_line import main; main()", "regrow"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 3
    assert Outcome(3, done.stdout, done.stderr).is_one_line_without_a_traceback()


@pytest.mark.parametrize("command", [["demo"], ["bench", "tinymlp"], ["bench", "engine"]])
def test_an_output_folder_that_cannot_be_made_is_exit_code_six(
    command: list[str], tmp_path: Path, planaria_lab
) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = planaria_lab(*command, "--output", str(tmp_path / "file" / "results"))
    assert outcome.code == 6
    assert outcome.is_one_line_without_a_traceback()
    assert "Cannot make the folder" in outcome.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"networks = [", "is not TOML"),
        (b"masks = 3\n", "exactly"),
        (b"\xff\xfe", "Cannot read the experiment"),
        (None, "Cannot read the experiment"),
        (b'networks = "A"\nrates = [0.5]\nmasks = 1\nfits = 1\nseed = 0\n', "is not of the kind"),
    ],
)
def test_a_broken_experiment_is_exit_code_six(content: bytes | None, told: str, tmp_path: Path, planaria_lab) -> None:
    path = tmp_path / "experiment.toml"
    if content is not None:
        path.write_bytes(content)
    outcome = planaria_lab("bench", "tinymlp", "--experiment", str(path), "--output", str(tmp_path / "results"))
    assert outcome.code == 6
    assert outcome.is_one_line_without_a_traceback()
    assert told in outcome.err and str(path) in outcome.err
    assert not (tmp_path / "results").exists()


def test_an_experiment_outside_its_limits_is_exit_code_three(tmp_path: Path, planaria_lab) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text('networks = ["C"]\nrates = [0.5]\nmasks = 1\nfits = 1\nseed = 0\n')
    outcome = planaria_lab("bench", "tinymlp", "--experiment", str(path), "--output", str(tmp_path / "results"))
    assert outcome.code == 3
    assert outcome.is_one_line_without_a_traceback()
    assert "Unknown network 'C'" in outcome.err


@pytest.mark.parametrize("name", ["[a]", "[red]", "a[", "[0]"])
def test_brackets_in_a_message_stay_as_they_are(name: str, tmp_path: Path, planaria_lab) -> None:
    outcome = planaria_lab("bench", "tinymlp", "--experiment", str(tmp_path / f"{name}.toml"))
    assert outcome.code == 6
    assert f"{name}.toml" in outcome.err


def test_a_message_with_a_closing_tag_is_still_a_message(planaria_lab) -> None:
    outcome = planaria_lab("bench", "tinymlp", "--experiment", "a[/b].toml")
    assert outcome.code == 6
    assert "a[/b].toml" in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InvalidInput("so\n  so"), 3, "planaria-lab: so so\n"),
        (DataNotFound("where"), 6, "planaria-lab: where\n"),
        (OSError(28, "No space left on device"), 6, "No space left on device"),
        (KeyboardInterrupt(), 130, ""),  # the parser ends it, in silence
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, told: str, tmp_path: Path, planaria_lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**settings: object) -> None:
        raise error

    monkeypatch.setattr(engine, "run", fail)
    outcome = planaria_lab("bench", "engine", "--output", str(tmp_path))
    assert outcome.code == code
    assert told in outcome.err and "Traceback" not in outcome.err


def test_a_bug_is_not_hidden(tmp_path: Path, planaria_lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**settings: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "run", fail)
    with pytest.raises(ZeroDivisionError):
        planaria_lab("bench", "engine", "--output", str(tmp_path))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments and fits of a few seconds."""
    monkeypatch.setattr(Experiment, "packaged", classmethod(lambda cls, name: TINY))
    schedule = Schedule(iterations=3, lengths=(4, 4), check_every=2, long_rollout=1)
    monkeypatch.setattr(Schedule, "of", staticmethod(lambda recipe: schedule))


PICTURES = ["regrown.png", "gallery.png", "loss.png", "recovery_a.png", "rollout.gif"]


@pytest.mark.slow
def test_the_demo_writes_pictures_and_numbers(tiny: None, unchecked: None, tmp_path: Path, planaria_lab) -> None:
    outcome = planaria_lab("demo", "--output", str(tmp_path / "demo"))
    assert outcome.code == 0
    assert "| default recipe |" in outcome.out and "| kriging |" in outcome.out
    folder = tmp_path / "demo"
    assert {path.name for path in folder.iterdir()} == {*PICTURES, "demo.json", "demo.md"}
    assert all(str(path) in outcome.err for path in folder.iterdir())
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            picture.load()
            assert min(picture.size) > 50
            assert getattr(picture, "n_frames", 1) > 1 or name.endswith(".png")
    check_result(json.loads((folder / "demo.json").read_text()), recipes=["default"])


@pytest.mark.long
def test_the_bench_writes_tables_and_prints_json_where_asked(tiny: None, tmp_path: Path, planaria_lab) -> None:
    outcome = planaria_lab("bench", "tinymlp", "--json", "--output", str(tmp_path))
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert result == json.loads((tmp_path / "tinymlp.json").read_text())
    check_result(result, recipes=["reference", "default"])
    table = (tmp_path / "tinymlp.md").read_text()
    for row in result["networks"]["A"]["rows"]:
        assert f"| {row['method']} |" in table


def check_result(result: dict, *, recipes: list[str]) -> None:
    assert {"commit", "time", "versions", "machine"} <= result["provenance"].keys()
    assert result["experiment"] == json.loads(json.dumps(TINY.to_dict()))
    network = result["networks"]["A"]
    assert list(network["fits"]) == recipes
    assert network["clean_accuracy"] > 90
    methods = {row["method"]: row for row in network["rows"]}
    assert set(repair_table.closed_form_repairers()) | {f"{recipe} recipe" for recipe in recipes} <= methods.keys()
    for row in network["rows"]:
        assert row["bytes"] >= 0
        for cell in row["rates"].values():
            for what in ("accuracy", "r2", "seconds"):
                runs = [value for fit in cell[what]["runs"] for value in fit]
                assert cell[what]["minimum"] == min(runs) and cell[what]["count"] == len(runs) == 2
                assert cell[what]["interval"] >= 0
                assert cell[what]["mean"] == pytest.approx(sum(runs) / len(runs))
    assert methods["zero"]["bytes"] == 0 < methods["default recipe"]["bytes"] < methods["kriging"]["bytes"]
