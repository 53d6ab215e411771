"""Fault lists on other tensors."""

import pytest
from helpers import drawn, same_bits

from planaria.damages import Erasure, Faults
from planaria.errors import InvalidInput
from planaria.streams import generator


def some_faults() -> Faults:
    return Erasure(0.4, value=float("nan")).apply(drawn(4, 5), generator(0, "damage"))[1]


def test_faults_of_another_shape_or_dtype_are_refused() -> None:
    for wrong in (drawn(5, 4), drawn(4, 5).double(), drawn(20)):
        for write in (some_faults().replay, some_faults().undo):
            with pytest.raises(InvalidInput, match=r"\(4, 5\)"):
                write(wrong)


def test_replay_and_undo_leave_their_input_alone() -> None:
    weight = drawn(4, 5)
    before = weight.clone()
    some_faults().undo(some_faults().replay(weight))
    assert same_bits(weight, before)
