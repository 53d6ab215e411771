"""Experiments from TOML."""

from pathlib import Path

import pytest

from planaria.errors import InvalidFile, InvalidInput
from planaria_lab.bench.experiment import Experiment

SETTINGS = {"networks": '["A", "B"]', "rates": "[0.5, 1]", "masks": "3", "fits": "2", "seed": "-1"}


def written(tmp_path: Path, **changes: str | None) -> Path:
    path = tmp_path / "experiment.toml"
    settings = SETTINGS | changes
    path.write_text("".join(f"{name} = {value}\n" for name, value in settings.items() if value is not None))
    return path


def test_an_experiment_is_read_as_it_is_written(tmp_path: Path) -> None:
    expected = Experiment(networks=("A", "B"), rates=(0.5, 1), masks=3, fits=2, seed=-1)
    assert Experiment.load(written(tmp_path)) == expected
    assert Experiment.load(str(written(tmp_path))) == expected
    assert expected.to_dict()["networks"] == ("A", "B")


@pytest.mark.parametrize("name", ["tinymlp", "demo"])
def test_the_packaged_experiments_are_sound(name: str) -> None:
    experiment = Experiment.packaged(name)
    assert "A" in experiment.networks and 0.9 in experiment.rates


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"masks": None}, "exactly"),
        ({"extra": "1"}, "'extra'"),
        ({"masks": "3.0"}, "masks = 3.0"),
        ({"masks": "true"}, "masks = True"),
        ({"masks": "[3]"}, r"masks = \[3\]"),
        ({"seed": '"0"'}, "seed = '0'"),
        ({"rates": "0.5"}, "rates = 0.5"),
        ({"rates": '["0.5"]'}, "rates = "),
        ({"rates": "[true]"}, "rates = "),
        ({"networks": '"A"'}, "networks = 'A'"),
        ({"networks": "[1]"}, "networks = "),
        ({"networks": '{A = "B"}'}, "networks = "),
        ({"masks": "oops"}, "is not TOML"),
    ],
)
def test_a_file_with_other_keys_or_kinds_is_refused(changes: dict[str, str | None], told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=told) as refused:
        Experiment.load(written(tmp_path, **changes))
    assert "experiment.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"networks": '["C"]'}, "'C'.*A, B"),
        ({"networks": "[]"}, "at least one"),
        ({"rates": "[]"}, "at least one"),
        ({"masks": "0"}, "at least one"),
        ({"fits": "-1"}, "at least one"),
        ({"rates": "[0.5, 0.0]"}, "0.0 does not"),
        ({"rates": "[1.5]"}, "1.5 does not"),
        ({"rates": "[nan]"}, "nan does not"),
    ],
)
def test_settings_outside_their_range_are_refused(changes: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=told):
        Experiment.load(written(tmp_path, **changes))


@pytest.mark.parametrize("what", ["missing", "folder", "not text"])
def test_what_cannot_be_read_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    if what == "folder":
        path.mkdir()
    elif what == "not text":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFile, match="Cannot read the experiment"):
        Experiment.load(path)
