"""One clear line for each thing that makes no sense: settings, batches, models."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from victims import ATTACKS, batch, victim

from planaria.errors import InvalidInput
from planaria.streams import generator
from planaria_lab.attacks import (
    FGSM,
    PGD,
    Attack,
    BitSearch,
    BitTrojan,
    FineTune,
    LabelFlip,
    Objective,
    ResidualAware,
    TargetedBitSearch,
    Trojaning,
)

pytestmark = pytest.mark.usefixtures("unchecked")

every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def refused(attack: Attack, model: nn.Module, inputs: object, labels: object, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        attack.apply(model, inputs, labels, generator(0, "test attack"))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@every_attack
@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (None, "labelled"),
        ([1, 2], "labelled"),
        (torch.zeros(3, dtype=torch.int64), "one for each of the 64 inputs"),
        (torch.zeros(64), "int64.*float32"),
        (torch.zeros(64, 1, dtype=torch.int64), "one for each"),
        (torch.full((64,), 10), "classes 0 to 9"),
        (torch.full((64,), -1), "classes 0 to 9"),
    ],
)
def test_labels_that_do_not_fit(attack: Callable[[], Attack], labels: object, match: str) -> None:
    refused(attack(), victim(), batch()[0], labels, match)


@every_attack
def test_inputs_that_are_none(attack: Callable[[], Attack]) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    refused(attack(), victim(), batch()[0][:0], none, "one row an input")
    refused(attack(), victim(), None, none, "one row an input")
    refused(attack(), victim(), torch.zeros(()), none, "one row an input")


class Around(nn.Module):
    """The victim with something done to its scores."""

    def __init__(self, change: Callable[[Tensor], object]):
        super().__init__()
        self.inner = victim()
        self.change = change

    def forward(self, inputs: Tensor) -> object:
        return self.change(self.inner(inputs))


@every_attack
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda scores: scores.detach(), "no gradient"),
        (lambda scores: nn.functional.one_hot(scores.argmax(1), 10).float(), "no gradient"),
        (lambda scores: scores.sign(), "0 or not finite"),
        (lambda scores: scores * 0, "0 or not finite"),
        (lambda scores: scores * float("nan"), "0 or not finite"),
        (lambda scores: scores.argmax(1), "one floating score"),
        (lambda scores: (scores,), "one floating score.*tuple"),
        (lambda scores: scores[:5], "one floating score"),
        (lambda scores: scores.reshape(3, 3), "does not run"),
    ],
)
def test_models_without_gradients(attack: Callable[[], Attack], change: Callable[[Tensor], object], match: str) -> None:
    made, model = attack(), Around(change)
    if hasattr(made, "layer"):
        made.layer = "inner.6.weight"
    if isinstance(made, Trojaning | BitTrojan) and "score" not in match and "run" not in match:
        match = "no gradient|0 or not finite"
    refused(made, model, *batch(), match)


@every_attack
def test_models_without_weights(attack: Callable[[], Attack]) -> None:
    flat = nn.Flatten()
    refused(attack(), flat, torch.rand(4, 10), torch.zeros(4, dtype=torch.int64), "no weight to attack")


def test_names_that_match_nothing() -> None:
    refused(PGD(0.1, names="blocks.*"), victim(), *batch(), r"blocks\.\*.*Choose by names")
    refused(PGD(0.1, names=["1.num_batches_tracked"]), victim(), *batch(), "no floating or int8 tensor")


def test_inputs_of_another_shape() -> None:
    refused(FGSM(0.1), victim(), torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64), "does not run")


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: PGD(0), "budget"),
        (lambda: PGD(-1.0), "budget"),
        (lambda: PGD(float("nan")), "budget"),
        (lambda: PGD(float("inf")), "budget"),
        (lambda: PGD(0.1, norm="l1"), "Unknown norm 'l1'.*linf, l2, l0"),  # type: ignore[arg-type]
        (lambda: PGD(0.1, steps=0), "1 step or more"),
        (lambda: PGD(0.1, norm="l0"), "count"),
        (lambda: PGD(0.1, norm="l0", count=0), "count"),
        (lambda: PGD(0.1, norm="l2", count=3), "count"),
        (lambda: PGD(0.1, norm="l0", count=3, random_start=True), "random start"),
        (lambda: FGSM(-0.1), "budget"),
        (lambda: BitSearch(0), "1 or more"),
        (lambda: BitSearch(candidates=0), "1 or more"),
        (lambda: BitSearch(bits="top"), "Unknown bits 'top'"),  # type: ignore[arg-type]
        (lambda: BitSearch(bits=[]), "at least one"),
        (lambda: BitSearch(bits=[-1]), "0 or more"),
        (lambda: BitSearch(bits=[1, 1]), "once"),
        (lambda: TargetedBitSearch(-1), "Classes are 0 or more"),
        (lambda: TargetedBitSearch(3, source=3), "into itself"),
        (lambda: TargetedBitSearch(3, stealth=1.0), "name the source"),
        (lambda: Objective(source=1, stealth=-1.0), "0 or more"),
        (lambda: Objective(source=1, stealth=float("nan")), "finite"),
        (lambda: Objective(source=-1), "Classes are 0 or more"),
        (lambda: BitTrojan(-1), "Classes are 0 or more"),
        (lambda: BitTrojan(1, neurons=0), "1 or more"),
        (lambda: BitTrojan(1, patch=0), "1 or more"),
        (lambda: Trojaning(1, steps=0), "1 or more"),
        (lambda: Trojaning(1, fitting_steps=0), "1 or more"),
        (lambda: Trojaning(1, rate=0), "above 0"),
        (lambda: Trojaning(1, clean_share=1.0), r"\[0, 1\)"),
        (lambda: FineTune(0), "1 or more"),
        (lambda: FineTune(rate=-1.0), "above 0"),
        (lambda: LabelFlip(0), r"\(0, 1\]"),
        (lambda: LabelFlip(1.1), r"\(0, 1\]"),
        (lambda: LabelFlip(steps=0), "1 or more"),
        (lambda: LabelFlip(rate=float("inf")), "above 0"),
    ],
)
def test_settings_outside_their_ranges(made: Callable[[], object], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        made()


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        (lambda: TargetedBitSearch(10), "target is 10"),
        (lambda: TargetedBitSearch(1, source=12), "source is 12"),
        (lambda: PGD(0.1, objective=Objective(target=10)), "target is 10"),
        (lambda: BitTrojan(10, patch=3), "target is 10"),
        (lambda: BitTrojan(1, patch=9), "does not fit"),
        (lambda: BitTrojan(1, patch=3, layer="7.weight"), "'7.weight' is no attacked weight.*0.weight, 4.weight"),
        (lambda: BitTrojan(1, patch=3, layer="4.weight"), "not the last"),
        (lambda: Trojaning(1, patch=3, layer="1.running_mean"), "is no attacked weight"),
        (lambda: Trojaning(1, patch=3, names="*.bias"), "weight of a layer"),
        (lambda: BitTrojan(1, patch=3, names="0.*"), "one row a class"),
        (lambda: BitSearch(bits=[32]), "no bit 32"),
        (lambda: ResidualAware(0.1, room=lambda _, stored: torch.zeros(3)), "room of tensor '0.weight'"),
        (lambda: ResidualAware(0.1, room=lambda _, stored: stored - 100), "0 or more"),
        (lambda: ResidualAware(0.1, room=lambda _, stored: stored * float("nan")), "0 or more"),
        (lambda: ResidualAware(0.1, room=lambda _, stored: stored * 0), "No stored number can change"),
    ],
)
def test_settings_that_the_model_has_no_place_for(attack: Callable[[], Attack], match: str) -> None:
    refused(attack(), victim(), *batch(), match)


@pytest.mark.parametrize("bits", ["sign", "exponent", "mantissa", [8]])
def test_int8_has_no_such_bits(bits: str | list[int]) -> None:
    refused(BitSearch(bits=bits), victim("int8"), *batch(), "int8")  # type: ignore[arg-type]


def test_a_budget_below_one_step_of_int8() -> None:
    refused(PGD(0.001), victim("int8"), *batch(), "No stored number can change")


def test_a_batch_that_cannot_show_the_objective() -> None:
    inputs, labels = batch()
    one = torch.full_like(labels, 3)
    refused(TargetedBitSearch(1, source=4), victim(), inputs, one, "No input of the batch has class 4")
    refused(TargetedBitSearch(1, source=3, stealth=1.0), victim(), inputs, one, "none is left to keep")


def test_a_trigger_for_inputs_that_have_no_range() -> None:
    inputs, labels = batch()
    refused(BitTrojan(1, patch=3), victim(), torch.ones_like(inputs), labels, "floating inputs of more than one value")


class Words(nn.Module):
    """Takes token numbers."""

    def __init__(self) -> None:
        super().__init__()
        source = generator(0, "test words")
        self.table = nn.Embedding(7, 4, _weight=torch.randn(7, 4, generator=source))
        self.fc = nn.utils.skip_init(nn.Linear, 4, 3)
        nn.init.ones_(self.fc.bias)
        self.fc.weight.data = torch.randn(3, 4, generator=source)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.fc(self.table(inputs).mean(1))
        return outputs


def test_tokens_are_attacked_but_carry_no_trigger() -> None:
    inputs = torch.randint(7, (16, 5), generator=generator(0, "test tokens"))
    labels = inputs[:, 0] % 3
    for attack in (PGD(0.1), BitSearch(2)):
        faults = attack.apply(Words(), inputs, labels, generator(0, "test attack"))
        assert any(len(one.index) for one in faults.tensors.values())
    refused(BitTrojan(1, patch=1), Words(), inputs, labels, "floating inputs")


def test_a_layer_that_is_not_run() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)})
    model.forward = model["used"].forward  # type: ignore[method-assign]
    inputs, labels = torch.rand(8, 4, generator=generator(0, "test unused")), torch.arange(8) % 3
    refused(Trojaning(1, patch=1, layer="unused.weight"), model, inputs, labels, "does not run its module 'unused'")
