"""What every attack promises, on every dtype of weights."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import same_bits
from torch import Tensor, nn
from victims import ATTACKS, DTYPES, TARGETED, UNTARGETED, answers, batch, broken, loss, victim

from planaria.damages import ModelFaults
from planaria.errors import InvalidInput
from planaria.streams import generator
from planaria_lab.attacks import Attack
from planaria_lab.attacks.base import ObjectiveAttack

every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def applied(attack: Callable[[], Attack], model: nn.Module, seed: int = 0) -> ModelFaults:
    inputs, labels = batch()
    inputs = inputs.to(next(model.parameters()).dtype)
    return attack().apply(model, inputs, labels, generator(seed, "test attack"))


def equal(one: ModelFaults, other: ModelFaults) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(faults.index, other.tensors[name].index) and same_bits(faults.new, other.tensors[name].new)
        for name, faults in one.tensors.items()
    )


def bystanders(model: nn.Module) -> list[object]:
    """Everything beside the tensors' bits that an attack could leave behind."""
    return [
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        [(name, id(tensor), tensor.requires_grad, id(tensor.grad)) for name, tensor in model.named_parameters()],
        [(name, id(tensor)) for name, tensor in model.named_buffers()],
    ]


@every_attack
@every_dtype
def test_the_model_is_left_as_it_was(attack: Callable[[], Attack], dtype: str) -> None:
    model = victim(dtype).train()
    model[1].eval()  # type: ignore[index]
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    next(model.parameters()).requires_grad_(False)
    before, around = copy.deepcopy(model.state_dict()), bystanders(model)
    applied(attack, model)
    assert all(same_bits(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert bystanders(model) == around


@every_attack
@every_dtype
def test_faults_are_exact_and_cover_the_whole_state(attack: Callable[[], Attack], dtype: str, tmp_path: Path) -> None:
    model = victim(dtype)
    state = model.state_dict()
    faults = applied(attack, model)
    assert list(faults.tensors) == list(state)
    assert any(len(one.index) for one in faults.tensors.values())
    for name, one in faults.tensors.items():
        one.require_sound(name)
        assert one.new.dtype == state[name].dtype
        assert not one.new.isnan().any() and one.new.isfinite().all()
        assert same_bits(one.old, state[name].flatten()[one.index])
        assert len(one.index) == 0 or state[name].dim() >= 2, "biases, scales and statistics are spared"
    after = faults.replay(state)
    assert all(same_bits(tensor, state[name]) for name, tensor in faults.undo(after).items())
    faults.save(tmp_path / "attack.safetensors")
    loaded = ModelFaults.load(tmp_path / "attack.safetensors").replay(state)
    assert all(same_bits(tensor, loaded[name]) for name, tensor in after.items())


@every_attack
def test_the_same_generator_gives_the_same_faults(attack: Callable[[], Attack]) -> None:
    once, again = applied(attack, victim()), applied(attack, victim())
    assert equal(once, again)


@pytest.mark.parametrize("attack", ["PGD from a random start", "LabelFlip", "BitTrojan", "Trojaning"])
def test_another_generator_gives_others_where_chance_plays(attack: str) -> None:
    assert not equal(applied(ATTACKS[attack], victim()), applied(ATTACKS[attack], victim(), seed=1))


@pytest.mark.parametrize("attack", UNTARGETED.values(), ids=UNTARGETED.keys())
@every_dtype
def test_untargeted_attacks_raise_the_loss(attack: Callable[[], Attack], dtype: str) -> None:
    model = victim(dtype)
    faults = applied(attack, model)
    assert loss(broken(model, faults), *batch()) > 1.5 * loss(victim(dtype), *batch())


@pytest.mark.parametrize("attack", [name for name in TARGETED if "Troj" not in name])
@every_dtype
def test_targeted_attacks_come_nearer_their_objective(attack: str, dtype: str) -> None:
    model, (inputs, labels) = victim(dtype), batch()
    made = TARGETED[attack]()
    assert isinstance(made, ObjectiveAttack)
    faults = applied(TARGETED[attack], model)
    after, before = (
        float(made.objective.value(answers(one, inputs), labels)) for one in (broken(model, faults), victim(dtype))
    )
    assert after > before + 0.1


@every_attack
def test_only_named_tensors_are_attacked(attack: Callable[[], Attack]) -> None:
    made = attack()
    made.names = ["6.*"]
    if hasattr(made, "layer"):
        made.layer = "6.weight"
    faults = made.apply(victim(), *batch(), generator(0, "test attack"))
    assert {name for name, one in faults.tensors.items() if len(one.index)} <= {"6.weight", "6.bias"}


@every_attack
def test_no_global_random_number_is_drawn(attack: Callable[[], Attack]) -> None:
    before = torch.random.get_rng_state()
    applied(attack, victim())
    assert torch.equal(torch.random.get_rng_state(), before)


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_switched_on_where_the_caller_has_none(
    attack: Callable[[], Attack], mode: Callable[[], torch.no_grad]
) -> None:
    expected = applied(attack, victim())
    with mode():
        assert equal(applied(attack, victim()), expected)


class Stumbling(nn.Module):
    """Fails after a few runs, in the middle of an attack."""

    def __init__(self, runs: int, error: type[BaseException]):
        super().__init__()
        self.inner = victim()
        self.left = [runs]
        self.error = error

    def forward(self, inputs: Tensor) -> Tensor:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise self.error("stumbled")
        outputs: Tensor = self.inner(inputs)
        return outputs


@every_attack
@pytest.mark.parametrize(("error", "raised"), [(RuntimeError, InvalidInput), (KeyboardInterrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("runs", [0, 1])
def test_a_failing_model_is_left_as_it_was(
    attack: Callable[[], Attack], error: type[BaseException], raised: type[BaseException], runs: int
) -> None:
    model = Stumbling(runs, error).train()
    before, around = copy.deepcopy(model.state_dict()), bystanders(model)
    with pytest.raises(raised, match="stumbled"):
        applied(attack, model)
    assert all(same_bits(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert bystanders(model) == around


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.skip_init(nn.Linear, 10, 10, bias=False)
        self.second = nn.utils.skip_init(nn.Linear, 10, 10, bias=False)
        self.first.weight.data = torch.randn(10, 10, generator=generator(0, "test tied"))
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.second(torch.relu(self.first(inputs)))
        return outputs


@pytest.mark.parametrize("attack", ["PGD", "BitSearch", "LabelFlip"])
def test_tied_weights_change_under_both_names(attack: str) -> None:
    model = Tied()
    inputs = torch.randn(32, 10, generator=generator(0, "test inputs"))
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    faults = ATTACKS[attack]().apply(model, inputs, labels, generator(0, "test attack"))
    one, other = faults.tensors["first.weight"], faults.tensors["second.weight"]
    assert len(one.index)
    assert torch.equal(one.index, other.index) and same_bits(one.new, other.new)
