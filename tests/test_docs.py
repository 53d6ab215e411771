"""The pages run, print what they say they print, and lead somewhere."""

import re
from pathlib import Path

import pages
import pytest
from pages import PAGES, REASONS, ROOT, Block, agrees, blocks

TEXTS = [*PAGES, *(name for name in ("FORMAT.md", "CHANGELOG.md") if (ROOT / name).is_file())]
WORDS = re.compile(r"[^\w\- ]")

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="docs/ is not there")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def unrun(text: str) -> list[Block]:
    return [block for block in blocks(text) if block.mark.startswith("not run: ")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAGES if len(blocks(read(name))) > len(unrun(read(name)))])
def test_the_blocks_of_a_page_run_and_print_what_it_shows(name: str, tmp_path: Path, unchecked: None) -> None:
    for block, printed in pages.run(read(name), tmp_path, fresh=name == "README.md"):
        assert agrees(block.code, printed), f"{name} shows\n{block.code}\nand not\n{printed}"


@pytest.mark.parametrize("name", PAGES)
def test_what_does_not_run_is_what_its_reason_says(name: str) -> None:
    for block in unrun(read(name)):
        REASONS[block.mark.removeprefix("not run: ")](block)


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("```sh\nplanaria check model.safetensors --guard none.guard\n```\n", "exit code 6"),
        ("```sh\nls\n```\n", "'ls'"),
        ("```python\nassert False, 'so'\n```\n", "so"),
        ("```toml\na = 1\n```\n", "has no mark"),
        ("```\na drawing\n```\n", "has no mark"),
        ("```text\n1\n```\n", "right above"),
        ("```python\nprint(1)\n```\nWords.\n```text\n1\n```\n", "right above"),
    ],
)
def test_a_page_that_does_not_hold_is_noticed(page: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, KeyError), match=wrong):
        pages.run(page, tmp_path)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("installs", "planaria check model.safetensors --guard model.guard"),
        ("installs", "make missing"),
        ("takes minutes or hours", "python benchmarks/missing.py"),
        ("takes minutes or hours", "planaria-lab bench guard --no-such-option"),
        ("takes minutes or hours", "planaria-lab campaign benchmarks/campaigns/missing.toml -o results"),
        ("takes minutes or hours", "planaria check model.safetensors --guard model.guard"),
        ("a drawing", "planaria check model.safetensors --guard model.guard"),
    ],
)
def test_a_reason_that_does_not_hold_is_noticed(reason: str, code: str) -> None:
    with pytest.raises(AssertionError):
        REASONS[reason](Block(mark=f"not run: {reason}", language="sh", code=code + "\n", start=0, stop=0))


def test_three_points_stand_for_any_lines_and_nothing_else_does() -> None:
    assert agrees("a\n...\nc\n", "a\nb\nb\nc\n") and agrees("...\n", "") and agrees("a\n...\n", "a\n")
    assert not agrees("a\n...\nc\n", "a\nb\n") and not agrees("a\n", "a\nb\n") and not agrees("a.\n", "ab\n")


def anchors(text: str) -> set[str]:
    """What links to headings of a page may end in, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {WORDS.sub("", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("name", TEXTS)
def test_no_link_is_dead(name: str) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", read(name), flags=re.DOTALL | re.MULTILINE)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(link)
    assert not dead


def test_the_readme_says_of_every_page_for_whom_it_is() -> None:
    rows = [line.split(" | ") for line in read("README.md").splitlines() if line.startswith("| [")]
    assert all(len(row) == 3 and row[1].strip() for row in rows)
    listed = {link for row in rows for link in re.findall(r"\]\((.*?)\)", row[0])}
    assert {name for name in PAGES if name.startswith("docs/")} <= listed
