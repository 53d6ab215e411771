"""Matrix completion."""

import pytest
import torch
from helpers import drawn, mask, same_bits

from planaria.repairers import Record
from planaria_lab.repairers import LowRank, MeanFill


def relative_error(shape: tuple[int, int], rank: int) -> float:
    """Of the missing weights' norm, at 30 % missing."""
    weight = drawn(shape[0], rank, name="left") @ drawn(rank, shape[1], name="right")
    known = mask(*shape, share=0.7)
    restored = LowRank().restore(weight, known, Record())
    return float((restored - weight)[~known].norm() / weight[~known].norm())


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_matrix_of_low_rank_is_recovered(shape: tuple[int, int], rank: int) -> None:
    assert relative_error(shape, rank) < 0.1


def test_noise_is_filled_no_worse_than_with_the_mean() -> None:
    weight, known = drawn(40, 50), mask(40, 50, share=0.5)
    errors = [
        (repairer.restore(weight, known, Record()) - weight)[~known].square().mean()
        for repairer in (LowRank(), MeanFill())
    ]
    assert errors[0] < 1.1 * errors[1]


def test_it_needs_no_bytes_and_repeats_itself() -> None:
    weight, known = drawn(10, 12), mask(10, 12)
    assert LowRank().prepare(weight).nbytes == 0
    first, second = (LowRank().restore(weight, known, Record()) for _ in range(2))
    assert same_bits(first, second)


@pytest.mark.parametrize("shape", [(12,), (3, 2, 2), (3, 4)])
def test_any_rank_of_tensor_is_a_matrix_of_its_first_axis(shape: tuple[int, ...]) -> None:
    weight, known = drawn(12).view(shape), mask(12).view(shape)
    rows = shape[0] if len(shape) > 1 else 1
    matrix = LowRank().restore(weight.reshape(rows, -1), known.reshape(rows, -1), Record())
    assert torch.equal(LowRank().restore(weight, known, Record()), matrix.view(shape))
