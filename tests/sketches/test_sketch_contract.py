"""What every sketch promises, one suite over all of them."""

import contextlib
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import drawn, examples, same_bits
from hypothesis import given
from hypothesis import strategies as st
from sketch_members import MEMBERS, Maker, moments_of, relative_error
from threadpoolctl import threadpool_limits
from torch import Tensor

import planaria.sketches
from planaria.errors import InvalidInput
from planaria.sketches import LowRankSketch, Sketch

every_member = pytest.mark.parametrize("make", MEMBERS.values(), ids=MEMBERS.keys())
SPACE = (4, 6)
levels = st.floats(0.01, 3)
seeds = st.integers(0, 999)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], Tensor, Tensor | None]:
    """A space, a matrix of such columns (1x1, 1xn and nx1 among them), and moments or none."""
    space = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    rows, columns, seed = draw(st.integers(1, 12)), math.prod(space), draw(seeds)
    weight = drawn(rows, columns, seed=seed) * draw(st.sampled_from([1.0, 1e-30, 1e30, 1e-41, 3e-3]))
    kind = draw(st.sampled_from(["noise", "noise", "constant", "sparse", "zero"]))
    if kind == "constant":
        weight = weight[0, 0].expand(rows, columns).clone()
    elif kind == "sparse":
        weight = weight * (drawn(rows, columns, seed=seed, name="sparse") > 1)
    elif kind == "zero":
        weight = torch.zeros(rows, columns)
    return space, weight, moments_of(columns, seed=seed) if draw(st.booleans()) else None


def test_every_exported_sketch_is_in_this_suite() -> None:
    exported = {
        kind for kind in vars(planaria.sketches).values() if isinstance(kind, type) and issubclass(kind, Sketch)
    } - {Sketch}
    assert {type(make((1,))) for make in MEMBERS.values()} == exported == set(Sketch.__subclasses__())


@every_member
@examples(20)
@given(case=cases(), level=levels)
def test_the_contract_holds(make: Maker, case: tuple[tuple[int, ...], Tensor, Tensor | None], level: float) -> None:
    space, weight, moments = case
    before = weight.clone()
    analysed = make(space).analyse(weight, moments=moments)
    content = analysed.encode(level)
    found = make(space).decode(content, tuple(weight.shape))
    assert found.shape == weight.shape and found.dtype == torch.float32
    assert found.isfinite().all()
    assert same_bits(weight, before)
    assert np.array_equal(analysed.encode(level), content)
    assert abs(analysed.nbytes(level) - len(content)) <= 0.03 * len(content) + 16


@every_member
@examples(10)
@given(case=cases())
def test_the_error_is_at_most_what_the_level_allows(
    make: Maker, case: tuple[tuple[int, ...], Tensor, Tensor | None]
) -> None:
    space, weight, moments = case
    unit = max(float(weight.abs().max()), 1e-45)
    sketch, whole = make(space), weight.double() / unit
    analysed = sketch.analyse(weight, moments=moments)
    if not weight.any():
        return
    metric = None if moments is None else moments + 0.01 * moments.diagonal().mean() * torch.eye(len(moments))
    for level in (1.0, 0.1, 0.01):
        found = sketch.decode(analysed.encode(level), tuple(weight.shape)).double() / unit
        # A number is off by 0.55 steps of sqrt(12) levels at most. Two factors, correlated inputs and steps to quarter
        # octaves add to that; the gain leaves no more than there was.
        worst = (0.55**2 * 12) * level**2 * 2 * 2**0.25 * (1 if metric is None else 3)
        rounding = 1e-3 if unit < 1e-35 else 1e-8  # subnormal numbers have few bits
        assert relative_error(found, whole, metric) <= min(1.0, worst) + rounding


@every_member
@pytest.mark.parametrize("with_moments", [False, True])
def test_a_smaller_level_takes_more_bytes_and_errs_less(make: Maker, with_moments: bool) -> None:
    weight, moments = drawn(40, 24), moments_of(24) if with_moments else None
    analysed = make(SPACE).analyse(weight, moments=moments)
    refinement = np.geomspace(3, 0.01, 12)
    sizes = [analysed.nbytes(level) for level in refinement]
    errors = [
        relative_error(make(SPACE).decode(analysed.encode(level), (40, 24)), weight, moments) for level in refinement
    ]
    assert sizes == sorted(sizes) and sizes[-1] > 600
    assert all(fine <= coarse for coarse, fine in pairwise(errors)) and errors[-1] < 0.001


@every_member
@pytest.mark.parametrize("with_moments", [False, True])
def test_the_error_of_noise_is_the_level(make: Maker, with_moments: bool) -> None:
    weight = drawn(150, 100)
    moments = torch.diag(drawn(100, name="scales").exp()) if with_moments else None
    analysed = make((10, 10)).analyse(weight, moments=moments)
    for level in (0.1, 0.03):
        found = make((10, 10)).decode(analysed.encode(level), (150, 100))
        share = relative_error(found, weight, moments) / level**2
        # Two factors have more numbers than the matrix, and each brings its noise, of which the refit takes some.
        numbers = (150 + 100) / 150 if isinstance(make((1,)), LowRankSketch) else 1
        assert 0.8 < share < 1.15 * numbers


@every_member
@pytest.mark.parametrize(("factor", "size"), [(2.0**-90, 1e9), (2.0**100, 1e-9)])
def test_only_relations_of_weights_and_of_moments_count(make: Maker, factor: float, size: float) -> None:
    weight, moments = drawn(8, 24), moments_of(24).double()
    sketch = make(SPACE)
    one = sketch.decode(sketch.analyse(weight, moments=moments).encode(0.2), (8, 24))
    other = sketch.decode(sketch.analyse(weight * factor, moments=moments * size).encode(0.2), (8, 24))
    torch.testing.assert_close(other / factor, one, rtol=1e-4, atol=1e-4)


@every_member
def test_an_endless_level_keeps_nothing_and_costs_nothing(make: Maker) -> None:
    analysed = make(SPACE).analyse(drawn(8, 24))
    for level in (1e9, math.inf):
        assert analysed.nbytes(level) == 0 and len(analysed.encode(level)) == 0
    assert not make(SPACE).decode(analysed.encode(math.inf), (8, 24)).any()


@every_member
def test_the_finest_level_is_nearly_exact(make: Maker) -> None:
    weight = drawn(8, 24)
    sketch = make(SPACE)
    analysed = sketch.analyse(weight, moments=moments_of(24))
    assert relative_error(sketch.decode(analysed.encode(1e-300), (8, 24)), weight) < 1e-7


@every_member
@pytest.mark.parametrize("shape", [(0, 24), (0, 1), (1, 1)])
def test_matrices_with_few_numbers_or_none_are_legal(make: Maker, shape: tuple[int, int]) -> None:
    sketch, weight = make((shape[1],)), drawn(*shape)
    for moments in (None, torch.eye(shape[1])):
        content = sketch.analyse(weight, moments=moments).encode(0.01)
        torch.testing.assert_close(sketch.decode(content, shape), weight, rtol=0.02, atol=0)


@every_member
def test_any_number_of_threads_decodes_the_same_bits(make: Maker) -> None:
    weight, sketch = drawn(300, 256), make((16, 16))
    content = sketch.analyse(weight).encode(0.1)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(sketch.decode(content, (300, 256)))
    assert same_bits(*found)


@every_member
def test_inputs_that_are_never_on_are_no_trouble(make: Maker) -> None:
    weight = drawn(8, 24)
    for moments in (torch.zeros(24, 24), torch.diag(torch.arange(24) < 2).float()):
        sketch = make(SPACE)
        found = sketch.decode(sketch.analyse(weight, moments=moments).encode(0.05), (8, 24))
        assert relative_error(found, weight) < 0.3


# --- Hostile content -------------------------------------------------------------------------------------------------


@every_member
@examples(30)
@given(cut=st.integers(0, 10_000), more=st.binary(max_size=9), seed=seeds)
def test_content_that_is_cut_or_longer_is_refused(make: Maker, cut: int, more: bytes, seed: int) -> None:
    content = make(SPACE).analyse(drawn(9, 24, seed=seed)).encode(0.3)
    wrong = np.append(content[: 1 + cut % len(content)], np.frombuffer(more, np.uint8))
    if np.array_equal(wrong, content):
        return
    with pytest.raises(InvalidInput):
        make(SPACE).decode(wrong, (9, 24))


@every_member
@examples(60)
@given(content=st.binary(max_size=64), shape=st.sampled_from([(9, 24), (1, 24), (0, 24)]))
def test_rubbish_is_refused_or_decodes_to_something_finite(make: Maker, content: bytes, shape: tuple[int, int]) -> None:
    header = np.array([40000, -10], "<i4").astype("<i2").view(np.uint8)
    for start in (header, header[:0]):
        try:
            found = make(SPACE).decode(np.append(start, np.frombuffer(content, np.uint8)), shape)
        except InvalidInput:
            continue
        assert found.shape == shape and found.isfinite().all()


@every_member
@examples(25)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused_or_decodes_to_something_finite(make: Maker, place: int, bit: int) -> None:
    content = make(SPACE).analyse(drawn(9, 24)).encode(0.3)
    content[place % len(content)] ^= 1 << bit
    with contextlib.suppress(InvalidInput):
        assert make(SPACE).decode(content, (9, 24)).isfinite().all()


@every_member
def test_a_step_beyond_float32_decodes_to_its_largest_number(make: Maker) -> None:
    content = make(SPACE).analyse(drawn(9, 24)).encode(0.3)
    content[2:4] = np.array([990], "<i2").view(np.uint8)
    found = make(SPACE).decode(content, (9, 24))
    assert found.isfinite().all() and found.abs().max() == torch.finfo(torch.float32).max


@every_member
@pytest.mark.parametrize(("mantissa", "exponent"), [(0, 0), (32767, 0), (40000, 1001), (40000, -1001)])
def test_a_step_that_no_encoder_writes_is_refused(make: Maker, mantissa: int, exponent: int) -> None:
    content = make(SPACE).analyse(drawn(9, 24)).encode(0.3)
    content[:4] = np.array([mantissa, exponent]).astype("<i2").view(np.uint8)
    with pytest.raises(InvalidInput, match=f"no {mantissa} 2"):
        make(SPACE).decode(content, (9, 24))


@every_member
def test_content_of_another_shape_is_refused(make: Maker) -> None:
    content = make(SPACE).analyse(drawn(9, 24)).encode(0.1)
    for shape in ((8, 24), (10, 24), (2, 24)):
        with pytest.raises(InvalidInput):
            make(SPACE).decode(content, shape)


# --- Arguments -------------------------------------------------------------------------------------------------------


@every_member
def test_what_is_no_finite_matrix_of_float32_is_refused(make: Maker, unchecked: None) -> None:
    for weight in (drawn(2, 24).double(), drawn(2, 24).half(), drawn(24), drawn(2, 24, 1)):
        with pytest.raises(InvalidInput, match="float32 matrix"):
            make(SPACE).analyse(weight)
    for broken in (math.nan, math.inf):
        weight = drawn(2, 24)
        weight[1, 3] = broken
        with pytest.raises(InvalidInput, match="1 weights are not finite"):
            make(SPACE).analyse(weight)


@every_member
def test_moments_that_do_not_fit_or_cannot_be_are_refused(make: Maker, unchecked: None) -> None:
    weight = drawn(2, 24)
    with pytest.raises(InvalidInput, match="24 columns"):
        make(SPACE).analyse(weight, moments=torch.eye(23))
    for wrong in (torch.eye(24) * math.nan, -torch.eye(24)):
        with pytest.raises(InvalidInput, match="Moments are finite"):
            make(SPACE).analyse(weight, moments=wrong)
    with pytest.raises(InvalidInput, match="negative mean square"):
        make(SPACE).analyse(weight, moments=torch.ones(24, 24) * 2 - torch.eye(24))


@every_member
@pytest.mark.parametrize("level", [0.0, -1.0, math.nan])
def test_a_level_that_is_not_above_zero_is_refused(make: Maker, level: float) -> None:
    analysed = make(SPACE).analyse(drawn(2, 24))
    for use in (analysed.nbytes, analysed.encode):
        with pytest.raises(InvalidInput, match="above 0"):
            use(level)


@every_member
def test_content_is_a_row_of_bytes_and_a_shape_has_two_sizes(make: Maker, unchecked: None) -> None:
    content = make(SPACE).analyse(drawn(2, 24)).encode(0.1)
    for wrong in (content.astype(np.int8), content[None], content.astype(np.uint32)):
        with pytest.raises(InvalidInput, match="row of uint8"):
            make(SPACE).decode(wrong, (2, 24))
    for shape in ((48,), (2, -24), (2, 4, 6)):
        with pytest.raises(InvalidInput, match="rows and columns"):
            make(SPACE).decode(content, shape)  # type: ignore[arg-type]
    strided = np.repeat(content, 2)[::2]
    assert same_bits(make(SPACE).decode(strided, (2, 24)), make(SPACE).decode(content, (2, 24)))
