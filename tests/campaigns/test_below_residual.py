"""An attack that the residual detector does not see."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planaria import streams
from planaria.damages import ModelFaults
from planaria.dtypes import integers
from planaria.errors import InvalidInput
from planaria_lab.attacks import PGD, Attack
from planaria_lab.bench.int8 import quantised
from planaria_lab.campaigns.adaptive import BelowResidual
from planaria_lab.campaigns.defences import ResidualRepair


def smooth_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Its first layer sees images of 8x8 and is smooth but for some noise, as trained ones are."""
    draws = streams.generator(0, "smooth first layer")
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draws) / 5)
    smooth = torch.randn(24, 8, 8, generator=draws).cumsum(1).cumsum(2)
    smooth = (smooth - smooth.mean()) / smooth.std()
    model[0].weight.copy_((smooth + 0.2 * torch.randn(smooth.shape, generator=draws)).flatten(1) / 8)  # type: ignore[union-attr]
    return model.to(dtype).requires_grad_()


def batch() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(64, 64, generator=streams.generator(0, "inputs of a smooth model"))
    with torch.no_grad():
        return inputs, smooth_model()(inputs).argmax(1)


def faults_of(attack: Attack, model: nn.Module) -> ModelFaults:
    inputs, labels = batch()
    return attack.apply(model, inputs, labels, streams.generator(0, "attack"))


SPACES = {"0.weight": [8, 8]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: BelowResidual(0.05, spaces=SPACES),
        lambda: BelowResidual(2.0, spaces=SPACES, share=1.0),
        lambda: BelowResidual(1.0, spaces=SPACES, norm="l2"),
        pytest.param(
            lambda: BelowResidual(2.0, spaces={"0.weight": [], "2.weight": []}), marks=pytest.mark.long, id="flat"
        ),
        pytest.param(
            lambda: BelowResidual(2.0, spaces=SPACES, rate=0.01), marks=pytest.mark.long, id="with false alarms"
        ),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_detector_names_nothing_and_weights_move(make: Callable[[], BelowResidual], dtype: torch.dtype) -> None:
    attack, model = make(), smooth_model(dtype)
    before = copy.deepcopy(model.state_dict())
    faults = faults_of(attack, model)
    damaged = faults.replay(before)
    defence = ResidualRepair(attack.spaces, rate=attack.rate).prepare(before)
    named = defence.restore(damaged).verdicts
    false_alarms = defence.restore(before).verdicts
    for name in attack.spaces:
        assert len(faults.tensors[name].index) > before[name].numel() // 4
        assert not (named[name].bool() & ~false_alarms[name].bool()).any()
        assert attack.rate > 0 or not named[name].any()
    assert {name for name, of in faults.tensors.items() if len(of.index)} == set(attack.spaces)
    assert all(bool((integers(tensor) == integers(before[name])).all()) for name, tensor in model.state_dict().items())


def test_where_plain_gradients_are_seen_it_is_not_and_it_still_hurts() -> None:
    model = smooth_model()
    inputs, labels = batch()
    intact = dict(model.state_dict())
    defence = ResidualRepair(SPACES).prepare(intact)
    plain = faults_of(PGD(2.0, names=list(SPACES)), model).replay(intact)
    aware = faults_of(BelowResidual(2.0, spaces=SPACES), model).replay(intact)
    assert defence.restore(plain).verdicts["0.weight"].any()
    assert not defence.restore(aware).verdicts["0.weight"].any()
    with torch.no_grad():
        answers = torch.func.functional_call(model, aware, (inputs,)).argmax(1)
    assert (answers == labels).double().mean() < 0.7


def test_faults_are_saved_and_drawn_alike(tmp_path: Path) -> None:
    model = smooth_model()
    files = []
    for number in range(2):
        faults_of(BelowResidual(0.5, spaces=SPACES), model).save(tmp_path / f"{number}")
        files.append((tmp_path / f"{number}").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BelowResidual(0.1, spaces={}), "Spaces are by tensor"),
        (lambda: BelowResidual(0.1, spaces=SPACES, share=0.0), r"\(0, 1\], not 0.0"),
        (lambda: BelowResidual(0.0, spaces=SPACES), "positive share"),
        (lambda: faults_of(BelowResidual(0.1, spaces={"moth": []}), smooth_model()), "moth"),
        (lambda: faults_of(BelowResidual(0.1, spaces={"0.weight": []}), quantised(smooth_model())), "int8. Leave it"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
