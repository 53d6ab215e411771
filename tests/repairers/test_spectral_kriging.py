"""Spectral kriging against the textbook formula, written out with a dense covariance."""

import math

import numpy as np
import pytest
import torch
from helpers import drawn, mask, smooth_sheets
from scipy.fft import dctn
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.repairers import Record, SpectralKriging
from planaria_lab.repairers import ZeroFill

SPACES = [((4, 5), (6, 20)), ((11,), (5, 11)), ((2, 3, 2), (6, 24)), ((1,), (9, 4))]
on_every_space = pytest.mark.parametrize(("space", "shape"), SPACES, ids=str)


def bands_of(space: tuple[int, ...], bands: int) -> Tensor:
    """The band of each frequency: as many as possible of the lowest in the first, and so on."""
    places = [np.unravel_index(cell, space) for cell in range(math.prod(space))]
    heights = [sum((part / size) ** 2 for part, size in zip(place, space, strict=True)) for place in places]
    band = np.zeros(len(heights), np.int64)
    for rank, cell in enumerate(sorted(range(len(heights)), key=lambda cell: (heights[cell], cell))):
        band[cell] = rank * bands // len(heights)
    return torch.from_numpy(band)


def cosines(space: tuple[int, ...]) -> Tensor:
    """The orthonormal transform as a matrix (frequencies, cells)."""
    cells = math.prod(space)
    transformed = dctn(np.eye(cells).reshape(cells, *space), axes=range(1, len(space) + 1), norm="ortho")
    return torch.from_numpy(transformed.reshape(cells, cells).T)


def conditional_mean(sheets: Tensor, known: Tensor, record: Record, space: tuple[int, ...], bands: int) -> Tensor:
    """C_mk C_kk^-1 applied to the known weights; C is diagonal in cosines."""
    variances = 2.0 ** (-record["variances"].double() / 4)[bands_of(space, bands)]
    variances = variances.clamp_min(1e-4 * variances.max())
    covariance = cosines(space).T @ (variances[:, None] * cosines(space))
    filled = torch.zeros(sheets.shape, dtype=torch.float64)
    for item, values, there in zip(filled, sheets.double(), known, strict=True):
        item += covariance[:, there] @ torch.linalg.solve(covariance[there][:, there], values[there])
    return filled


@on_every_space
def test_what_is_missing_is_the_conditional_mean(space: tuple[int, ...], shape: tuple[int, int]) -> None:
    weight, known = drawn(*shape) * torch.linspace(3, 0.1, shape[1]), mask(*shape, share=0.6)
    repairer = SpectralKriging(space, bands=6, tolerance=1e-12, iterations=5000)
    record, cells = repairer.prepare(weight), math.prod(space)
    expected = conditional_mean(weight.view(-1, cells), known.view(-1, cells), record, space, 6).view(shape)
    restored = repairer.restore(weight, known, record).double()
    torch.testing.assert_close(restored[~known], expected[~known], rtol=1e-5, atol=1e-5)


@on_every_space
def test_the_record_has_each_bands_variance_to_an_eighth_of_an_octave(
    space: tuple[int, ...], shape: tuple[int, int]
) -> None:
    weight, cells = drawn(*shape), math.prod(space)
    bands = min(6, cells)
    record = SpectralKriging(space, bands=bands).prepare(weight)
    coefficients = weight.view(-1, cells).double() @ cosines(space).T
    assert record["unit"].item() == pytest.approx(coefficients.abs().max().item())
    for band in range(bands):
        own = coefficients[:, bands_of(space, bands) == band] / record["unit"].double()
        octaves = -record["variances"][band].item() / 4
        assert octaves == pytest.approx(own.square().mean().log2().item(), abs=0.1251)


def test_the_record_has_a_byte_a_band_and_four_more() -> None:
    assert SpectralKriging((4, 5), bands=7).prepare(drawn(6, 20)).nbytes == 7 + 4


def test_it_beats_zeros_on_smooth_sheets() -> None:
    weight, known = smooth_sheets(20, 8, 8), mask(20, 64, share=0.3)
    errors = []
    for repairer in (SpectralKriging((8, 8)), ZeroFill()):
        restored = repairer.restore(weight, known, repairer.prepare(weight))
        errors.append((restored - weight)[~known].square().mean())
    assert errors[0] < 0.5 * errors[1]


def test_sheets_do_not_see_each_other() -> None:
    weight, known = smooth_sheets(4, 8, 8), mask(4, 64, share=0.5)
    repairer = SpectralKriging((8, 8))
    record = repairer.prepare(weight)
    whole = repairer.restore(weight, known, record)
    for row in range(4):
        alone = repairer.restore(weight[row : row + 1], known[row : row + 1], record)
        torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-2, atol=1e-2)  # each stops at its tolerance


def test_without_survivors_zeros_are_best() -> None:
    repairer, weight = SpectralKriging((2, 3)), drawn(4, 6)
    restored = repairer.restore(weight, torch.zeros(4, 6, dtype=torch.bool), repairer.prepare(weight))
    assert not restored.any()


@pytest.mark.parametrize("scale", [1e-300, 1e-42, 1e-30, 1e30])
def test_tiny_and_huge_weights_are_restored_like_others(scale: float) -> None:
    weight, known = smooth_sheets(4, 8, 8).double() * scale, mask(4, 64)
    repairer = SpectralKriging((8, 8))
    restored = repairer.restore(weight, known, repairer.prepare(weight))
    assert restored.isfinite().all()
    assert ((restored - weight) / scale)[~known].square().sum() <= (weight / scale)[~known].square().sum()


def test_rows_that_are_no_whole_sheets_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"Rows of 20 weights are not whole sheets of \(3, 4\)"):
        SpectralKriging((3, 4)).prepare(drawn(6, 20))


def test_the_record_of_other_bands_is_refused() -> None:
    record = SpectralKriging((4, 5), bands=7).prepare(drawn(6, 20))
    with pytest.raises(InvalidInput, match=r"\(7,\) variances, not 8"):
        SpectralKriging((4, 5), bands=8).restore(drawn(6, 20), mask(6, 20), record)


@pytest.mark.parametrize("space", [(), (0, 3), (-1,)], ids=str)
def test_axes_that_are_none_are_refused(space: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="axes"):
        SpectralKriging(space)
