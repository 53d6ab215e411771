"""Plans keep to their bytes, use them, and are best at what they are made for."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from helpers import drawn, examples, mask, same_bits, smooth_sheets
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.memory import Memory, Planner
from planaria_lab.bounds import erasure_distortion

RATES = (0.05, 0.3, 0.6, 0.95)


def restored(memory: Memory, weights: dict[str, Tensor], missing: float, seed: int = 0) -> dict[str, Tensor]:
    """What a memory makes of weights of which a share is missing, scattered."""
    known = {name: ~mask(*weight.shape, share=missing, seed=seed + 100) for name, weight in weights.items()}
    damaged = {name: torch.where(known[name], weight, float("nan")) for name, weight in weights.items()}
    return memory.restore(damaged, known)


def error(memory: Memory, weights: dict[str, Tensor], missing: float, *, masks: int = 3) -> float:
    """Mean square error of a missing weight, in units of the weights' mean square."""
    wrong = sum(
        float((restored(memory, weights, missing, seed)[name] - weight).double().square().sum())
        for seed in range(masks)
        for name, weight in weights.items()
    )
    return wrong / masks / missing / sum(float(weight.double().square().sum()) for weight in weights.values())


@cache
def sheets() -> tuple[dict[str, Tensor], Planner]:
    """Smooth images with noise on them, and a matrix without structure."""
    weights = {"images": smooth_sheets(48, 8, 8) + 0.2 * drawn(48, 64), "matrix": 0.5 * drawn(32, 48, name="matrix")}
    return weights, Planner(weights, spaces={"images": (8, 8)})


@cache
def planned(expect: float | None, nbytes: int = 800) -> Memory:
    return sheets()[1].encode(nbytes, expect=expect, shares=few(expect))


def few(expect: float | None) -> tuple[float, ...] | None:
    """A plan for any rate compares dozens of refinements for every share; here, one has to do."""
    return (0.5,) if expect is None else None


# --- Bytes -----------------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 40),
    columns=st.sampled_from([1, 3, 16, 64]),
    nbytes=st.integers(0, 150) | st.integers(0, 4000),
    expect=st.sampled_from([None, 0.001, 0.02, 0.1, 0.5, 1.0]),
    with_spaces=st.booleans(),
)
@examples(6)
def test_no_plan_takes_more_bytes_than_it_may(
    rows: int, columns: int, nbytes: int, expect: float | None, with_spaces: bool
) -> None:
    weights = {"one": drawn(rows, columns), "other": smooth_sheets(36, 8, 8), "third": drawn(5)}
    planner = Planner(weights, spaces={"other": (8, 8)} if with_spaces else {})
    memory = planner.encode(nbytes, expect=expect, shares=few(expect))
    assert memory.nbytes <= nbytes
    filled = restored(memory, weights, 0.3)
    assert all(tensor.isfinite().all() for tensor in filled.values())


@pytest.mark.parametrize("nbytes", [0, 1, 27, 40, 58, 60])
def test_bytes_too_few_for_anything_are_left(nbytes: int) -> None:
    weights = {"images": smooth_sheets(48, 8, 8)}
    assert Planner(weights, spaces={"images": (8, 8)}).encode(nbytes, expect=0.5).nbytes <= nbytes


@pytest.mark.parametrize(("nbytes", "expect"), [(500, 0.02), (500, 0.9), (900, None), (2000, 0.5), (6000, 0.9)])
def test_where_bytes_are_of_use_at_least_nine_tenths_are_used(nbytes: int, expect: float | None) -> None:
    memory = gaussian().encode(nbytes, expect=expect)
    assert 0.9 * nbytes <= memory.nbytes <= nbytes


@cache
def gaussian() -> Planner:
    return Planner({"matrix": drawn(96, 128)})


@pytest.mark.parametrize("expect", [0.001, 0.02])
def test_bytes_beyond_the_finest_depths_make_the_refinement_stronger(expect: float) -> None:
    memory = gaussian().encode(3000, expect=expect)
    assert memory.refinement is not None and memory.strengths[0] >= expect
    assert 0.9 * 3000 <= memory.nbytes <= 3000
    assert len(str(memory.strengths[0])) <= 8  # it is stored


def test_shares_of_the_bytes_for_sketches_can_be_chosen() -> None:
    weights, planner = sheets()
    sketches, refinement = (
        planner.encode(2000, expect=0.5, shares=(1.0,)),
        planner.encode(2000, expect=0.5, shares=(0.0,)),
    )
    assert sketches.refinement is None and sketches.bytes_by_tier()["sketch"] > 1500
    assert refinement.refinement is not None and not any(of.content.size for of in refinement.tensors)
    assert error(refinement, weights, 0.5) < 1 and error(sketches, weights, 0.5) < 1


# --- Merit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", RATES)
def test_a_plan_for_a_rate_is_the_best_at_that_rate(missing: float) -> None:
    weights, _ = sheets()
    own = error(planned(missing), weights, missing)
    for other in (*RATES, None):
        assert own <= 1.1 * error(planned(other), weights, missing), f"the plan for {other} is better"


@pytest.mark.parametrize("expect", [*RATES, None])
def test_no_plan_does_worse_than_zeros_at_any_rate(expect: float | None) -> None:
    weights, _ = sheets()
    for missing in (0.02, 0.2, 0.5, 0.8, 1.0):
        assert error(planned(expect), weights, missing, masks=1) <= 1.01


def test_more_bytes_leave_less_error() -> None:
    weights, _ = sheets()
    errors = [error(planned(0.3, nbytes), weights, 0.3) for nbytes in (0, 200, 800, 2400)]
    assert errors == sorted(errors, reverse=True) and errors[0] == pytest.approx(1, abs=0.1) and errors[-1] < 0.01


def test_moments_spend_the_bytes_where_they_count() -> None:
    weights = {"matrix": drawn(64, 64)}
    moments = torch.cat([torch.full((32,), 100.0), torch.ones(32)]).diag()
    for expect in (0.3, 0.9):
        memory = Planner(weights, moments={"matrix": moments}).encode(700, expect=expect)
        wrong = (restored(memory, weights, expect)["matrix"] - weights["matrix"]).square().mean(0)
        assert wrong[:32].mean() < 0.5 * wrong[32:].mean()


def test_what_survivors_tell_is_remembered_where_there_are_survivors() -> None:
    weights = {"images": smooth_sheets(48, 8, 8) + 0.2 * drawn(48, 64)}
    planner = Planner(weights, spaces={"images": (8, 8)})
    some, none = (planner.encode(200, expect=expect, shares=(1.0,)) for expect in (0.3, 1.0))
    assert some.tensors[0].prior.size and not none.tensors[0].prior.size
    assert error(none, weights, 1.0) < error(some, weights, 1.0) and error(some, weights, 0.3) < error(
        none, weights, 0.3
    )


# How many weights are lost varies, by a share that falls with their number; and 3 % are many bits for each of few.
@pytest.mark.parametrize(("missing", "most"), [(0.1, 4.5), (0.5, 2.6), (0.9, 2.3)])
def test_independent_weights_are_restored_near_the_limit(missing: float, most: float) -> None:
    assert 0 < distance(missing, 520 * 256) <= most


@pytest.mark.long
@pytest.mark.parametrize(("missing", "most"), [(0.1, 2.8), (0.3, 2.3), (0.5, 2.1), (0.7, 2.0), (0.9, 1.9)])
def test_many_independent_weights_are_restored_within_about_two_decibels_of_it(missing: float, most: float) -> None:
    assert 0 < distance(missing, 2**20) <= most


def distance(missing: float, count: int) -> float:
    """Decibels above D = 2^(-2 r / p) for Gaussian weights and 3 % of the bytes that they take as float32."""
    weights = {"matrix": drawn(count // 256, 256)}
    memory = Planner(weights).encode(int(0.03 * 4 * count), expect=missing)
    limit = erasure_distortion(8 * memory.nbytes / count, missing)
    return 10 * math.log10(error(memory, weights, missing, masks=1) / limit)


# --- The ends of the range -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e37])
def test_tiny_and_huge_weights_are_remembered_like_others(scale: float) -> None:
    weights = {"images": (smooth_sheets(36, 8, 8).double() * scale).float()}
    memory = Planner(weights, spaces={"images": (8, 8)}).encode(900, expect=0.3)
    filled = restored(memory, weights, 0.3)["images"]
    wrong = (filled.double() - weights["images"].double()) / scale
    assert wrong.isfinite().all() and wrong.square().sum() < 0.2 * 0.3 * 36 * 64


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
def test_constant_tensors_are_remembered(value: float) -> None:
    weights = {"images": torch.full((36, 64), value), "row": torch.full((7,), value)}
    for share in (0.0, 1.0):  # a refinement or a prior; a sketch
        memory = Planner(weights, spaces={"images": (8, 8)}).encode(600, expect=0.3, shares=(share,))
        assert memory.nbytes <= 600
        filled = restored(memory, weights, 0.3)["images"]
        torch.testing.assert_close(filled, weights["images"], rtol=0.05, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_are_remembered_as_well(dtype: torch.dtype) -> None:
    weights = {"matrix": drawn(48, 64).to(dtype)}
    memory = Planner(weights).encode(1500, expect=0.3)
    assert error(memory, weights, 0.3) < 0.2


def test_the_same_plan_comes_twice_whatever_the_threads() -> None:
    weights, planner = sheets()
    for expect, shares in ((None, (0.5,)), (0.3, None)):
        first = planner.encode(800, expect=expect, shares=shares)
        anew = Planner(weights, spaces={"images": (8, 8)}, threads=2)
        again = anew.encode(800, expect=expect, shares=shares)
        assert again.strengths == first.strengths and again.reasons == first.reasons
        for one, other in zip(first.tensors, again.tensors, strict=True):
            assert one.codec == other.codec and one.refined == other.refined
            assert np.array_equal(one.content, other.content) and np.array_equal(one.prior, other.prior)
        assert (first.refinement is None) == (again.refinement is None)
        if first.refinement is not None and again.refinement is not None:
            assert np.array_equal(first.refinement.to_bytes(), again.refinement.to_bytes())
        one, other = restored(first, weights, 0.4), restored(again, weights, 0.4)
        assert all(same_bits(one[name], other[name]) for name in weights)


def test_planning_changes_no_weights_and_takes_those_that_learn() -> None:
    weight = drawn(20, 30).requires_grad_()
    before = weight.detach().clone()
    memory = Planner({"matrix": weight}).encode(400, expect=0.5)
    assert same_bits(weight.detach(), before) and memory.nbytes > 0


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weight",
    [
        torch.tensor([[1.0, float("nan")]]),
        torch.tensor([[1.0, float("inf")]]),
        torch.tensor([[1.0, 1e300]], dtype=torch.float64),
        torch.zeros(0, 5),
        torch.ones(3, 4, dtype=torch.int64),
    ],
    ids=["NaN", "infinite", "beyond float32", "empty", "integers"],
)
def test_weights_that_cannot_be_remembered_are_refused(weight: Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"finite in float32; 'odd'.* Leave it out"):
        Planner({"odd": weight})


@pytest.mark.parametrize("moments", [torch.eye(3), torch.ones(4, 3), torch.eye(4) * float("nan")], ids=str)
def test_moments_that_do_not_fit_are_refused(moments: Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"Second moments of 'matrix' have shape \(4, 4\)"):
        Planner({"matrix": drawn(3, 4)}, moments={"matrix": moments})


@pytest.mark.parametrize("space", [(3,), (2, 3), (0,), (-4,)], ids=str)
def test_spaces_that_do_not_fit_are_refused(space: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="'matrix' has 4 columns"):
        Planner({"matrix": drawn(3, 4)}, spaces={"matrix": space})


@pytest.mark.parametrize(("nbytes", "expect"), [(-1, None), (100, 0.0), (100, 1.1), (100, float("nan"))])
def test_other_bytes_and_shares_are_refused(nbytes: int, expect: float | None) -> None:
    with pytest.raises(InvalidInput, match="0 bytes or more and expects a share"):
        Planner({"matrix": drawn(3, 4)}).encode(nbytes, expect=expect)
