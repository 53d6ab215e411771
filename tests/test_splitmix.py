"""Words of 64 bits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from planaria.splitmix import STEP, lowest, mixed

PUBLISHED = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)


@njit
def compiled(state: np.uint64) -> tuple[np.uint64, int]:
    return mixed(state), lowest(state)


def test_the_first_outputs_are_the_published_ones() -> None:
    assert tuple(mixed(np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * STEP).tolist()) == PUBLISHED


@given(state=st.integers(1, 2**64 - 1))
def test_compiled_words_are_those_of_arrays(state: int) -> None:
    word, place = compiled(np.uint64(state))
    assert word == mixed(np.array([state], np.uint64))[0]
    assert state >> place & 1 and state % 2**place == 0
