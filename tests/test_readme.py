"""The claims of the README and the tables of all pages are what was measured."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="README.md is not there")


@pytest.fixture(scope="module")
def documents() -> ModuleType:
    path = ROOT / "benchmarks" / "update_documents.py"
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("update_documents", path))
    module.__spec__.loader.exec_module(module)
    return module


def test_pages_show_the_committed_tables(documents: ModuleType) -> None:
    for page in documents.PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- table\n") + text.count("<!-- line\n") == len(documents.MARKED.findall(text)), page.name
        assert documents.filled(text) == text, f"{page.name} does not show what was measured"


def test_the_committed_tables_are_those_of_the_results_beside_them(documents: ModuleType) -> None:
    for file, text in documents.whole_tables().items():
        assert file.read_text(encoding="utf-8") == text, f"{file} is not what was measured"


def test_a_row_or_column_that_is_not_there_is_refused(documents: ModuleType) -> None:
    text = "**One**, a table\n\n| a | b (2 % bytes) |\n| --- | --- |\n| x | 1 |\n| x, y | 2 |\n"
    assert documents.table(text, rows=["x"], columns=["b"]) == "| b (2 % bytes) |\n| --- |\n| 1 |\n"
    assert documents.table(text, rows=["x, y"], below="**One**", called={"a": "A"}) == (
        "**One**, a table\n\n| A | b (2 % bytes) |\n| --- | --- |\n| x, y | 2 |\n"
    )
    for wrong in ({"rows": ["z"]}, {"columns": ["c"]}, {"below": "**Two**"}):
        with pytest.raises(SystemExit):
            documents.table(text, **wrong)


def test_the_claims_in_words_are_what_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "tinymlp" / "tinymlp.json").read_text())
    means = {row["method"]: row["rates"]["0.9"]["accuracy"]["mean"] for row in result["networks"]["A"]["rows"]}
    readme, results = (
        " ".join(path.read_text(encoding="utf-8").split()) for path in (README, ROOT / "docs" / "results.md")
    )
    claim = re.search(r"to ([\d.]+) % accuracy.*?reaches ([\d.]+) and zeros ([\d.]+)", readme)
    assert claim.groups() == tuple(f"{means[name]:.1f}" for name in ("pretrained sheet-1", "kriging", "zero"))
    talk = re.search(r"comes to ([\d.]+) at 90 %.*?the talk reports ([\d.]+)\.", readme)
    told = f"{result['the_talk']['reference recipe']['0.9']:.2f}"
    assert talk.groups() == (f"{means['reference recipe']:.1f}", told)
    of_the_talk = re.search(r"reports ([\d.]+) % at 90 %.*?zeros leave ([\d.]+) %", results)
    assert of_the_talk.groups() == (told, f"{result['the_talk']['zero']['0.9']:.2f}")
