"""The commands and the code of the docs run, in the order in which they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import planaria

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not there")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["guarding", "zoos"])
def test_the_commands_and_the_code_of_a_page_run(page: str, tmp_path: Path) -> None:
    shutil.copyfile(str(files("planaria") / "data" / "tinymlp" / "a.safetensors"), tmp_path / "model.safetensors")
    environment = os.environ | {"PYTHONPATH": str(Path(planaria.__file__).parents[1])}
    code = ""

    def run(*arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    for language, block in BLOCKS.findall((DOCS / f"{page}.md").read_text(encoding="utf-8")):
        if language == "python":
            code += block
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            allowed = {1} if "exit code 1" in line else {0}
            assert words[0] == "planaria"
            assert run("-c", "from planaria.command_line import main; main()", *words[1:]) in allowed, line
    if page == "guarding":
        assert (tmp_path / "repaired.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert run("-c", code) == 0
