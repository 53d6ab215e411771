"""The README's code runs and its table is what was measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import planaria
from planaria.bench.tables import accuracy_table

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


def test_the_table_of_the_readme_is_the_measured_one() -> None:
    found = re.search(
        r"<!-- tinymlp-table -->(.*?)<!-- /tinymlp-table -->", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found, "README.md has no table between its markers"
    result = json.loads((ROOT / "benchmarks" / "results" / "tinymlp" / "tinymlp.json").read_text(encoding="utf-8"))
    assert found[1].strip() == accuracy_table(result, "A", rates=["0.5", "0.7", "0.9"]).strip()
