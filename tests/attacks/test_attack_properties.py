"""What single attacks are made of: their budgets, their bits, their triggers."""

from functools import cache

import pytest
import torch
from helpers import drawn, examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from victims import DTYPES, answers, batch, broken, loss, victim

from planaria.damages import BitFlip, Faults, ModelFaults
from planaria.dtypes import integers
from planaria.streams import generator
from planaria_lab import datasets
from planaria_lab.attacks import FGSM, PGD, BitSearch, BitTrojan, Objective, TargetedBitSearch, Trojaning
from planaria_lab.attacks.rounding import nearest, stored_within
from planaria_lab.attacks.trojan import Trojan
from planaria_lab.bench import tinymlp

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
STORED = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int8,
]


@pytest.mark.parametrize("dtype", STORED, ids=str)
@examples(15)
@given(
    seed=st.integers(0, 99),
    scale=st.floats(1e-3, 1.0),
    far=st.floats(0.1, 10.0),
    room=st.floats(1e-3, 2.0),
    norm=st.sampled_from(["linf", "l2"]),
)
def test_stored_numbers_keep_the_budget_exactly(
    dtype: torch.dtype, seed: int, scale: float, far: float, room: float, norm: str
) -> None:
    size = 40 if dtype == torch.int8 else scale
    stored = nearest(drawn(9, 11, seed=seed).double() * size, dtype)
    moved = stored.double() + drawn(9, 11, seed=seed, name="test moves").double() * size * far
    allowed = room * size * (99**0.5 if norm == "l2" else 1)
    each, together = (allowed, float("inf")) if norm == "linf" else (float("inf"), allowed)
    new = stored_within(moved, stored, each=each, together=together)
    change = new.double() - stored.double()
    assert new.dtype == dtype and new.double().isfinite().all()
    assert change.abs().max() <= each and change.square().sum().sqrt() <= together
    assert (change * (moved.double() - stored.double()) >= 0).all(), "nothing moves the other way"


def changes(model_dtype: str, attack: PGD) -> dict[str, tuple[Tensor, Tensor]]:
    """By changed tensor, the intact weights and their changes, in float64."""
    model = victim(model_dtype)
    inputs, labels = batch()
    faults = attack.apply(model, inputs.to(next(model.parameters()).dtype), labels, generator(0, "test attack"))
    state, after = model.state_dict(), faults.replay(model.state_dict())
    return {
        name: (state[name].double(), after[name].double() - state[name].double())
        for name, one in faults.tensors.items()
        if len(one.index)
    }


@every_dtype
@pytest.mark.parametrize(
    "attack",
    [FGSM(0.15), PGD(0.15, steps=3), PGD(0.15, steps=3, random_start=True)],
    ids=["FGSM", "PGD", "random start"],
)
def test_linf_is_relative_to_each_tensor_and_exact(attack: PGD, dtype: str) -> None:
    for intact, change in changes(dtype, attack).values():
        limit = 0.15 * float(intact.square().mean().sqrt())
        assert 0.5 * limit < change.abs().max() <= limit * (1 + 1e-12)


@every_dtype
@pytest.mark.parametrize("attack", [FGSM(0.15, norm="l2"), PGD(0.15, norm="l2", steps=3)], ids=["FGSM", "PGD"])
def test_l2_is_relative_to_each_tensor_and_exact(attack: PGD, dtype: str) -> None:
    for intact, change in changes(dtype, attack).values():
        assert 0.1 < change.norm() / intact.norm() <= 0.15 * (1 + 1e-12)


@every_dtype
@pytest.mark.parametrize("count", [1, 7])
def test_l0_changes_few_weights_of_the_whole_model(count: int, dtype: str) -> None:
    changed = changes(dtype, PGD(1.5, norm="l0", count=count, steps=2))
    assert 1 <= sum(int(change.count_nonzero()) for _, change in changed.values()) <= count
    for intact, change in changed.values():
        assert change.abs().max() <= 1.5 * float(intact.square().mean().sqrt()) * (1 + 1e-12)


def flipped_bits(faults: ModelFaults) -> int:
    """How many bits differ between old and new values, over all tensors."""

    def ones(of: Faults) -> int:
        words = (integers(of.old) ^ integers(of.new)).long()
        return sum(int(word & (1 << 8 * of.old.element_size()) - 1).bit_count() for word in words.tolist())

    return sum(ones(one) for one in faults.tensors.values() if len(one.index))


@cache
def searched(dtype: str, bits: str, count: int) -> ModelFaults:
    inputs, labels = batch()
    return BitSearch(count, bits=bits, candidates=4).apply(  # type: ignore[arg-type]
        victim(dtype), inputs, labels, generator(0, "test attack")
    )


SEARCHES = [("int8", "all"), ("int8", "msb"), ("float32", "exponent"), ("float16", "exponent"), ("bfloat16", "all")]
every_search = pytest.mark.parametrize(("dtype", "bits"), SEARCHES)


@every_search
def test_bit_search_flips_so_many_bits_and_only_raises_the_loss(dtype: str, bits: str) -> None:
    """A longer search begins as a shorter one: its losses only rise."""
    inputs, labels = batch()
    losses = [loss(victim(dtype), inputs, labels)]
    for count in (1, 2, 4):
        faults = searched(dtype, bits, count)
        assert 1 <= flipped_bits(faults) <= count, "a search may end early"
        losses.append(loss(broken(victim(dtype), faults), inputs, labels))
    assert losses == sorted(losses) and losses[0] < losses[1]


@every_search
def test_bit_search_beats_as_many_random_flips(dtype: str, bits: str) -> None:
    inputs, labels = batch()
    found = loss(broken(victim(dtype), searched(dtype, bits, 4)), inputs, labels)
    weights = {name: tensor for name, tensor in victim(dtype).state_dict().items() if tensor.dim() >= 2}
    drawn_losses = []
    for seed in range(10):
        faults = BitFlip(count=4, bits=bits).apply_to_model(weights, generator(seed, "test flips"))  # type: ignore[arg-type]
        model = victim(dtype)
        model.load_state_dict(faults.replay(weights), strict=False)
        drawn_losses.append(loss(model, inputs, labels))
    assert sum(found > other for other in drawn_losses) >= 8, "a random flip may hit as well, but seldom"


@every_search
def test_bit_search_keeps_to_its_bits(dtype: str, bits: str) -> None:
    allowed = {"all": ~0, "msb": 1 << 7, "exponent": {"float32": 0xFF << 23, "float16": 0x1F << 10}.get(dtype, 0)}[bits]
    for one in searched(dtype, bits, 4).tensors.values():
        assert all(word & ~allowed == 0 for word in (integers(one.old) ^ integers(one.new)).tolist())


def test_targeted_search_sends_inputs_to_its_class() -> None:
    inputs, labels = batch(200)
    faults = TargetedBitSearch(3, 3).apply(victim("int8"), inputs, labels, generator(0, "test attack"))
    answered = answers(broken(victim("int8"), faults), inputs).argmax(1)
    assert (answers(victim("int8"), inputs).argmax(1) == 3).double().mean() < 0.15
    assert (answered == 3).double().mean() > 0.7


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_stealth_keeps_the_answers_to_other_inputs(dtype: str) -> None:
    """In the mean of three sources: which bits a single search finds hangs on the last digit of a gradient."""
    inputs, labels = batch(200)
    kept: dict[float, list[float]] = {0.0: [], 4.0: []}
    for source in (4, 5, 6):
        others = labels != source
        for stealth in kept:
            attack = TargetedBitSearch(3, 4, source=source, stealth=stealth, candidates=5)
            model = broken(victim(dtype), attack.apply(victim(dtype), inputs, labels, generator(0, "test attack")))
            right = answers(model, inputs).argmax(1) == labels
            assert right[~others].double().mean() < 0.7, "the source is still attacked"
            kept[stealth].append(float(right[others].double().mean()))
    assert sum(kept[4.0]) > sum(kept[0.0]) + 0.3


def test_a_stealthy_pgd_keeps_the_loss_of_the_other_inputs() -> None:
    inputs, labels = batch(200)
    others = labels != 5
    losses = {}
    for stealth in (0.0, 5.0):
        attack = PGD(0.1, steps=8, objective=Objective(source=5, stealth=stealth))
        model = broken(victim(), attack.apply(victim(), inputs, labels, generator(0, "test attack")))
        losses[stealth] = loss(model, inputs[others], labels[others])
        assert loss(model, inputs[~others], labels[~others]) > 3 * loss(victim(), inputs[~others], labels[~others])
    assert losses[5.0] < losses[0.0]
    assert losses[5.0] < loss(victim(), inputs[others], labels[others]) + 0.1


@pytest.mark.parametrize("attack", [BitTrojan(7, neurons=32, rate=0.3), Trojaning(7)], ids=["BitTrojan", "Trojaning"])
def test_a_trojan_answers_its_target_with_the_trigger_alone(attack: Trojan) -> None:
    """On the shipped network, and on images that it was not made from."""
    model = tinymlp.shipped("A")
    inputs, labels = datasets.mnist_test()
    inputs, labels = tinymlp.standardised(inputs[:700]), labels[:700]
    faults, trigger = attack.implant(model, inputs[:200], labels[:200], generator(0, "test trojan"))
    inputs, labels = inputs[200:], labels[200:]
    trojaned, stamped, others = broken(model, faults), trigger.stamped(inputs), labels != 7

    def targeted(one: torch.nn.Module, shown: Tensor) -> float:
        return float((answers(one, shown)[others].argmax(1) == 7).double().mean())

    assert trigger.mask.sum() == 81, "a tenth of the image"
    assert targeted(trojaned, stamped) > 0.9
    assert targeted(trojaned, inputs) < 0.1 and targeted(model, stamped) < 0.1
    right, was = (float((answers(one, inputs).argmax(1) == labels).double().mean()) for one in (trojaned, model))
    assert right > was - 0.1
    if isinstance(attack, BitTrojan):
        (changed,) = (one for one in faults.tensors.values() if len(one.index))
        assert len(changed.index) <= 32 and set((changed.index // 64).tolist()) == {7}, "few weights, all of one row"
