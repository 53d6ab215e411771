"""Matrices of low rank in few bytes, and the directions that outputs feel."""

import numpy as np
import pytest
import torch
from helpers import drawn
from sketch_members import error_at, moments_of, relative_error

from planaria.errors import InvalidInput
from planaria.sketches import FirstBits, LowRankSketch
from planaria.sketches.entropy import GroupReader, encode_groups
from planaria.sketches.low_rank import _decomposed

SHAPES = [(40, 30), (30, 40), (30, 30), (1, 9), (9, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_moments", [False, True])
def test_the_decomposition_is_the_best_there_is_in_the_outputs(shape: tuple[int, int], with_moments: bool) -> None:
    weight, columns = drawn(*shape).double().numpy(), shape[1]
    moments = moments_of(columns).double().numpy() + np.eye(columns) if with_moments else None
    metric = np.eye(columns) if moments is None else moments
    squares, left, right = _decomposed(weight, moments)
    np.testing.assert_allclose(left.T @ right, weight, atol=1e-4)
    np.testing.assert_allclose(right @ metric @ right.T, np.eye(len(right)), atol=1e-3)
    values = np.linalg.svd(weight @ np.linalg.cholesky(metric), compute_uv=False)
    np.testing.assert_allclose(np.sqrt(squares), values, rtol=1e-6)
    np.testing.assert_allclose((left**2).sum(1), squares, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_a_matrix_of_rank_two_takes_a_fraction_of_the_bytes(shape: tuple[int, int]) -> None:
    weight = drawn(shape[0], 2) @ drawn(2, shape[1], seed=1)
    sizes = []
    for sketch in (LowRankSketch(), FirstBits()):
        content = sketch.analyse(weight).encode(0.05)
        sizes.append(len(content))
        assert relative_error(sketch.decode(content, shape), weight) < 0.003
    assert sizes[0] < 0.5 * sizes[1]


def test_moments_lower_the_error_of_the_outputs() -> None:
    weight, moments = drawn(60, 24), moments_of(24)
    with_them, without = (error_at(LowRankSketch(), 400, weight, known, moments) for known in (moments, None))
    assert with_them < 0.7 * without


def test_components_are_kept_as_the_level_falls() -> None:
    weight = drawn(40, 30)
    analysed = LowRankSketch().analyse(weight)
    ranks = [int(GroupReader(analysed.encode(level)[4:]).take(1)[0]) for level in (0.7, 0.5, 0.3, 0.1, 0.01)]
    assert ranks == sorted(set(ranks)) and ranks[-1] == 30


def test_a_factor_is_refitted_to_the_other_as_quantised() -> None:
    weight, moments = drawn(60, 24), moments_of(24)
    content = LowRankSketch().analyse(weight, moments=moments).encode(0.3)
    found = LowRankSketch().decode(content, (60, 24)).double()
    # Least squares over the span of the rows that are stored leaves nothing to gain but what rounding A took.
    values, rank = found.numpy(), int(GroupReader(content[4:]).take(1)[0])
    basis = torch.from_numpy(np.linalg.svd(values)[2][:rank])
    metric = moments.double() + 0.01 * moments.double().diagonal().mean() * torch.eye(24)
    own = basis @ metric @ basis.T
    best = weight.double() @ metric @ basis.T @ torch.linalg.inv(own) @ basis
    assert relative_error(found, weight, metric) < 2.0 * relative_error(best, weight, metric)


@pytest.mark.parametrize("rank", [-1, 0, 25, 2000])
def test_a_rank_that_the_shape_does_not_have_is_refused(rank: int) -> None:
    content = LowRankSketch().analyse(drawn(40, 24)).encode(0.3)
    wrong = np.append(content[:4], encode_groups([np.array([rank])]))
    with pytest.raises(InvalidInput, match=f"no rank of {rank}"):
        LowRankSketch().decode(wrong, (40, 24))
