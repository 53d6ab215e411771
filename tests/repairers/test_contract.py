"""What every repairer promises, one suite over all of them."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import drawn, mask, same_bits
from hypothesis import given
from hypothesis import strategies as st
from members import MEMBERS, Maker
from torch import Tensor

import planaria.repairers
import planaria_lab.repairers
from planaria.errors import InvalidInput
from planaria.layouts import Flat, Layout, Sheet
from planaria.repairers import Record, Repairer
from planaria_lab.repairers import RescaledZero

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RUBBISH = [float("nan"), float("inf"), float("-inf"), 1e4]

every_member = pytest.mark.parametrize("make", MEMBERS.values(), ids=MEMBERS.keys())


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Callable[[], Layout], tuple[int, int]]:
    """A layout in 1, 2 or 3 dimensions and a shape that fits it; 1x1, 1xn and nx1 among them."""
    rows = draw(st.integers(1, 5))
    if draw(st.booleans()):
        return Flat, (rows, draw(st.integers(1, 6)))
    space = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    space = (2, *space) if draw(st.booleans()) else space
    return partial(Sheet, space), (rows, math.prod(space))


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Callable[[], Layout], Tensor, Tensor]:
    """A layout, an intact weight and a mask; signed zeros and constant tensors among the weights."""
    layout, shape = draw(layouts())
    values = st.floats(-100, 100, width=16) | st.sampled_from([0.0, -0.0])
    count = shape[0] * shape[1]
    kind = draw(st.sampled_from(["any", "any", "constant"]))
    numbers = [draw(values)] * count if kind == "constant" else draw(st.lists(values, min_size=count, max_size=count))
    known = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return layout, torch.tensor(numbers).view(shape), torch.tensor(known).view(shape)


def test_every_exported_repairer_is_in_this_suite() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    there = set()
    for package in (planaria.repairers, planaria_lab.repairers):
        exported = below(Repairer).intersection(kind for kind in vars(package).values() if isinstance(kind, type))
        assert exported == {kind for kind in below(Repairer) if kind.__module__.startswith(f"{package.__name__}.")}
        there |= exported
    assert {type(make(Flat(), (4, 6))) for make in MEMBERS.values()} == there - {Repairer}


def test_rescaled_zero_alone_changes_known_weights() -> None:
    weight, known = drawn(6, 7), mask(6, 7)
    restored = RescaledZero().restore(weight, known, Record())
    assert (restored[known] != weight[known]).all()
    torch.testing.assert_close(restored[known], weight[known] / known.float().mean())
    assert not restored[~known].any()


@every_member
@given(dtype=st.sampled_from(DTYPES), case=damaged(), rubbish=st.sampled_from(RUBBISH))
def test_the_contract_holds(
    make: Maker, dtype: torch.dtype, case: tuple[Callable[[], Layout], Tensor, Tensor], rubbish: float
) -> None:
    make_layout, weight, known = case
    repairer, weight = make(make_layout(), tuple(weight.shape)), weight.to(dtype)
    before, known_before = weight.clone(), known.clone()
    record = repairer.prepare(weight)
    assert same_bits(weight, before)
    noted = {name: tensor.clone() for name, tensor in record.tensors.items()}
    broken = torch.where(known, weight, torch.tensor(rubbish, dtype=dtype))
    broken_before = broken.clone()
    restored = repairer.restore(broken, known, record)
    # Shape, dtype, finite, known weights in place, nothing handed over was written to.
    assert restored.shape == weight.shape and restored.dtype == dtype
    assert restored.isfinite().all()
    if not isinstance(repairer, RescaledZero):
        assert same_bits(restored[known], weight[known])
    assert same_bits(broken, broken_before) and torch.equal(known, known_before)
    assert all(same_bits(tensor, noted[name]) for name, tensor in record.tensors.items())
    # What missing weights hold does not matter, and the same input has the same answer.
    assert same_bits(repairer.restore(torch.where(known, weight, 0), known, record), restored)
    if not isinstance(repairer, RescaledZero):
        assert same_bits(repairer.restore(restored, known, record), restored), "not idempotent"


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 6)])
@every_member
def test_nothing_known_and_everything_known_are_legal(make: Maker, shape: tuple[int, int]) -> None:
    weight = drawn(*shape)
    for layout in (Flat(), Sheet((shape[1],))):
        repairer = make(layout, shape)
        record = repairer.prepare(weight)
        nothing = torch.zeros(shape, dtype=torch.bool)
        assert repairer.restore(torch.full(shape, float("nan")), nothing, record).isfinite().all()
        assert same_bits(repairer.restore(weight, ~nothing, record), weight)


@every_member
def test_a_tensor_without_rows_stays_empty(make: Maker) -> None:
    weight = torch.zeros(0, 6)
    for layout in (Flat(), Sheet((2, 3))):
        repairer = make(layout, (0, 6))
        restored = repairer.restore(weight, torch.ones(0, 6, dtype=torch.bool), repairer.prepare(weight))
        assert restored.shape == (0, 6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["largest", "smallest", "both signs"])
@every_member
def test_results_are_finite_at_the_ends_of_the_range(make: Maker, dtype: torch.dtype, kind: str) -> None:
    limits = torch.finfo(dtype)
    signs = torch.where(mask(4, 6, seed=1), 1, -1).to(dtype) if kind == "both signs" else torch.ones(4, 6, dtype=dtype)
    weight = signs * (limits.tiny if kind == "smallest" else limits.max)
    repairer, known = make(Sheet((2, 3)), (4, 6)), mask(4, 6)
    if dtype == torch.float64 and kind != "smallest":  # beyond what a record in float32 can hold
        with pytest.raises(InvalidInput, match="not finite in float32"):
            repairer.prepare(weight)
        with pytest.raises(InvalidInput, match="not finite in float32"):
            repairer.restore(weight, known, Record())
        return
    restored = repairer.restore(weight, known, repairer.prepare(weight))
    assert restored.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
@every_member
def test_a_constant_tensor_is_restored_near_the_constant_or_with_zeros(make: Maker, value: float) -> None:
    weight, known = torch.full((4, 6), value), mask(4, 6)
    repairer = make(Sheet((2, 3)), (4, 6))
    filled = repairer.restore(weight, known, repairer.prepare(weight))[~known]
    if type(repairer).__name__ in ("ZeroFill", "RescaledZero"):
        assert not filled.any()
    else:
        # A constant is one frequency, and SpectralKriging leaves the others a share of 1e-4.
        near = 1e-3 if type(repairer).__name__ == "SpectralKriging" else 1e-5
        torch.testing.assert_close(filled, torch.full_like(filled, value), rtol=near, atol=1e-6)


@every_member
def test_the_record_counts_every_byte(make: Maker) -> None:
    record = make(Sheet((2, 3)), (4, 6)).prepare(drawn(4, 6))
    assert record.nbytes == sum(tensor.numel() * tensor.element_size() for tensor in record.tensors.values())


def test_a_record_counts_the_bytes_of_all_its_tensors() -> None:
    assert Record().nbytes == 0
    assert Record({"one": torch.zeros(3, 2), "two": torch.zeros(5, dtype=torch.int8)}).nbytes == 29


@every_member
def test_a_mask_of_another_shape_is_refused(make: Maker, unchecked: None) -> None:
    repairer = make(Flat(), (4, 6))
    with pytest.raises(InvalidInput, match=r"\(4, 6\) and known \(6, 4\)"):
        repairer.restore(drawn(4, 6), mask(6, 4), repairer.prepare(drawn(4, 6)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@every_member
def test_a_mask_that_is_not_bool_is_refused(make: Maker, dtype: torch.dtype, unchecked: None) -> None:
    repairer = make(Flat(), (4, 6))
    with pytest.raises(InvalidInput, match=f"bool tensor, not {dtype}"):
        repairer.restore(drawn(4, 6), mask(4, 6).to(dtype), repairer.prepare(drawn(4, 6)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@every_member
def test_a_known_weight_that_is_not_finite_is_refused_with_its_place(make: Maker, value: float) -> None:
    weight, repairer = drawn(4, 6), make(Flat(), (4, 6))
    record = repairer.prepare(weight)
    weight[2, 3] = weight[3, 1] = value
    known = torch.ones(4, 6, dtype=torch.bool)
    for attempt in (lambda: repairer.restore(weight, known, record), lambda: repairer.prepare(weight)):
        with pytest.raises(InvalidInput, match=rf"2 of 24 .*first \({value}\) at \(2, 3\)"):
            attempt()
    known[2, 3] = known[3, 1] = False
    assert repairer.restore(weight, known, record).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool], ids=str)
@every_member
def test_integers_are_refused(make: Maker, dtype: torch.dtype, unchecked: None) -> None:
    repairer = make(Flat(), (4, 6))
    with pytest.raises(InvalidInput, match=f"floating-point weights, not {dtype}"):
        repairer.prepare(torch.ones(4, 6, dtype=dtype))
    with pytest.raises(InvalidInput, match=f"floating-point weights, not {dtype}"):
        repairer.restore(torch.ones(4, 6, dtype=dtype), mask(4, 6), repairer.prepare(drawn(4, 6)))


@every_member
def test_weights_that_require_gradients_and_transposed_ones_are_taken(make: Maker) -> None:
    repairer, known = make(Sheet((2, 3)), (4, 6)), mask(4, 6)
    weight = drawn(4, 6)
    expected = repairer.restore(weight, known, repairer.prepare(weight))
    learned = weight.clone().requires_grad_()
    transposed = weight.T.contiguous().T
    for other in (learned, transposed):
        torch.testing.assert_close(repairer.restore(other, known, repairer.prepare(other)).detach(), expected)
