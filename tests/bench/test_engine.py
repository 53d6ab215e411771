"""The measurement of speed, on grids small enough for a test."""

import json

import pytest

from planaria_lab.bench import engine

GRID = {"two sheets": (2, 5, 6)}


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(engine, "GRIDS", GRID)
    monkeypatch.setattr(engine, "peak_memory", lambda grid, implementation, *, checkpoint: 3_000_000)
    return engine.run(progress=lambda *told: None, seconds=0.01)


def test_every_figure_is_measured_for_every_implementation(result: dict) -> None:
    result = json.loads(json.dumps(result, allow_nan=False))
    assert result["matrix_product_gflops"] > 0
    assert {"commit", "time", "versions", "machine"} <= result["provenance"].keys()
    assert result["grids"].keys() == GRID.keys()
    for cell in result["grids"]["two sheets"].values():
        assert cell["forward"] > 0 and cell["training"] > 0
        assert cell["peak_bytes"] == 3_000_000
        work = 2 * 32 * 5 * 8
        for what, times in (("forward", 1), ("training", 3)):
            share = cell[what] * work * times / (result["matrix_product_gflops"] * 1e9)
            assert cell[f"{what}_share"] == pytest.approx(share, rel=0.05)


def test_the_table_has_a_line_for_every_grid_and_implementation(result: dict) -> None:
    lines = [line for line in engine.table(result).splitlines() if line.startswith("| two sheets")]
    assert [line.split(" | ")[1] for line in lines] == ["plain", "fused"]
    assert "(1.0x)" in lines[0] and "| 3 | 3 |" in lines[0]


@pytest.mark.long
def test_peak_memory_is_that_of_a_process_of_its_own_however_large_this_one_was() -> None:
    """Linux hands `ru_maxrss` of the parent on to what it starts; a parent past its own peak hid the child's."""
    del (lambda size: [b"x" * size])(2**30)[:]
    assert 0 < engine.peak_memory("64 sheets of 28x28", "plain", checkpoint=True) < 2**31
