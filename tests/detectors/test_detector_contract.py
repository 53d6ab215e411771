"""What every detector promises, one suite over all of them."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers import drawn, examples, mask, same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import planaria.detectors
import planaria_lab.detectors
from planaria.detectors import Detector, Outlier, Residual
from planaria.errors import InvalidInput
from planaria.records import Record
from planaria_lab.detectors import FlippedBit
from planaria_lab.repairers import MeanFill, ZeroFill

Maker = Callable[[], Detector]

MEMBERS: dict[str, Maker] = {
    "outlier": Outlier,
    "residual of the mean": lambda: Residual(MeanFill()),
    "residual of the mean, at a rate": lambda: Residual(MeanFill(), rate=0.1),
    "flipped bit": lambda: FlippedBit(MeanFill()),
    "flipped bit of the sign, at a rate": lambda: FlippedBit(MeanFill(), bits="sign", rate=0.1),
    "flipped bit of the exponent, two folds": lambda: FlippedBit(ZeroFill(), bits="exponent", folds=2),
    "residual of zero, two folds": lambda: Residual(ZeroFill(), folds=2),
}
DTYPES = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64]
RUBBISH = [float("nan"), float("inf"), float("-inf"), 440.0, -440.0]

every_member = pytest.mark.parametrize("make", MEMBERS.values(), ids=MEMBERS.keys())


@st.composite
def weights(draw: st.DrawFn, *, empty: bool = True) -> Tensor:
    """Of any shape, empty, 0-dimensional and large enough for lines of their own among them; inside -100 to 100."""
    sizes = st.lists(st.integers(0 if empty else 1, 5), max_size=4)
    shape = tuple(draw(sizes | st.sampled_from([[40], [3, 40], [40, 3], [36, 33], [33, 2, 17]])))
    count = math.prod(shape)
    kind = draw(st.sampled_from(["any", "constant", "normal", "pruned"]))
    if kind == "any" and count <= 60:
        numbers = st.floats(-100, 100, width=16) | st.sampled_from([0.0, -0.0])
        values = torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count)))
    elif kind == "constant":
        values = torch.full((count,), draw(st.floats(-100, 100, width=32)))
    else:
        values = drawn(count, seed=draw(st.integers(0, 50))).clamp(-5, 5)
        if kind == "pruned":
            values = values * mask(count, share=0.2)
    return values.view(shape).to(draw(st.sampled_from(DTYPES)))


def allowed(detector: Detector, weight: Tensor) -> int:
    return int(getattr(detector, "rate", 0.0) * weight.numel())


def test_every_exported_detector_is_in_this_suite() -> None:
    exported = {
        kind
        for package in (planaria.detectors, planaria_lab.detectors)
        for kind in vars(package).values()
        if isinstance(kind, type) and issubclass(kind, Detector)
    }
    assert set(Detector.__subclasses__()) == exported - {Detector}
    assert {type(make()) for make in MEMBERS.values()} == exported - {Detector}


@every_member
@examples(20)
@given(weight=weights())
def test_the_intact_tensor_raises_no_more_false_alarms_than_allowed(make: Maker, weight: Tensor) -> None:
    detector, before = make(), weight.clone()
    record = detector.prepare(weight)
    known = detector.find(weight, record)
    assert known.shape == weight.shape and known.dtype == torch.bool
    assert int((~known).sum()) <= allowed(detector, weight)
    assert same_bits(weight, before)
    # The record may have been stored on the way.
    stored = Record({name: tensor.clone() for name, tensor in record.tensors.items()})
    assert torch.equal(make().find(weight, stored), known)
    assert record.nbytes == sum(tensor.numel() * tensor.element_size() for tensor in record.tensors.values())


@every_member
@examples(20)
@given(weight=weights(empty=False), rubbish=st.sampled_from(RUBBISH), data=st.data())
def test_what_cannot_be_a_weight_is_found_among_the_suspects_and_nothing_else_is_named(
    make: Maker, weight: Tensor, rubbish: float, data: st.DataObject
) -> None:
    detector = make()
    record = detector.prepare(weight)
    places = data.draw(st.sets(st.integers(0, weight.numel() - 1), min_size=1, max_size=max(1, weight.numel() // 5)))
    damaged = torch.zeros(weight.shape, dtype=torch.bool)
    damaged.view(-1)[list(places)] = True
    broken = torch.where(damaged, rubbish, weight.double()).to(weight.dtype)
    before = broken.clone()
    known = detector.find(broken, record)
    assert not known[damaged].any()
    assert same_bits(broken, before) and torch.equal(detector.find(broken, record), known)
    suspect = mask(*weight.shape, seed=data.draw(st.integers(0, 20)))
    among = detector.find(broken, record, suspect=suspect)
    assert among[~suspect].all() and not among[suspect & damaged].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["largest", "smallest", "both signs"])
@every_member
def test_the_ends_of_the_range_are_no_damage(make: Maker, dtype: torch.dtype, kind: str) -> None:
    limits = torch.finfo(dtype)
    end = min(limits.max, torch.finfo(torch.float32).max) if kind != "smallest" else limits.smallest_normal
    signs = torch.where(mask(40, 34, seed=1), 1, -1) if kind == "both signs" else torch.ones(40, 34)
    weight = (signs.double() * end).to(dtype)
    detector = make()
    assert int((~detector.find(weight, detector.prepare(weight))).sum()) <= allowed(detector, weight)


@every_member
def test_an_empty_tensor_stays_empty_and_needs_no_bytes(make: Maker) -> None:
    for shape in [(0,), (0, 6), (6, 0), (2, 0, 3)]:
        record = make().prepare(torch.zeros(shape))
        assert record.nbytes == 0
        assert make().find(torch.zeros(shape), record).shape == shape


@every_member
def test_weights_that_require_gradients_and_transposed_ones_are_taken(make: Maker) -> None:
    weight = drawn(36, 40)
    record = make().prepare(weight)
    broken = torch.where(mask(36, 40, share=0.1), drawn(36, 40, name="broken") * 9, weight)
    expected = make().find(broken, record)
    assert not expected.all()
    for other in (broken.clone().requires_grad_(), broken.T.contiguous().T):
        assert torch.equal(make().find(other, record), expected)


@every_member
def test_the_record_of_another_method_is_refused(make: Maker) -> None:
    with pytest.raises(InvalidInput, match="same method"):
        make().find(drawn(4, 6), Record({"rule": drawn(3)}))


@every_member
def test_suspects_that_do_not_fit_the_weight_are_refused(make: Maker, unchecked: None) -> None:
    weight = drawn(4, 6)
    record = make().prepare(weight)
    with pytest.raises(InvalidInput, match=r"shape \(4, 6\), not torch.bool of \(4, 5\)"):
        make().find(weight, record, suspect=mask(4, 5))
    with pytest.raises(InvalidInput, match=r"bool tensor .* not torch.int64"):
        make().find(weight, record, suspect=mask(4, 6).long())


@every_member
def test_detectors_refuse_integers_and_what_is_not_finite(make: Maker, unchecked: None) -> None:
    record = make().prepare(drawn(4, 6))
    for attempt in (make().prepare, lambda weight: make().find(weight, record)):
        with pytest.raises(InvalidInput, match=r"floating-point weights, not torch.int16.*Digests"):
            attempt(torch.ones(4, 6, dtype=torch.int16))
    for value in (float("nan"), float("inf")):
        weight = drawn(4, 6)
        weight[1, 2] = value
        with pytest.raises(InvalidInput, match=r"1 of 24 weights are NaN or infinite"):
            make().prepare(weight)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    for make in (
        lambda *, rate: Residual(MeanFill(), rate=rate),
        lambda *, rate: FlippedBit(MeanFill(), rate=rate),
    ):
        with pytest.raises(InvalidInput, match=f"not {rate}"):
            make(rate=rate)
