"""Campaigns: settings from TOML, the same faults for all, resumed to the same result."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planaria.damages import ModelFaults
from planaria.errors import InvalidFile, InvalidInput
from planaria_lab.attacks import PGD, Objective
from planaria_lab.campaigns import CampaignSettings, run
from planaria_lab.campaigns.measures import FALSE_ALARMS, found_at
from planaria_lab.campaigns.pictures import draw_roc
from planaria_lab.campaigns.tables import overview, roc_table, tables

SMALL = CampaignSettings(
    models=["TinyMLP A"],
    damages=[{"kind": "WholeWeight", "each": {"count": [0, 30]}}],
    defences=[
        {"kind": "NoDefence", "name": "nothing"},
        {"kind": "StoredCopy"},
        {"kind": "ClipToRange"},
        {"kind": "ZeroGroups", "group": 8},
        {"kind": "PlanariaGuard", "name": "parity", "budget": 0.05, "tiers": ["parity"]},
    ],
    runs=2,
    most_runs=4,
    interval=0.01,
    images=200,
)
TOML = """
models = ["TinyMLP A"]
runs = 2
most_runs = 4
interval = 0.01
images = 200
[[damages]]
kind = "WholeWeight"
each.count = [0, 30]
[[defences]]
kind = "NoDefence"
name = "nothing"
[[defences]]
kind = "StoredCopy"
[[defences]]
kind = "ClipToRange"
[[defences]]
kind = "ZeroGroups"
group = 8
[[defences]]
kind = "PlanariaGuard"
name = "parity"
budget = 0.05
tiers = ["parity"]
"""


def quiet(done: int, total: int, what: str) -> None:
    pass


def without_seconds(result: dict[str, Any]) -> dict[str, Any]:
    points = json.loads(json.dumps(result["points"]))
    for point in points.values():
        for of in point["defences"].values():
            del of["seconds"]
    return {"points": points, "settings": json.loads(json.dumps(result["settings"]))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(SMALL, folder, progress=quiet)


def test_every_defence_meets_the_same_faults_and_does_what_it_can(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, result = whole
    spared, struck = result["points"].values()
    assert len(list((folder / "faults").iterdir())) == 2 + 4  # nothing varies without damage
    for of in spared["defences"].values():
        assert of["accuracy"]["minimum"] == of["accuracy"]["mean"] == spared["intact"]
        assert sum(of["false_repairs"]["runs"]) == sum(of["detected"]["runs"]) == 0
        assert of["agreement"]["minimum"] == 1
    by_name = struck["defences"]
    assert by_name["nothing"]["nbytes"] == 0
    assert by_name["nothing"]["exact"]["maximum"] == by_name["nothing"]["detected"]["mean"] == 0
    assert by_name["nothing"]["accuracy"]["mean"] < struck["intact"]
    for exact in ("stored copy", "parity"):
        assert by_name[exact]["exact"]["minimum"] == by_name[exact]["detected"]["mean"] == 1
        assert by_name[exact]["accuracy"]["minimum"] == struck["intact"]
        assert by_name[exact]["silent"]["maximum"] == by_name[exact]["claimed_wrongly"]["maximum"] == 0
    assert by_name["stored copy"]["nbytes"] == struck["model_bytes"]
    assert by_name["parity"]["nbytes"] <= 0.05 * struck["model_bytes"]
    assert by_name["zero groups, group 8"]["false_repairs"]["mean"] > 0  # the neighbours in a group
    assert 0 < by_name["zero groups, group 8"]["recall"]["mean"] < 1
    assert by_name["clip to range"]["not_finite"]["maximum"] == 0
    assert "stored copy" in tables(result)
    rows = overview(result, only=["nothing", "stored copy"]).splitlines()
    assert rows[0] == "| damage | nothing | stored copy (100 % bytes) |"
    assert rows[2].startswith("| whole weight, count 0 |") and rows[2].endswith(", exact 2, found 0 |")
    assert rows[3].endswith(", exact 4, found 4 |") and "exact" not in rows[3].split("|")[2]


def test_a_file_says_the_same_and_processes_do_not_matter(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(TOML)
    settings = CampaignSettings.load(file)
    assert settings == SMALL
    assert without_seconds(run(settings, tmp_path / "two", jobs=2, progress=quiet)) == without_seconds(whole[1])


def test_a_killed_campaign_resumes_to_the_same_result(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file, folder = tmp_path / "campaign.toml", tmp_path / "killed"
    file.write_text(TOML)
    code = "from planaria_lab.command_line import main; main()"
    command = [sys.executable, "-c", code, "campaign", str(file), "-o", str(folder), "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("points/*.json")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.read_bytes() for path in folder.glob("faults/*.safetensors")}
    assert before
    assert without_seconds(run(SMALL, folder, progress=quiet)) == without_seconds(whole[1])
    assert all(path.read_bytes() == content for path, content in before.items())


def test_an_attack_is_a_damage(tmp_path: Path) -> None:
    attacked = replace(
        SMALL,
        damages=[{"kind": "BitSearch", "count": 3, "bits": "exponent"}, {"kind": "BitFlip", "count": 3}],
        runs=2,
        most_runs=2,
    )
    chosen, drawn = run(attacked, tmp_path, progress=quiet)["points"].values()
    assert chosen["defences"]["nothing"]["accuracy"]["maximum"] < drawn["defences"]["nothing"]["accuracy"]["minimum"]
    assert chosen["defences"]["parity"]["exact"]["minimum"] == chosen["defences"]["parity"]["detected"]["mean"] == 1
    lists = [path.read_bytes() for path in sorted((tmp_path / "faults").glob("*bit-search*"))]
    assert len(set(lists)) == 2  # every run sees other inputs


def test_scores_give_a_curve_and_damage_keeps_to_the_tensors_named(tmp_path: Path) -> None:
    scored = replace(
        SMALL,
        models=["TinyMLP A"],
        damages=[{"kind": "BitFlip", "count": 50, "bits": "sign", "names": ["fc1.*"]}],
        defences=[
            {"kind": "NoDefence"},
            {"kind": "ResidualRepair", "spaces": {"fc1.weight": [28, 28]}, "bits": "sign", "predictor": "RowKriging"},
        ],
        most_runs=2,
    )
    result = run(scored, tmp_path, progress=quiet)
    assert list(result["points"]) == ["TinyMLP A, bit flip, count 50, bits sign, on fc1.*"]
    nothing, found = result["points"].popitem()[1]["defences"].values()
    assert "roc_area" not in nothing
    assert found["roc_area"]["minimum"] > 0.7
    curve = [found[found_at(rate)]["mean"] for rate in FALSE_ALARMS]
    assert curve == sorted(curve) and 0 < curve[0] < curve[-1] <= 1
    assert found_at(1e-3) == "found_at_1e-3"
    assert f"{found['roc_area']['mean']:.3f}" in roc_table(run(scored, tmp_path, progress=quiet))
    for path in (tmp_path / "faults").iterdir():
        assert {name for name, faults in ModelFaults.load(path).tensors.items() if len(faults.index)} <= {
            "fc1.weight",
            "fc1.bias",
        }
    result = run(scored, tmp_path, progress=quiet)
    (path,) = draw_roc(result, tmp_path)
    assert path.name == "roc_tinymlp_a_bit_flip_count_50_bits_sign_on_fc1.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_results_of_another_campaign_are_refused(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = whole
    with pytest.raises(InvalidFile, match=r"settings\.seed was 0 and is 1"):
        run(replace(SMALL, seed=1), folder, progress=quiet)
    other = [*SMALL.defences[:-1], {**SMALL.defences[-1], "budget": 0.04}]
    with pytest.raises(InvalidFile, match=r"settings\.defences\[4\]\.budget was 0\.05 and is 0\.04"):
        run(replace(SMALL, defences=other), folder, progress=quiet)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "WholeWeight"', 'kind = "Moth"', "Unknown kind 'Moth'. Kinds are: AdjacentDouble"),
        ('kind = "StoredCopy"', 'kind = "WholeWeight"', "Unknown kind 'WholeWeight'. Kinds are: ClipToRange"),
        ("each.count = [0, 30]", "rate = 1.5", "A rate lies in"),
        ("each.count = [0, 30]", "rite = 0.5", "rite"),
        ("each.count = [0, 30]", 'rate = "half"', "half"),
        ("each.count = [0, 30]", "each.count = 3", "table of lists"),
        ("each.count = [0, 30]", "each.count = [3, 3]", "comes twice"),
        ("runs = 2\n", "runs = 5\n", "1 run or more"),
        ("runs = 2\n", "runs = true\n", "cannot be True"),
        ("runs = 2\n", "rans = 2\n", "'rans'"),
        ('models = ["TinyMLP A"]', 'models = ["TinyMLP Z"]', "Unknown model 'TinyMLP Z'"),
        ('models = ["TinyMLP A"]', "models = []", "at least one model"),
        ("images = 200", "images = 20000", "images"),
        ("each.count = [0, 30]", 'rate = 0.1\n[[damages]]\nkind = "PGD"\nbudget = -1.0', "A budget is a positive"),
        ('tiers = ["parity"]', 'key = "zz"', "64 hexadecimal digits"),
        (
            'kind = "WholeWeight"\neach.count = [0, 30]',
            'kind = "OnTensors"\ndamage = 3\nnames = ["*"]',
            "broken by a damage|OnTensors cannot be made",
        ),
        ("models", "models = = ", "is not TOML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(TOML.replace(old, new, 1))
    with pytest.raises((InvalidFile, InvalidInput), match=message):
        CampaignSettings.load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 257}, "at most 256 sentences, not 257"),
        ({"damages": [{"kind": "BitSearch"}]}, "'bit search' is an attack, which needs labelled inputs"),
    ],
)
def test_what_a_model_of_sentences_cannot_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(SMALL, models=["all-MiniLM-L6-v2"], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"damages": [{"kind": "BitFlip", "count": 10**9}]}, "Lower the count"),
        ({"damages": [{"kind": "BitSearch", "names": ["z*"]}]}, r"with a name like z\*"),
        ({"damages": [{"kind": "BitSearch", "bits": [40]}]}, "no bit 40"),
        ({"defences": [{"kind": "PlanariaGuard", "budget": 1e-4}]}, "too small"),
    ],
)
def test_what_fits_no_model_leaves_room_for_what_does(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    few = replace(SMALL, runs=1, most_runs=1, images=20, defences=SMALL.defences[:1])
    with pytest.raises(InvalidInput, match=message) as caught:
        run(replace(few, **change), tmp_path, progress=quiet)
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "faults").iterdir(), *(tmp_path / "points").iterdir()]
    run(few, tmp_path, progress=quiet)


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "campaign.json").write_text("{")
    with pytest.raises(InvalidFile, match="no campaign"):
        run(SMALL, tmp_path, progress=quiet)


TAMPERED = """
models = ["TinyMLP A"]
runs = 2
most_runs = 2
images = 200
[[damages]]
kind = "WholeWeight"
count = 3
each.tampering = ["NoTampering", "NewGuard", "ForgedParity", {kind = "RandomBytes", rate = 0.2}]
[[defences]]
kind = "NoDefence"
name = "nothing"
[[defences]]
kind = "PlanariaGuard"
name = "key"
budget = 0.05
tiers = ["parity"]
key = "0707070707070707070707070707070707070707070707070707070707070707"
[[defences]]
kind = "PlanariaGuard"
name = "no key"
budget = 0.05
tiers = ["parity"]
"""


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CampaignSettings, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tampered")
    (folder / "campaign.toml").write_text(TAMPERED)
    settings = CampaignSettings.load(folder / "campaign.toml")
    return folder, settings, run(settings, folder / "whole", progress=quiet)


def test_tampering_is_met_by_guards_alone_with_the_same_faults(
    tampered: tuple[Path, CampaignSettings, dict[str, Any]],
) -> None:
    folder, _, result = tampered
    names = ["", "; new guard", "; forged parity", "; random bytes, rate 0.2"]
    assert list(result["points"]) == [f"TinyMLP A, whole weight, count 3{name}" for name in names]
    assert len(list((folder / "whole" / "faults").iterdir())) == 2  # those of the runs, whatever the tampering
    plain, new, parity, noise = (point["defences"] for point in result["points"].values())
    assert plain["nothing"]["accuracy"] == new["nothing"]["accuracy"] == noise["nothing"]["accuracy"]
    for of in (plain, new, parity, noise):
        assert of["key"]["detected"]["mean"] == of["key"]["recall"]["minimum"] == 1
        assert of["key"]["claimed_wrongly"]["maximum"] == of["key"]["silent"]["maximum"] == 0
        assert of["key"]["nbytes"] == plain["key"]["nbytes"]
    assert plain["key"]["exact"]["minimum"] == plain["no key"]["exact"]["minimum"] == 1
    assert new["key"]["exact"]["maximum"] == noise["key"]["exact"]["maximum"] == parity["key"]["exact"]["maximum"] == 0
    assert noise["key"]["false_repairs"]["maximum"] == 0  # a refused guard touches nothing
    assert new["no key"]["detected"]["mean"] == 0  # by design: a guard without a key is anybody's
    assert new["no key"]["claimed_wrongly"]["mean"] == 3


def test_a_tampered_campaign_that_was_cut_goes_on_to_the_same_result(
    tampered: tuple[Path, CampaignSettings, dict[str, Any]], tmp_path: Path
) -> None:
    folder, settings, whole = tampered
    shutil.copytree(folder / "whole", tmp_path / "cut")
    points = sorted((tmp_path / "cut" / "points").iterdir())
    points[0].unlink()
    runs = json.loads(points[1].read_text())["runs"]
    points[1].write_text(json.dumps({"runs": runs[:1]}))
    assert without_seconds(run(settings, tmp_path / "cut", jobs=2, progress=quiet)) == without_seconds(whole)


def test_an_objective_is_a_table() -> None:
    objective = {"source": 3, "target": 5, "stealth": 1.0}
    settings = replace(SMALL, damages=[{"kind": "PGD", "budget": 0.01, "objective": objective}])
    ((name, threat),) = settings.all_damages()
    assert name == "pgd, budget 0.01, objective source 3+target 5+stealth 1"
    assert isinstance(threat.damage, PGD) and threat.damage.objective == Objective(source=3, target=5, stealth=1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tampering": "Moth"}, "Unknown kind 'Moth'. Kinds are: ForeignTiers"),
        ({"tampering": 3}, "kind or a table with one"),
        ({"tampering": {"kind": "RandomBytes"}}, "RandomBytes cannot be made of {}"),
        ({"tampering": {"kind": "RandomBytes", "rate": "half"}}, "Mend the value"),
        ({"kind": "PGD", "budget": 0.1, "objective": {"aim": 3}}, "Objective cannot be made of {'aim': 3}"),
        ({"kind": "PGD", "budget": 0.1, "objective": {"stealth": 1.0}}, "name the source class"),
        ({"kind": "BelowResidual", "budget": 0.1, "spaces": {}}, "Spaces are by tensor"),
    ],
)
def test_what_does_not_fit_a_threat_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        replace(SMALL, damages=[{"kind": "WholeWeight", "rate": 0.1} | table if "kind" not in table else table])
