"""What every damage promises, one suite over all of them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers import examples, same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from weights import DTYPES, FLOATS, SIGNED, UNSIGNED, random_weight, shapes

import planaria.damages
from planaria.damages import (
    AdjacentDouble,
    BitFlip,
    BurstFlip,
    ConductanceQuantisation,
    CorruptDevice,
    Damage,
    DeviceStuckAt,
    Disturb,
    Drift,
    Erasure,
    Faults,
    ModelFaults,
    NonFinite,
    NormalRandom,
    OnTensors,
    Page,
    ProgrammingNoise,
    Run,
    SetValue,
    SetZero,
    StuckAt,
    SwappedTensors,
    TruncatedFile,
    UniformRandom,
    WholeWeight,
    ZeroedTensor,
)
from planaria.errors import InvalidInput
from planaria.streams import generator


@dataclass(frozen=True)
class Member:
    """A damage, the same one where it has nothing to do, and what it breaks."""

    damage: Damage
    nothing: Damage | None = None
    dtypes: tuple[torch.dtype, ...] = tuple(DTYPES)
    finite: bool = False  # breaks finite weights only
    listed_unchanged: bool = False  # its faults also list weights that already held their new value

    def weight(self, dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
        weight = random_weight(dtype, *shape, seed=seed)
        if self.finite:
            values = weight.double()
            weight = torch.where(values.isfinite(), values, 1.0).to(dtype)
        return weight


REAL = (*FLOATS, *SIGNED, *UNSIGNED)
ANALOG = {"dtypes": tuple(FLOATS), "finite": True}
MEMBERS = {
    "bit flip": Member(BitFlip(0.1), BitFlip(0.0)),
    "bit flip, one way": Member(BitFlip(0.2, direction="0to1"), BitFlip(0.0, direction="1to0")),
    "burst flip": Member(BurstFlip(0.3, length=5), BurstFlip(0.0, length=5)),
    "adjacent double": Member(AdjacentDouble(0.5), AdjacentDouble(0.0), (*REAL, torch.complex64)),
    "stuck at": Member(StuckAt(0.3, value=1), StuckAt(0.0, value=1)),
    "whole weight": Member(WholeWeight(0.3), WholeWeight(0.0)),
    "run": Member(Run(20)),
    "page": Member(Page(0.5, bytes=16), Page(0.0, bytes=16)),
    "page within a weight": Member(Page(0.5, bytes=3), Page(count=0, bytes=3)),
    "device stuck at": Member(DeviceStuckAt(0.2, 0.3), DeviceStuckAt(0.0, 0.0), **ANALOG),
    "corrupt device": Member(CorruptDevice(0.5), CorruptDevice(0.0), dtypes=tuple(FLOATS)),
    "programming noise, pcm": Member(ProgrammingNoise(), ProgrammingNoise(scale=0.0), **ANALOG),
    "programming noise, reram": Member(ProgrammingNoise("reram"), ProgrammingNoise("reram", scale=0.0), **ANALOG),
    "drift": Member(Drift(1e6), Drift(0.0, read_noise=0.0), **ANALOG),
    "conductance quantisation": Member(ConductanceQuantisation(3), **ANALOG),
    "set zero": Member(SetZero(0.5), SetZero(0.0)),
    "set value": Member(SetValue(0.5, value=1.0), SetValue(0.0, value=1.0)),
    "uniform random": Member(UniformRandom(0.5, low=-90.0, high=90.0), UniformRandom(0.0), REAL),
    "normal random": Member(NormalRandom(0.5, mean=3.0, std=99.0), NormalRandom(0.0), REAL),
    "disturb, normal": Member(Disturb(0.5, size=0.5), Disturb(0.0, size=0.5), REAL),
    "disturb, uniform": Member(
        Disturb(0.5, size=9.0, distribution="uniform", unit="absolute"), Disturb(1.0, size=0.0), REAL
    ),
    "non-finite": Member(NonFinite(0.5), NonFinite(0.0), (*FLOATS, torch.complex64)),
    **{
        f"erasure, {pattern}": Member(
            Erasure(0.4, pattern=pattern), Erasure(0.0, pattern=pattern), listed_unchanged=True
        )
        for pattern in ("iid", "block", "row", "column", "channel", "ring")
    },
    "erasure, tensor": Member(Erasure(1.0, pattern="tensor"), listed_unchanged=True),
    "zeroed tensor": Member(ZeroedTensor(1.0), ZeroedTensor(0.0)),
    "truncated file": Member(TruncatedFile(), TruncatedFile(1.0)),
    "on tensors": Member(OnTensors(BitFlip(0.1), names=["*"]), OnTensors(BitFlip(0.0), names=["w*"])),
}  # fmt: skip
FOR_MODELS = [SwappedTensors()]

every_member = pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS.keys())


def same_faults(one: Faults, other: Faults) -> bool:
    return one.shape == other.shape and all(
        same_bits(getattr(one, field), getattr(other, field)) for field in ("index", "old", "new")
    )


def same_model_faults(one: ModelFaults, other: ModelFaults) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        same_faults(faults, other.tensors[name]) for name, faults in one.tensors.items()
    )


def test_every_damage_is_in_this_suite() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    shipped = {kind for kind in below(Damage) if kind.__module__.startswith("planaria.damages.")}
    exported = {kind for kind in vars(planaria.damages).values() if isinstance(kind, type) and issubclass(kind, Damage)}
    ready = {kind for kind in shipped if not kind.__abstractmethods__}
    assert {kind.__name__ for kind in exported} == {kind.__name__ for kind in ready} | {"Damage"}
    assert {type(one).__name__ for one in [*(member.damage for member in MEMBERS.values()), *FOR_MODELS]} == {
        kind.__name__ for kind in ready
    }


@every_member
@examples(40)
@given(data=st.data(), shape=shapes, seed=st.integers(0, 99), transposed=st.booleans())
def test_the_contract_holds(
    member: Member, data: st.DataObject, shape: tuple[int, ...], seed: int, transposed: bool
) -> None:
    dtype = data.draw(st.sampled_from(member.dtypes))
    weight = member.weight(dtype, *shape, seed=seed)
    if transposed and len(shape) > 1:
        weight = weight.transpose(0, 1)
    before = weight.clone()
    source = generator(seed, "damage")
    damaged, faults = member.damage.apply(weight, source)
    assert same_bits(weight, before)
    assert faults.shape == tuple(weight.shape) == tuple(damaged.shape) and faults.old.dtype == dtype
    faults.require_sound("this list")
    assert same_bits(faults.old, before.reshape(-1)[faults.index])
    assert same_bits(faults.replay(weight), damaged)
    assert same_bits(faults.undo(damaged), before)
    assert same_bits(damaged[faults.known], before[faults.known])
    if not member.listed_unchanged:
        assert len(Faults.between(before, damaged).index) == len(faults.index)
    again, same = member.damage.apply(weight, generator(seed, "damage"))
    assert same_bits(again, damaged) and same_faults(same, faults)


@every_member
def test_where_there_is_nothing_to_do_there_are_no_faults(member: Member) -> None:
    for weight in (member.weight(dtype, *shape) for dtype in member.dtypes for shape in ((0, 3), (7, 5))):
        if weight.numel() and member.nothing is None:
            continue
        damage = member.nothing or member.damage
        damaged, faults = damage.apply(weight, generator(0, "damage"))
        assert len(faults.index) == 0 and same_bits(damaged, weight)


@every_member
def test_faults_come_back_from_a_file(member: Member, tmp_path: Path) -> None:
    model = {f"w{number}": member.weight(dtype, 6, 5) for number, dtype in enumerate(member.dtypes)}
    faults = member.damage.apply_to_model(model, generator(0, "damage"))
    faults.save(tmp_path / "all")
    assert same_model_faults(ModelFaults.load(tmp_path / "all"), faults)


@every_member
def test_every_tensor_of_a_model_is_listed_and_comes_back(member: Member) -> None:
    model = {f"w{number}": member.weight(dtype, 6, 5) for number, dtype in enumerate(member.dtypes)}
    model |= {"w empty": member.weight(member.dtypes[0], 0, 3), "w scalar": member.weight(member.dtypes[0])}
    before = {name: weight.clone() for name, weight in model.items()}
    faults = member.damage.apply_to_model(model, generator(0, "damage"))
    damaged = faults.replay(model)
    assert list(faults.tensors) == list(model)
    assert any(not same_bits(damaged[name], before[name]) for name in model)
    for name, restored in faults.undo(damaged).items():
        assert same_bits(model[name], before[name]) and same_bits(restored, before[name])


@pytest.mark.parametrize(
    "damage", [member.damage for member in MEMBERS.values() if not isinstance(member.damage, OnTensors)], ids=repr
)
def test_a_model_without_tensors_has_no_faults(damage: Damage) -> None:
    assert damage.apply_to_model({}, generator(0, "damage")).tensors == {}


@every_member
def test_neither_threads_nor_the_global_stream_decide_what_breaks(member: Member) -> None:
    weight = member.weight(torch.float64, 23_401, 3)  # more than are drawn at a time
    global_state = torch.get_rng_state()
    threads = torch.get_num_threads()
    answers = []
    for number in (1, 2):
        torch.set_num_threads(number)
        answers.append(member.damage.apply(weight, generator(0, "damage"))[1])
    torch.set_num_threads(threads)
    assert same_faults(*answers)
    assert torch.equal(torch.get_rng_state(), global_state)


@every_member
def test_its_text_says_what_it_was_made_of(member: Member) -> None:
    text = repr(member.damage)
    assert text.startswith(f"{type(member.damage).__name__}(") and " object at " not in text


@every_member
def test_a_dtype_that_it_cannot_break_is_refused(member: Member, unchecked: None) -> None:
    for dtype in set(DTYPES) - set(member.dtypes):
        with pytest.raises(InvalidInput, match=f"{dtype}.*(leave|Leave) such tensors out"):
            member.damage.apply(random_weight(dtype, 9), generator(0, "damage"))
