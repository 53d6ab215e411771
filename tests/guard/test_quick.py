"""A quick check: what digests alone say, at the cost of hashing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from models import PLAIN, copied, crowd, crowd_guard, gaussian, gaussian_guard, smooth, smooth_guard, struck, write
from torch import Tensor

from planaria.damages import BitFlip, Run, WholeWeight
from planaria.errors import InvalidInput, OtherModel
from planaria.guard import Guard, guard, protect, rules, tiers
from planaria.streams import generator

MODELS = {"gaussian": (gaussian, gaussian_guard), "crowd": (crowd, crowd_guard), "smooth": (smooth, smooth_guard)}
Made = tuple[Callable[[], dict[str, Tensor]], Callable[[], Guard]]
every = pytest.mark.parametrize("made", MODELS.values(), ids=MODELS)


@pytest.fixture
def hashing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but digests may be looked at."""
    for module, name in ((guard, "diagnose"), (tiers.parity.parity, "correct"), (rules, "repairer_of")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("this is more than a quick check"))


@every
def test_an_intact_model_is_intact(made: Made, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tensors, of = made[0](), made[1]()  # to make a guard takes more than hashing
    request.getfixturevalue("hashing_alone")
    for model in (tensors, write(tmp_path, tensors)):
        report = of.check(model, quick=True)
        assert (report.verdict, report.exit_code, str(report)) == ("intact", 0, "intact")


@every
@pytest.mark.parametrize("damage", [BitFlip(0.00002), WholeWeight(0.2), Run(9000)], ids=repr)
def test_what_is_damaged_is_what_a_check_finds(
    made: Made, damage: BitFlip | WholeWeight | Run, request: pytest.FixtureRequest
) -> None:
    tensors, of = made[0](), made[1]()
    damaged = damage.apply_to_model(tensors, generator(1, "damage")).replay(tensors)
    before = copied(damaged)
    slow = of.check(damaged, force=True)
    request.getfixturevalue("hashing_alone")
    quick = of.check(damaged, quick=True)
    assert (quick.verdict, quick.exit_code) == ("damaged", 2)
    for one, other in zip(quick.tensors, slow.tensors, strict=True):
        assert {region.verdict for region in one.regions} <= {"damaged"}
        tiles = [{at for of in report.regions for at in range(of.start, of.stop)} for report in (one, other)]
        assert tiles[0] == tiles[1] if not of.manifest.compact else tiles[0] >= tiles[1]
    assert all(
        torch.equal(damaged[name].view(torch.uint8), before[name].view(torch.uint8))
        for name in before
        if before[name].numel() and before[name].dim()
    )


@every
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_cut_file_costs_hashing_alone(made: Made, kept: float, hashing_alone: None, tmp_path: Path) -> None:
    path = write(tmp_path, made[0]())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    read: list[int] = []
    report = made[1]().check(path, quick=True, progress=lambda done, total, what: read.append(done))
    assert report.exit_code == 2 and report.header_damaged
    assert read[-1] == made[1]().protected_bytes
    assert path.stat().st_size == int(kept * len(content))


@pytest.mark.parametrize("tensors", [gaussian, crowd, smooth])
def test_a_broken_header_alone_is_exactly_repairable(
    tensors: Callable[[], dict[str, Tensor]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = write(tmp_path, tensors())
    of = protect(path, budget=0.08, tiers=PLAIN)
    request.getfixturevalue("hashing_alone")
    path.write_bytes(struck(path.read_bytes(), np.arange(20, 24)))
    report = of.check(path, quick=True)
    assert (report.verdict, report.exit_code, report.header_damaged) == ("exact", 1, True)


@every
def test_a_model_that_looks_trained_is_damaged_to_digests(made: Made, hashing_alone: None) -> None:
    tuned = {name: (1.01 * tensor + 0.01).to(tensor.dtype) for name, tensor in made[0]().items()}
    assert made[1]().check(tuned, quick=True).exit_code == 2


def test_another_model_and_a_mask_are_refused() -> None:
    with pytest.raises(OtherModel):
        gaussian_guard().check(smooth(), quick=True)
    for convention in ("known", "faulty"):
        with pytest.raises(InvalidInput, match="takes no mask"):
            gaussian_guard().check(gaussian(), quick=True, **{convention: {}})
