"""Who may import whom, and what nobody may do: read off the source."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest

import planaria
import planaria_lab

ROOTS = {package.__name__: Path(package.__file__).parent for package in (planaria, planaria_lab)}
MODULES = {
    ".".join((package, *path.relative_to(root).with_suffix("").parts)): path
    for package, root in ROOTS.items()
    for path in root.rglob("*.py")
}

FOUNDATIONS = {"errors", "files", "records", "streams", "progress", "shares", "tables", "splitmix", "dtypes"}
# What each room of the library may import of the others, beside the foundations.
ALLOWED = {
    "__init__": {"guard", "repairers", "scrubber"},
    "automaton": set(),
    "calibration": {"checkpoints", "fit", "stationary"},
    "checkpoints": set(),
    "codes": set(),
    "command_line": {"damage_command", "guard_commands", "guard_inputs"},
    "damage_command": {"checkpoints", "damages", "guard", "guard_commands", "guard_inputs"},
    "damages": set(),
    "detectors": set(),
    "fit": {"automaton", "layouts"},
    "pretrained": {"automaton", "stationary"},
    "guard": {
        "automaton",
        "calibration",
        "checkpoints",
        "codes",
        "detectors",
        "fit",
        "pretrained",
        "layouts",
        "memory",
        "repairers",
    },
    "guard_commands": {"guard", "guard_inputs", "guard_tables"},
    "guard_inputs": {"checkpoints", "damages"},
    "guard_tables": {"guard", "guard_inputs"},
    "sketches": set(),
    "layouts": set(),
    "memory": {"sketches", "codes", "repairers"},
    "repairers": {"layouts"},
    "scrubber": {"guard", "checkpoints", "detectors"},
    "stationary": set(),
    "errors": set(),
    "files": set(),
    "records": set(),
    "streams": set(),
    "progress": set(),
    "shares": set(),
    "tables": set(),
    "splitmix": set(),
    "dtypes": set(),
}
# What each room of the laboratory may import of the laboratory; the library is open to all of it.
ALLOWED_IN_THE_LAB = {
    "__init__": set(),
    "attacks": set(),
    "bench": {"bounds", "datasets", "pretrained", "network_repairers", "reference", "repairers", "zoo"},
    "bounds": set(),
    "campaigns": {"attacks", "bench", "datasets", "detectors", "repairers"},
    "command_line": {"bench", "campaigns", "zoo_command"},
    "datasets": set(),
    "detectors": set(),
    "pretrained": set(),
    "network_repairers": {"zoo"},
    "reference": set(),
    "repairers": set(),
    "toml_files": set(),
    "zoo": {"datasets"},
    "zoo_command": {"datasets", "zoo"},
}
REQUIREMENTS = [of for of in requires("planaria") or () if "extra ==" not in of or "pictures" in of]
DEPENDENCIES = {re.match(r"[\w-]+", of)[0].replace("-", "_") for of in REQUIREMENTS}
EXCEPTIONS = {
    "planaria.repairers.regrow": {"automaton"},
    "planaria.repairers.regrow_pretrained": {"automaton", "pretrained"},
}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def rooms(names: set[str], package: str) -> set[str]:
    return {name.split(".")[1] for name in names if name.split(".")[0] == package and "." in name} - {"__version__"}


def test_the_source_is_found() -> None:
    assert {"planaria.automaton.automaton", "planaria.repairers.regrow", "planaria_lab.bench.tables"} <= MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    names = set(imported(ast.parse(MODULES[module].read_text())))
    assert not {name for name in names if name.split(".")[0] in ("tests", "conftest", "helpers", "benchmarks")}
    package, room = module.split(".")[:2]
    if package == "planaria":
        assert not rooms(names, "planaria_lab")
        assert rooms(names, package) <= ALLOWED[room] | {room} | FOUNDATIONS | EXCEPTIONS.get(module, set())
    else:
        assert rooms(names, package) <= ALLOWED_IN_THE_LAB[room] | {room, "toml_files"}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("planaria.")))
def test_the_library_needs_only_what_it_declares(module: str) -> None:
    declared = {"planaria", *sys.stdlib_module_names, *DEPENDENCIES}
    assert {name.split(".")[0] for name in imported(ast.parse(MODULES[module].read_text()))} <= declared


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_neither_unpickles_nor_touches_global_random_state(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    names = set(imported(tree))
    assert not {name for name in names if name.split(".")[0] in ("pickle", "cPickle", "dill", "shelve", "random")}
    if "campaigns.run" not in module:  # its processes are its own, and no file of theirs is read
        assert not any(name.split(".")[0] == "joblib" for name in names)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("weights_only", "allow_pickle"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is (node.arg == "weights_only")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.set_rng_state")
            assert not called.startswith("np.random.") or called == "np.random.default_rng"
            keywords = {keyword.arg for keyword in node.keywords}
            assert called != "torch.load" or "weights_only" in keywords
            if called in ("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.normal"):
                assert "generator" in keywords, f"line {node.lineno} draws from the global stream"
            if called.endswith((".uniform_", ".normal_", ".random_", ".bernoulli_")):
                assert "generator" in keywords, f"line {node.lineno} draws from the global stream"
