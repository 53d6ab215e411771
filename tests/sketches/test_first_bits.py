"""Weights that matter get bits, others none."""

import numpy as np
import torch
from helpers import drawn
from sketch_members import error_at

from planaria.sketches import FirstBits


def test_columns_below_the_level_get_nothing() -> None:
    weight, moments = drawn(200, 10), torch.diag(torch.tensor([100.0] * 5 + [0.0] * 5))
    found = FirstBits().decode(FirstBits().analyse(weight, moments=moments).encode(0.5), (200, 10))
    assert not found[:, 5:].any() and found[:, :5].any(0).all()


def test_a_weight_is_off_by_half_a_step_at_most() -> None:
    weight, level = drawn(100, 24), 0.02
    found = FirstBits().decode(FirstBits().analyse(weight).encode(level), (100, 24))
    step = np.sqrt(12) * level * float(weight.square().mean().sqrt())
    assert float((found - weight).abs().max()) < 0.57 * step + 1e-4 * float(weight.abs().max())


def test_the_noise_of_a_column_is_inverse_to_what_its_input_is_worth() -> None:
    weight, worth = drawn(4000, 4), torch.tensor([1.0, 4.0, 16.0, 256.0])
    found = FirstBits().decode(FirstBits().analyse(weight, moments=torch.diag(worth)).encode(0.03), (4000, 4))
    noise = (found - weight).square().mean(0) * worth
    assert float(noise.max() / noise.min()) < 1.6


def test_moments_lower_the_error_of_the_outputs() -> None:
    weight, moments = drawn(60, 24), torch.diag((2 * drawn(24, name="worth")).exp())
    with_them, without = (error_at(FirstBits(), 400, weight, known, moments) for known in (moments, None))
    assert with_them < 0.5 * without
