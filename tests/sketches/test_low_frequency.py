"""Smooth rows in few bytes, by the transform that is named."""

import numpy as np
import pytest
import torch
from helpers import drawn, smooth_sheets
from scipy.fft import idctn
from sketch_members import error_at, relative_error

from planaria.errors import InvalidInput
from planaria.sketches import FirstBits, LowFrequency
from planaria.sketches.low_frequency import _cosines


@pytest.mark.parametrize("size", [1, 2, 3, 7, 28, 64])
def test_the_functions_are_those_of_the_orthonormal_transform(size: int) -> None:
    np.testing.assert_allclose(_cosines(size), idctn(np.eye(size), axes=1, norm="ortho"), atol=2.0**-14)


@pytest.mark.parametrize("space", [(1,), (24,), (4, 6), (2, 3, 4), (1, 24, 1)])
def test_axes_are_any_number(space: tuple[int, ...]) -> None:
    sketch, weight = LowFrequency(space), drawn(5, int(np.prod(space)))
    found = sketch.decode(sketch.analyse(weight).encode(0.001), tuple(weight.shape))
    torch.testing.assert_close(found, weight, rtol=0, atol=0.02)


@pytest.mark.parametrize("space", [(1,), (3,), (28, 28), (5, 7, 3)])
def test_bands_hold_every_frequency_once_the_lowest_first(space: tuple[int, ...]) -> None:
    bands = LowFrequency(space)._bands()
    assert sorted(np.concatenate(bands)) == list(range(int(np.prod(space))))
    assert bands[0].tolist() == [0]
    distance = np.hypot.reduce([axis / size for axis, size in zip(np.indices(space), space, strict=True)]).ravel()
    assert (np.diff(distance[np.concatenate(bands)]) > -1e-12).all()


def test_smooth_rows_take_a_fraction_of_the_bytes() -> None:
    weight = smooth_sheets(20, 16, 16)
    sizes, errors = [], []
    for sketch in (LowFrequency((16, 16)), FirstBits()):
        content = sketch.analyse(weight).encode(0.15)
        sizes.append(len(content))
        errors.append(relative_error(sketch.decode(content, (20, 256)), weight))
    assert errors[0] < errors[1] and sizes[0] < 0.4 * sizes[1]


def test_moments_lower_the_error_of_the_outputs() -> None:
    inputs = smooth_sheets(500, 8, 8, seed=1)
    weight, moments = drawn(60, 64), inputs.T @ inputs / 500
    with_them, without = (error_at(LowFrequency((8, 8)), 600, weight, known, moments) for known in (moments, None))
    assert with_them < 0.5 * without


def test_columns_that_are_not_the_space_are_refused() -> None:
    with pytest.raises(InvalidInput, match="has 24 cells, and there are 25 columns"):
        LowFrequency((4, 6)).analyse(drawn(2, 25))
    with pytest.raises(InvalidInput, match="has 24 cells, and there are 12 columns"):
        LowFrequency((4, 6)).decode(np.zeros(0, np.uint8), (4, 12))


@pytest.mark.parametrize("space", [(), (0,), (4, -6)])
def test_a_space_without_cells_is_refused(space: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="1 or more cells"):
        LowFrequency(space)
