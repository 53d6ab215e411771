"""Who may import whom, and what nobody may do: read off the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import planaria

ROOT = Path(planaria.__file__).parent
MODULES = {".".join(("planaria", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")}

FOUNDATIONS = {"errors", "files", "records", "streams", "progress"}
ALLOWED = {
    "automaton": {"automaton"},
    "hints": {"hints"},
    "layouts": {"layouts"},
    "damages": {"damages"},
    "attacks": {"attacks", "damages"},
    "detectors": {"detectors"},
    "codes": {"codes"},
    "checkpoints": {"checkpoints"},
    "repairers": {"repairers", "layouts", "stationary"},
    "frozen": {"frozen", "automaton", "stationary"},
    "fit": {"fit", "automaton", "frozen", "layouts"},
    "memory": {"memory", "hints", "codes", "repairers", "layouts"},
    "calibration": {"calibration", "checkpoints", "fit", "stationary"},
    "guard": {
        "guard",
        "automaton",
        "calibration",
        "checkpoints",
        "codes",
        "detectors",
        "fit",
        "frozen",
        "layouts",
        "memory",
        "repairers",
    },
    "zoo": {"zoo", "checkpoints", "datasets"},
    "network_repairers": {"network_repairers", "zoo", "repairers", "layouts", "automaton", "fit"},
    "scrubber": {"guard", "checkpoints", "detectors"},
    "records": set(),
    "bounds": set(),
    "datasets": set(),
    "errors": set(),
    "files": set(),
    "stationary": set(),
    "streams": set(),
    "progress": set(),
}
EXCEPTIONS = {
    "planaria.repairers.regrow": {"automaton"},
    "planaria.repairers.regrow_frozen": {"automaton", "frozen"},
}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_the_source_is_found() -> None:
    assert {"planaria.automaton.automaton", "planaria.repairers.regrow", "planaria.bench.tables"} <= MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    names = set(imported(ast.parse(MODULES[module].read_text())))
    assert not {name for name in names if name.split(".")[0] in ("tests", "conftest", "helpers", "benchmarks")}
    layer = module.split(".")[1]
    if layer not in ALLOWED:
        assert layer in (
            "bench",
            "campaigns",
            "command_line",
            "guard_commands",
            "damage_command",
            "zoo_command",
            "__init__",
        )
        return
    layers = {name.split(".")[1] for name in names if name.startswith("planaria.")}
    assert layers <= ALLOWED[layer] | FOUNDATIONS | EXCEPTIONS.get(module, set())


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
