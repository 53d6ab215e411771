"""The code of the documentation: blocks of the pages, run in the order in which they stand.

Every block in ``` is one of these:

- `sh`: commands of planaria, one a line, or two with "||" between them. "exit code 2" in a line's comment is what it
  answers with, else 0.
- `python`: runs in one namespace a page; in one of its own where `fresh` says so.
- `text` right below one of these: what it prints. A line "..." stands for any lines.
- `<!-- file: NAME -->` above it: is written to that file.
- `<!-- not run: REASON -->` above it: a reason of `REASONS`, whose check it passes.

`python tests/pages.py` writes what the blocks print now into the pages.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from planaria import command_line
from planaria.guard.tiers import TIERS
from planaria_lab import command_line as lab_command_line

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "lab/README.md", "attacks/README.md")
    for page in ROOT.glob(pattern)
)
MAIN = {"planaria": command_line.main, "planaria-lab": lab_command_line.main}
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a page: its mark, language and lines, and where its lines begin and end in the page's text."""

    mark: str
    language: str
    code: str
    start: int
    stop: int


def blocks(text: str) -> list[Block]:
    return [
        Block(
            mark=found["mark"] or "",
            language=found["language"],
            code=found["code"],
            start=found.start("code"),
            stop=found.end("code"),
        )
        for found in BLOCK.finditer(text)
    ]


def commands(code: str) -> Iterator[tuple[list[str], int]]:
    """The words of each line, and the exit code that its comment promises."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            said = re.search(r"#.*exit code (\d+)", line)
            yield words, int(said[1]) if said else 0


def answer(words: list[str]) -> int:
    """The exit code of a line, run in this process: a fresh one spends most of its time on loading."""
    if "||" in words:
        place = words.index("||")
        return answer(words[:place]) and answer(words[place + 1 :])
    before, sys.argv = sys.argv, words
    try:
        MAIN[words[0]]()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = before
    return 0


def run(text: str, folder: Path, *, fresh: bool = False) -> list[tuple[Block, str]]:
    """Runs what a page shows, in `folder`, which gets a `model.safetensors`. The `text` blocks with what is right."""
    shutil.copyfile(str(files("planaria_lab") / "data" / "tinymlp" / "a.safetensors"), folder / "model.safetensors")
    before, tiers = Path.cwd(), dict(TIERS)
    os.chdir(folder)
    shown = []
    printed, end = None, 0
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for block in blocks(text):
            if block.mark.startswith("not run: "):
                continue
            if block.mark.startswith("file: "):
                Path(block.mark.removeprefix("file: ")).write_text(block.code, encoding="utf-8")
            elif block.language == "text":
                assert printed is not None and not text[end : block.start].removesuffix("```text\n").strip("`\n"), (
                    f"nothing right above this block prints it:\n{block.code}"
                )
                shown.append((block, printed))
                printed = None
            else:
                output = io.StringIO()
                with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                    if block.language == "python":
                        exec(compile(block.code, "a page", "exec"), {"__name__": "__main__"} if fresh else names)
                    else:
                        assert block.language == "sh", f"a block of {block.language!r} has no mark:\n{block.code}"
                        for words, promised in commands(block.code):
                            code = answer(words)
                            assert code == promised, f"{shlex.join(words)}: exit code {code}\n{output.getvalue()}"
                printed, end = output.getvalue(), block.stop
    finally:
        os.chdir(before)
        TIERS.clear()  # a page may have added one
        TIERS.update(tiers)
    return shown


def agrees(shown: str, printed: str) -> bool:
    """Whether `shown` is what was printed; its lines "..." stand for any lines."""
    parts = [re.escape(part) for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)]
    return re.fullmatch("(?:.*\n)*".join(parts), printed) is not None


def installs(block: Block) -> None:
    """Its lines call pip, or make something that the Makefile makes."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words, _ in commands(block.code):
        assert words[:2] == ["pip", "install"] or words[0] == "make", shlex.join(words)
        for target in words[1:] if words[0] == "make" else ():
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{target} is not made"


def takes_minutes(block: Block) -> None:
    """Its commands, options and files are there."""
    if block.language == "toml":
        from planaria_lab.campaigns.settings import CampaignSettings

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "campaign.toml").write_text(block.code, encoding="utf-8")
            CampaignSettings.load(Path(folder) / "campaign.toml")
        return
    for words, _ in commands(block.code):
        for word in words:
            if "/" in word and word.endswith((".py", ".toml")):
                assert (ROOT / word).is_file(), f"{word} is not there"
        if words[0] == "planaria-lab":
            assert words[1] in ("bench", "campaign"), shlex.join(words)
            named = words[1:3] if words[1] == "bench" else words[1:2]
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                assert answer([words[0], *named, "--help"]) == 0
            for option in (word for word in words if word.startswith("-")):
                assert option in said.getvalue(), f"{shlex.join(words)}: there is no {option}"
        else:
            assert words[0] == "python" and words[1].startswith("benchmarks/"), shlex.join(words)
            for option in (word for word in words if word.startswith("-")):
                assert option in (ROOT / words[1]).read_text(encoding="utf-8"), f"{words[1]} has no {option}"


def drawing(block: Block) -> None:
    assert block.language == "" and "─" in block.code


REASONS: dict[str, Callable[[Block], None]] = {
    "installs": installs,
    "takes minutes or hours": takes_minutes,
    "a drawing": drawing,
}


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            shown = run(text, Path(folder), fresh=name == "README.md")
        for block, printed in reversed(shown):
            if not agrees(block.code, printed):
                text = text[: block.start] + printed + text[block.stop :]
                print(f"{name}: wrote what is printed now")
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
