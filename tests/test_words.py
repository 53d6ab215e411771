"""The words of CONTRIBUTING.md are those of the code, and none that the code needs is missing."""

import ast
import re
from pathlib import Path

import pytest

import planaria
import planaria_lab
from planaria.guard.report import VERDICTS
from planaria.guard.tiers import TIERS

ROOT = Path(planaria.__file__).parent
PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
# Rooms that are no concept of their own: what all others stand on, and the command line.
PLAIN = {
    *("command_line", "damage_command", "guard_commands", "guard_inputs", "guard_tables"),
    *("dtypes", "errors", "files", "progress", "records", "shares", "splitmix", "streams", "tables"),
}

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="CONTRIBUTING.md is not there")


def section() -> str:
    return PAGE.read_text(encoding="utf-8").split("## Words")[1].split("\n## ")[0]


def words() -> list[str]:
    return [word.lower() for word in re.findall(r"\*\*(.+?)\*\*", section())]


def singular(word: str) -> str:
    return word[:-2] if word.endswith("ches") else word.removesuffix("s")


def names_in_code() -> set[str]:
    """Every name of the library and the laboratory, in small letters with underscores between its parts."""
    paths = [path for root in (ROOT, Path(planaria_lab.__file__).parent) for path in root.rglob("*.py")]
    names = {part for path in paths for part in path.with_suffix("").parts[-3:]}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names}


def test_every_word_is_part_of_a_name_in_the_code() -> None:
    parts = [f"_{name}_" for name in names_in_code()] + [f"_{verdict}_" for verdict in VERDICTS]
    assert words()
    for word in words():
        forms = {word.replace(" ", "_"), singular(word).replace(" ", "_")}
        assert any(f"_{form}_" in part or f"_{form}s_" in part for form in forms for part in parts), word


def test_no_word_stands_twice() -> None:
    found = [word for word in words() if word != "rule"]  # of an automaton, and the tier that holds it
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("path", sorted(ROOT.iterdir()), ids=lambda path: path.stem)
def test_every_room_and_every_contract_has_its_word(path: Path) -> None:
    if path.name.startswith("_") or path.stem in PLAIN or path.name == "data" or path.suffix not in ("", ".py"):
        return
    told = section().lower()
    assert singular(path.stem) in told, path.stem
    base = path / "base.py"
    for node in ast.parse(base.read_text(encoding="utf-8")).body if base.is_file() else ():
        contract = isinstance(node, ast.ClassDef) and any(getattr(kind, "id", "") == "ABC" for kind in node.bases)
        if contract and not node.name.endswith(("Damage", "Array")):
            assert node.name.lower() in told, node.name


def test_tiers_and_verdicts_have_their_words() -> None:
    assert set(TIERS) <= set(words())
    assert all(verdict in section() for verdict in VERDICTS)
