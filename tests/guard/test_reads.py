"""How often each byte of a model is read, which is what a check or a repair of a large one takes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import drawn
from numpy.typing import NDArray
from torch import Tensor

from planaria.checkpoints import Checkpoint
from planaria.guard import protect

Reads = dict[str, NDArray[np.int64]]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """Answers with the fewest and the most reads of a byte since it was asked last."""
    reads: Reads = {}
    read = Checkpoint.read

    def counted(self: Checkpoint, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        nbytes = self.entries[name].nbytes
        reads.setdefault(name, np.zeros(nbytes, np.int64))[start:stop] += 1
        return read(self, name, start, stop)

    def since() -> tuple[int, int]:
        counts = np.concatenate(list(reads.values()))
        reads.clear()
        return int(counts.min()), int(counts.max())

    monkeypatch.setattr(Checkpoint, "read", counted)
    return since


def model() -> dict[str, Tensor]:
    """Tensors of one tile and of many, of one piece and of several, and of whole numbers."""
    large = {f"{place}.weight": drawn(rows, 700) for place, rows in enumerate((30, 300, 2000))}
    small = {f"{place}.bias": drawn(1, 50 + place)[0] for place in range(20)}
    return {**large, **small, "codes": torch.arange(9999, dtype=torch.int16)}


@pytest.mark.parametrize("budget", [0.02, 0.1])
def test_a_guard_of_digests_and_parity_is_made_with_two_reads_and_an_intact_model_checked_with_one(
    budget: float, count: Callable[[], tuple[int, int]]
) -> None:
    guard = protect(model(), budget=budget, tiers="digest,parity")
    assert count() == (2, 2)
    assert guard.check(model()).verdict == "intact" and count() == (1, 1)
    assert guard.check(model(), quick=True).verdict == "intact" and count() == (1, 1)
    assert guard.repair(model()).verdict == "intact" and count() == (1, 1)


@pytest.mark.parametrize("lost", [1, 300, 20_000, 1_000_000])
def test_a_repair_reads_no_byte_more_than_three_times(lost: int, count: Callable[[], tuple[int, int]]) -> None:
    intact = model()
    guard = protect(intact, budget=0.1, tiers="digest,copy,parity")
    damaged = {name: tensor.clone() for name, tensor in intact.items()}
    damaged["2.weight"].view(-1)[1000 : 1000 + lost] = 9.0
    damaged["7.bias"].zero_()
    count()
    report = guard.repair(damaged)
    assert report.verdict == ("exact" if lost < 100_000 else "lost")
    assert count()[1] <= 3
