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
from planaria import command_line
from planaria_lab import command_line as lab_command_line

DOCS = Path(__file__).parent.parent / "docs"
MAIN = {"planaria": command_line.main, "planaria-lab": lab_command_line.main}
BLOCKS = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not there")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["guarding", "tiers", "zoos"])
def test_the_commands_and_the_code_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(str(files("planaria_lab") / "data" / "tinymlp" / "a.safetensors"), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    code = ""

    def run(*command: str) -> int:
        """In this process: a fresh one spends most of its time on loading what it needs."""
        monkeypatch.setattr(sys, "argv", list(command))
        with pytest.raises(SystemExit) as done:
            MAIN[command[0]]()
        assert "Traceback" not in capsys.readouterr().err
        return int(done.value.code or 0)

    for language, block in BLOCKS.findall((DOCS / f"{page}.md").read_text(encoding="utf-8")):
        if language == "python":
            code += block
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            allowed = {1} if "exit code 1" in line else {0}
            assert run(*words) in allowed, line
    if page == "guarding":
        assert (tmp_path / "repaired.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    environment = os.environ | {"PYTHONPATH": str(Path(planaria.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
