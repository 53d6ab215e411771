"""The bench of side memory beside its limits."""

import json
from pathlib import Path
from typing import Any

import pytest

from planaria.errors import DataNotFound
from planaria_lab.bench import memory


def quiet(*told: object) -> None:
    pass


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "guard_cost", lambda: {"seconds": 12.3, "peak": 10**9, "nbytes": 1234})
        found = memory.run(progress=quiet, weights=(2**14,), missing=(0.5, 0.9), masks=2)
    return json.loads(json.dumps(found, allow_nan=False))


def test_a_few_weights_are_some_decibels_from_the_bound_and_never_beyond_it(result: dict[str, Any]) -> None:
    by_share = result["distances"]["16384"]
    assert list(by_share) == ["0.5", "0.9"]
    for measured in by_share.values():
        assert 0 < measured["decibels"] < 4 and measured["nbytes"] <= 0.03 * 4 * 2**14


def test_light_damage_is_restored_to_8_bits_within_the_budget(result: dict[str, Any]) -> None:
    light = result["light"]
    assert light["guard_bytes"] <= light["budget_bytes"] and light["within_8_bits"]["count"] == 2
    assert light["within_8_bits"]["minimum"] == 1 and light["largest_error"]["mean"] < 0.5


def test_the_tables_show_all_three(result: dict[str, Any]) -> None:
    written = memory.tables(result)
    for part in (
        "| 16,384 |",
        "| as near as 8 bits | 1.000 | 1.000 |",
        "12 s, peak memory 1,000 MB, guard 1,234 bytes",
    ):
        assert part in written
    assert "Protecting" not in memory.tables(result | {"guard": None})


def test_without_the_model_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, float]:
        raise DataNotFound("The model is not here.")

    monkeypatch.setattr(memory, "guard_cost", missing)
    monkeypatch.setattr(memory, "light_damage", lambda masks: {})
    assert memory.run(progress=quiet, weights=(), missing=(), masks=1)["guard"] is None


def test_the_command_writes_its_result(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from planaria_lab.command_line import application

    monkeypatch.setattr(memory, "run", lambda *, progress: result)
    application(["bench", "memory", "-o", str(tmp_path)], standalone_mode=False)
    assert json.loads((tmp_path / "memory.json").read_text()) == result and "decibels" in capsys.readouterr().out
