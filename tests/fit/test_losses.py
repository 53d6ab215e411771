"""What a fit makes small."""

import pytest
import torch
from helpers import drawn, mask
from hypothesis import given
from hypothesis import strategies as st

from planaria.fit import missing_error, output_error, second_moments

SPACES = [(12,), (3, 4), (2, 3, 2)]


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 99), share=st.floats(0, 1))
def test_the_missing_error_is_the_mean_square_over_missing_cells(
    space: tuple[int, ...], seed: int, share: float
) -> None:
    error, known = drawn(5, *space, seed=seed), mask(5, *space, share=share, seed=seed)
    expected = error[~known].square().mean() if not known.all() else torch.tensor(0.0)
    torch.testing.assert_close(missing_error(error, known), expected)


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 99), share=st.floats(0, 1))
def test_for_uncorrelated_unit_inputs_the_output_error_is_the_missing_error(
    space: tuple[int, ...], seed: int, share: float
) -> None:
    error, known = drawn(5, *space, seed=seed), mask(5, *space, share=share, seed=seed)
    for scale in (1.0, 7.0):
        torch.testing.assert_close(output_error(error, known, scale * torch.eye(12)), missing_error(error, known))


@pytest.mark.parametrize("space", SPACES)
def test_the_output_error_is_that_of_the_layers_outputs(space: tuple[int, ...]) -> None:
    error, known, inputs = drawn(5, *space), mask(5, *space), drawn(1000, 12, seed=1) + 1
    outputs = inputs @ torch.where(known, 0.0, error).flatten(1).T
    expected = outputs.square().mean(0).sum() / inputs.square().mean() / (~known).sum()
    torch.testing.assert_close(output_error(error, known, second_moments(inputs)), expected, rtol=1e-4, atol=1e-6)


def test_a_flat_grid_and_sheets_have_the_same_output_error() -> None:
    error, known, moments = drawn(5, 12), mask(5, 12), second_moments(drawn(50, 12))
    sheets = output_error(error.view(5, 3, 4), known.view(5, 3, 4), moments)
    torch.testing.assert_close(output_error(error[None], known[None], moments), sheets)


def test_errors_that_agree_in_sign_over_bright_inputs_cost_more() -> None:
    moments, known = second_moments(drawn(500, 12) + 3), torch.zeros(1, 12, dtype=torch.bool)
    same, mixed = torch.ones(1, 12), torch.tensor([1.0, -1.0]).repeat(6)[None]
    assert missing_error(same, known) == missing_error(mixed, known)
    assert output_error(same, known, moments) > 10 * output_error(mixed, known, moments)


def test_errors_at_known_cells_have_no_gradient() -> None:
    error, known = drawn(5, 12).requires_grad_(), mask(5, 12)
    (missing_error(error, known) + output_error(error, known, second_moments(drawn(50, 12)))).backward()
    assert not error.grad[known].any()
    assert error.grad[~known].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_second_moments_are_uncentred_and_single(dtype: torch.dtype) -> None:
    inputs = (drawn(40, 3) + 2).to(dtype)
    moments = second_moments(inputs)
    expected = torch.stack([torch.outer(one, one) for one in inputs.float()]).mean(0)
    assert moments.dtype == torch.float32
    torch.testing.assert_close(moments, expected)
