"""Results as Markdown."""

import pytest
from results import METHODS, RATES, made_result

from planaria_lab.bench import tables


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[one.strip() for one in line.strip("|").split("|")] for line in lines]


def test_the_accuracy_table_has_a_line_a_method_and_the_talk_beside_network_a() -> None:
    table = tables.accuracy_table(made_result(), "A")
    head, rule, *lines = cells(table)
    assert head == ["method", "bytes, % of FC1", "50% missing", "the talk", "90% missing", "the talk"]
    assert set(rule) == {"---"}
    assert [line[0] for line in lines] == list(METHODS)
    assert lines[0] == ["zero", "0.00", "90.00 ± 0.25 (89.00)", "94.90", "80.00 ± 0.25 (79.00)", ""]
    assert lines[3] == [METHODS[3], "3.00", "87.00 ± 0.25 (86.00)", "96.25", "77.00 ± 0.25 (76.00)", "88.77"]
    assert table.startswith("**Network A**") and "intact: 97.1" in table


def test_network_b_has_nothing_of_the_talk_beside_it() -> None:
    head, *lines = cells(tables.accuracy_table(made_result(), "B"))
    assert head == ["method", "bytes, % of FC1", "50% missing", "90% missing"]
    assert all(len(line) == 4 for line in lines)


def test_the_rates_asked_for_are_shown_alone_and_in_their_order() -> None:
    assert cells(tables.accuracy_table(made_result(), "B", rates=["0.9"]))[0][2:] == ["90% missing"]
    assert cells(tables.accuracy_table(made_result(), "B", rates=["0.9", "0.5"]))[0][2:] == [
        "90% missing",
        "50% missing",
    ]


def test_a_single_measurement_has_no_interval() -> None:
    assert cells(tables.accuracy_table(made_result(interval=None), "B"))[2][2] == "90.00 (89.00)"


def test_the_table_of_r2_has_three_digits() -> None:
    head, _, first, *_ = cells(tables.r2_table(made_result(), "A"))
    assert head == ["method", "50%", "90%"]
    assert first == ["zero", "0.500 ± 0.250 (-0.500)", "0.450 ± 0.250 (-0.550)"]


def test_the_table_of_fits_tells_each_fit_and_the_mean_repair() -> None:
    _, _, *lines = cells(tables.fit_table(made_result(), "A"))
    assert lines == [[f"{name} recipe", "1064", "300 / 200", "12 / 15", "2.500"] for name in ("reference", "default")]


@pytest.mark.parametrize(
    "told", ["2 masks and 1 fits", "planaria 0.1.0", "torch 2.13.0", "some processor", "2026-01-02"]
)
def test_all_tables_come_with_how_they_were_measured(told: str) -> None:
    whole = tables.repair_tables(made_result())
    assert told in whole
    for name in ("A", "B"):
        assert tables.accuracy_table(made_result(), name) in whole
        assert tables.r2_table(made_result(), name) in whole
    assert all(f"{float(rate):.0%}" in whole for rate in RATES)
