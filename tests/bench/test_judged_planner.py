"""A judge that runs the network decides what is remembered."""

import pytest
import torch
from helpers import drawn, mask, smooth_sheets
from torch import Tensor

from planaria.memory import Memory, Planner
from planaria_lab.bench.frontier.judged_planner import JudgedPlanner


def sheets() -> dict[str, Tensor]:
    """Smooth images with noise on them, and a matrix without structure."""
    return {"images": smooth_sheets(48, 8, 8) + 0.2 * drawn(48, 64), "matrix": 0.5 * drawn(32, 48, name="matrix")}


def restored(memory: Memory, weights: dict[str, Tensor], missing: float, seed: int = 0) -> dict[str, Tensor]:
    """What a memory makes of weights of which a share is missing, scattered."""
    known = {name: ~mask(*weight.shape, share=missing, seed=seed + 100) for name, weight in weights.items()}
    damaged = {name: weight.where(known[name], float("nan")) for name, weight in weights.items()}
    return memory.restore(damaged, known)


@pytest.mark.long
def test_a_judge_has_the_last_word() -> None:
    weights = sheets()
    seen: list[dict[str, Tensor]] = []

    def judge(tensors: dict[str, Tensor]) -> float:
        seen.append(tensors)
        return float(len(seen))  # likes whatever comes last

    JudgedPlanner(weights, judge).remember(800, expect=0.5, shares=(0.5,))
    assert len(seen) > 1
    for tensors in seen:
        for name, weight in weights.items():
            assert tensors[name].shape == weight.shape and tensors[name].dtype == torch.float32
            assert 0.3 < (tensors[name] == weight).float().mean() < 0.7  # known weights stay


@pytest.mark.long
def test_a_judge_says_how_much_each_tensor_counts() -> None:
    weights = sheets()

    def judge(tensors: dict[str, Tensor]) -> float:
        return 1 / (1 + float((tensors["matrix"] - weights["matrix"]).square().mean()))

    plain, told = (one.remember(800, expect=0.5) for one in (Planner(weights), JudgedPlanner(weights, judge)))
    assert plain.nbytes <= 800 and told.nbytes <= 800
    merits = [sum(judge(restored(memory, weights, 0.5, seed)) for seed in range(3)) / 3 for memory in (plain, told)]
    assert 1 - merits[1] < 0.7 * (1 - merits[0])
