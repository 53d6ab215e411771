"""The README's code runs, and its tables and those of the docs are what was measured."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import planaria

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="README.md is not there")


@pytest.mark.slow
def test_the_code_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        # The package under test, wherever the test run found it.
        environment = os.environ | {"PYTHONPATH": str(Path(planaria.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr


def test_readme_and_docs_hold_the_committed_results() -> None:
    path = ROOT / "benchmarks" / "update_documents.py"
    documents = importlib.util.module_from_spec(importlib.util.spec_from_file_location("update_documents", path))
    documents.__spec__.loader.exec_module(documents)
    for file, blocks in documents.blocks().items():
        text = file.read_text(encoding="utf-8")
        for name, block in blocks.items():
            assert documents.inserted(text, name, block) == text, f"{name} in {file.name} is not what was measured"


def test_the_claim_of_the_readme_is_what_was_measured() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "tinymlp" / "tinymlp.json").read_text())["networks"]["A"][
        "rows"
    ]
    means = {row["method"]: row["rates"]["0.9"]["accuracy"]["mean"] for row in rows}
    claim = re.search(r"to ([\d.]+) % accuracy.*?reaches ([\d.]+) and zeros ([\d.]+)", README.read_text(), re.DOTALL)
    assert claim.groups() == tuple(f"{means[name]:.1f}" for name in ("pretrained sheet-1", "kriging", "zero"))
    talk = re.search(r"\(([\d.]+) at 90 %, the talk", README.read_text())
    assert talk[1] == f"{means['reference recipe']:.1f}"
