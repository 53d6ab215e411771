"""The bench of repairs that were learned from populations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import drawn

from planaria.errors import InvalidFile, InvalidInput
from planaria.streams import generator
from planaria_lab import datasets
from planaria_lab.bench.population import networks, run, sheets, tables, zoos
from planaria_lab.bench.population.judge import Judge, cell, explained
from planaria_lab.bench.population.masks import KINDS, drawn_masks
from planaria_lab.bench.population.remembered import nearness
from planaria_lab.bench.population.settings import PopulationSettings
from planaria_lab.bench.repair_table import missing_r2
from planaria_lab.network_repairers import NeuronWiener
from planaria_lab.repairers import ZeroFill
from planaria_lab.zoo import MLP

SETTINGS = PopulationSettings.packaged()
TINY = replace(
    SETTINGS,
    networks=replace(
        SETTINGS.networks,
        count=40,
        others=2,
        shared=20,
        variety={"learning_rates": [5e-3], "epochs": [5.0]},
        unseen={"learning_rates": [2e-3], "epochs": [5.0]},
        image_epochs=5.0,
        tested=4,
        images=100,
        sizes=[8],
        shares={"scattered": [0.5], "neurons": [0.3], "block": [0.1]},
        remembered=2,
        fewer={},
    ),
    sheets=replace(
        SETTINGS.sheets,
        networks=1,
        widths=[8, 9],
        scales={"default": 1.0},
        epochs=15.0,
        data=["mnist"],
        shipped=["A"],
        rates=[0.5],
        masks=2,
    ),
)
ARCHITECTURE = MLP(8, "relu", (6, 5))


def quiet(*told: object) -> None:
    pass


def large_digits(name: str) -> datasets.Dataset:
    """Digits, those of the other data sets as images of 28 x 28."""
    digits = datasets.digits()
    if name == "digits":
        return digits

    def large(images: torch.Tensor) -> torch.Tensor:
        return F.interpolate(images[:, None].float() * 15, size=(28, 28))[:, 0].to(torch.uint8)

    images = large(digits.train_images), large(digits.test_images)
    return datasets.Dataset(name, images[0], digits.train_labels, images[1], digits.test_labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population")


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoos, "loaded", large_digits)
        patch.setattr(sheets, "loaded", large_digits)
        patch.setattr(networks, "ROWS", {name: networks.ROWS[name] for name in ("zero", "zoo mean", "neuron Wiener")})
        patch.setattr(sheets, "ROWS", {name: sheets.ROWS[name] for name in ("zero", sheets.OWN)})
        found = run.run(TINY, folder, progress=quiet)
        # What is there is not measured again.
        patch.setattr(networks, "measure", None)
        patch.setattr(sheets, "measure", None)
        assert run.run(TINY, folder, progress=quiet) == found
    return json.loads(json.dumps(found, allow_nan=False))


def stack(count: int = 3, name: str = "test") -> dict[str, torch.Tensor]:
    return {key: drawn(count, *shape, name=f"{name} {key}") for key, shape in ARCHITECTURE.shapes.items()}


def test_every_row_faces_every_test_set_and_damage(result: dict[str, Any]) -> None:
    point = result["points"]["networks, zoo mean, all"]
    assert point["networks"] == 28
    assert list(point["tests"]) == [
        "in the zoo",
        "unseen seeds",
        "unseen settings",
        *zoos.OTHER_SHAPES,
        "mnist, 8 x 8",
        "fashion-mnist, 8 x 8",
    ]
    for name, test in point["tests"].items():
        if name in zoos.OTHER_SHAPES:
            assert "it learned from networks of shapes" in test["refused"]
            continue
        assert {kind: list(shares) for kind, shares in test["damages"].items()} == {
            "scattered": ["0.5"],
            "neurons": ["0.3"],
            "block": ["0.1"],
        }
        for by_share in test["damages"].values():
            for cells in by_share.values():
                assert list(cells) == list(result["better"])
                assert cells["accuracy"]["worst"] <= cells["accuracy"]["mean"] <= 100
                assert cells["output_error"]["worst"] >= cells["output_error"]["mean"] > 0
    wider = result["points"]["networks, neuron Wiener, all"]["tests"]
    assert "damages" in wider["width 32"] and "refused" in wider["two hidden layers"]
    curve = result["points"]["networks, zoo mean, 8"]
    assert curve["networks"] == 8 and list(curve["tests"]) == ["unseen seeds"]
    assert list(curve["tests"]["unseen seeds"]["damages"]["scattered"]) == ["0.5", "0.9"]


def test_the_mean_answers_where_the_initialisation_is_shared(result: dict[str, Any]) -> None:
    def r2(row: str, learned_from: str, test: str) -> float:
        tests = result["points"][f"networks, {row}, {learned_from}"]["tests"]
        return tests[test]["damages"]["scattered"]["0.5"]["r2"]["mean"]

    assert r2("zoo mean", zoos.SHARED, zoos.SHARED) > 0.8
    assert r2("zoo mean", "all", "unseen seeds") < 0.3 < r2("neuron Wiener", "all", "unseen seeds")


def test_sheets_are_compared_run_by_run(result: dict[str, Any]) -> None:
    zero, own = (result["points"][f"sheets, {row}, mnist, default"] for row in ("zero", sheets.OWN))
    assert zero["networks"] == 2 and zero["bytes"] == 0 < own["bytes"]
    runs = zero["runs"]["r2"]["0.5"]
    assert [len(mask) for mask in runs] == [2, 2]
    found = sheets.differences(zero, own)["0.5"]["r2"]
    assert found["mean"] == pytest.approx(zero["rates"]["0.5"]["r2"]["mean"] - own["rates"]["0.5"]["r2"]["mean"])
    assert found["worst"] <= found["mean"] < 0
    alone = result["points"]["sheets, zero, TinyMLP A"]["rates"]["0.5"]["accuracy"]
    assert alone["count"] == 2 and alone["interval"] is not None  # over masks, for there is one network


def test_the_tables_show_every_part(result: dict[str, Any]) -> None:
    written = tables.tables(result)
    for part in (
        "**Networks: unseen seeds** (4 networks",
        "| scattered, 50% | whole neurons, 30% | block, 10% |",
        "zoo mean: refused, it learned from networks",
        "**Networks learned from**, unseen seeds, scattered 90%",
        "| method | measure | 8 | 28 |",
        "| the intact network itself | 0 |",
        "**First layers: mnist, default** (2 networks",
        "**First layers: TinyMLP A**, minus kriging, own covariance",
    ):
        assert part in written
    sheet = {name: point for name, point in result["points"].items() if point["part"] == "sheets"}
    assert "Networks" not in tables.tables(result | {"points": sheet})


def test_the_overview_shows_what_the_tables_do(result: dict[str, Any]) -> None:
    shown = tables.overview(result)
    for part in (
        "| TinyMLP A | kriging, own covariance | 1.57 |",
        "**Networks: unseen seeds**, whole neurons missing",
        "| refused |",
        "**Is a repair a copy?**",
        "scattered 90%",
    ):
        assert part in shown
    cell = tables._cell(result["points"]["sheets, zero, TinyMLP A"]["rates"]["0.5"]["r2"], "r2")
    assert f"| TinyMLP A | zero | 0.00 | {cell} |" in shown
    sheet = {name: point for name, point in result["points"].items() if point["part"] == "sheets"}
    assert "Networks" not in tables.overview(result | {"points": sheet})


def test_the_earlier_result_of_a_folder_is_kept(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "population.json").write_text(json.dumps(result))
    name = "sheets, zero, TinyMLP A"
    found = run.run(TINY, tmp_path, only=name, progress=quiet)
    assert found["points"][name] == result["points"][name]
    (tmp_path / "points" / "sheets-zero-tinymlp-a.json").write_text("[]")
    with pytest.raises(InvalidFile, match="no point of this bench"):
        run.run(TINY, tmp_path, only=name, progress=quiet)
    (tmp_path / "population.json").write_text("{}")
    with pytest.raises(InvalidFile, match="no result of this bench"):
        run.run(TINY, tmp_path, only=name, progress=quiet)
    with pytest.raises(InvalidInput, match="Nothing to measure"):
        run.run(TINY, tmp_path, only="nobody", progress=quiet)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_lose_what_they_should_and_are_drawn_by_network(kind: str) -> None:
    told = {"where": "here", "seed": 0}
    known = drawn_masks(kind, 0.4, ARCHITECTURE, ["a", "b"], **told)
    alone = drawn_masks(kind, 0.4, ARCHITECTURE, ["b"], **told)
    assert all(torch.equal(mask[1:], alone[name]) for name, mask in known.items())
    assert not torch.equal(known["fc1.weight"][0], known["fc1.weight"][1])
    for name, mask in known.items():
        missing = (~mask).flatten(1).sum(1).tolist()
        if kind == "neurons":
            shape = ARCHITECTURE.shapes[name]
            kept = [size - {6: 2, 5: 2}.get(size, 0) for size in shape]
            assert missing == [mask[0].numel() - torch.Size(kept).numel()] * 2
        else:
            assert missing == [round(0.4 * mask[0].numel())] * 2
        if kind == "block":
            for one in (~mask).flatten(1):
                assert one.int().diff().abs().sum() <= 2


def test_unknown_damages_and_data_sets_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Damages are scattered"):
        drawn_masks("rust", 0.5, ARCHITECTURE, ["a"], where="here", seed=0)
    with pytest.raises(InvalidInput, match="Data sets are digits"):
        zoos.loaded("letters")


@pytest.mark.parametrize(
    ("part", "wrong", "told"),
    [
        ("networks", {"tested": 0}, "counted from 1"),
        ("networks", {"shares": {"scattered": [0.0]}}, "Shares"),
        ("sheets", {"masks": 0}, "a mask"),
        ("sheets", {"rates": [1.5]}, "Shares"),
    ],
)
def test_settings_outside_their_limits_are_refused(part: str, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        replace(getattr(TINY, part), **wrong)


def test_a_judge_knows_exact_repairs_and_agrees_with_its_definitions() -> None:
    intact, other = stack(), stack(name="other")
    known = drawn_masks("scattered", 0.5, ARCHITECTURE, ["a", "b", "c"], where="here", seed=0)
    inputs = drawn(50, 64, name="inputs").double()
    judge = Judge(ARCHITECTURE, intact, inputs, torch.randint(10, (50,), generator=generator(0, "labels")))
    exact = judge.measures(intact, known)
    assert (exact["r2"] == 1).all() and (exact["agreement"] == 100).all() and (exact["output_error"] == 0).all()
    torch.testing.assert_close(exact["accuracy"], judge.accuracy)
    measured = judge.measures(other, known)
    before, after = (
        ARCHITECTURE.layer_outputs({name: one[:1].double() for name, one in of.items()}, inputs[None])
        for of in (intact, other)
    )
    errors = [
        float((a - b).square().mean() / b.var(1, correction=0).mean()) for a, b in zip(after, before, strict=True)
    ]
    assert measured["output_error"][0].item() == pytest.approx(sum(errors) / 3)
    one = {"fc1.weight": intact["fc1.weight"]}
    expected = [missing_r2(*(of["fc1.weight"][at] for of in (intact, other, known))) for at in range(3)]
    assert explained(one, other, known).tolist() == pytest.approx(expected)


def test_the_worst_of_an_error_is_its_maximum() -> None:
    assert cell("accuracy", [[1.0, 3.0]]) | {"interval": 0} == {"mean": 2, "interval": 0, "worst": 1, "count": 2}
    assert cell("output_error", [[1.0, 3.0]])["worst"] == 3
    assert cell("r2", [[0.5]])["interval"] is None


def test_a_copy_with_its_neurons_in_another_order_is_found() -> None:
    shapes = MLP(8, "relu", (6,)).shapes
    own, trained = (
        {key: drawn(count, *shape, name=f"{name} {key}") for key, shape in shapes.items()}
        for count, name in ((2, "own"), (5, "trained"))
    )
    order = torch.randperm(6, generator=generator(0, "order"))
    copied = {name: tensor[3:] for name, tensor in trained.items()}
    copied["fc1.weight"], copied["fc1.bias"] = copied["fc1.weight"][:, order], copied["fc1.bias"][:, order]
    copied["fc2.weight"] = copied["fc2.weight"][:, :, order]
    found = nearness(copied, own, trained)
    torch.testing.assert_close(found["nearest_distance"], torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["nearest_cosine"], torch.ones(2).double())
    assert (found["own_distance"] > 1).all() and (found["own_cosine"] < 0.5).all()
    kept = nearness(own, own, trained)
    assert (kept["own_distance"] == 0).all() and (kept["nearest_distance"] > 0.5).all()


def test_images_are_pooled_to_8_by_8() -> None:
    data = large_digits("mnist")
    small = zoos.pooled(data)
    assert small.name == "mnist, 8 x 8" and small.train_images.shape[1:] == (8, 8)
    assert small.train_images.dtype == torch.uint8
    expected = data.test_images[0, 2:6, 6:10].float().mean().round()
    assert small.test_images[0, 1, 2] == expected


def test_the_rows_are_repairers() -> None:
    assert isinstance(networks.ROWS["neuron Wiener"](None), NeuronWiener)  # type: ignore[arg-type]
    assert isinstance(sheets.ROWS["zero"], ZeroFill)
    assert SETTINGS.networks.fewer.keys() - networks.ROWS.keys() <= {"equivariant network"}  # where nfn is missing


def test_the_command_writes_its_result(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from planaria_lab.command_line import application

    monkeypatch.setattr(run, "run", lambda *told, **settings: result)
    application(["bench", "population", "-o", str(tmp_path)], standalone_mode=False)
    assert json.loads((tmp_path / "population.json").read_text()) == result
    assert "unseen seeds" in capsys.readouterr().out
    assert "unseen seeds" in (tmp_path / "population.md").read_text()
