"""all-MiniLM-L6-v2, a transformer that embeds sentences: the model, and what it says."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from planaria_lab.bench.guard_subjects import MINILM, model_file

LONGEST = 64  # tokens of a sentence; the rest is cut off
BATCH = 32

Batch = dict[str, Tensor]


def installed() -> tuple[nn.Module, Any]:
    """The model, in evaluation mode, and its tokenizer. Raises `DataNotFound` if it is not installed."""
    folder = str(model_file(MINILM).parent)
    from transformers import AutoModel, AutoTokenizer  # slow to import, needed only here

    model: nn.Module = AutoModel.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def batches(tokenizer: Any, texts: Sequence[str], *, most: int = BATCH, equal_lengths: bool = False) -> list[Batch]:
    """Sentences by length, so that little is padded, or nothing."""
    tokens = sorted(tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"], key=len)
    groups: list[list[list[int]]] = []
    for one in tokens:
        full = not groups or len(groups[-1]) == most
        if full or (equal_lengths and len(groups[-1][0]) != len(one)):
            groups.append([])
        groups[-1].append(one)
    return [_padded(group) for group in groups]


@torch.no_grad()
def embeddings(
    model: nn.Module, sentences: Sequence[Batch], tensors: Mapping[str, Shaped[Tensor, "..."]]
) -> Float[Tensor, "sentences width"]:
    """Normalised means of the last layer over each sentence's tokens, the model with these tensors in place."""
    parts = []
    for batch in sentences:
        last = functional_call(model, dict(tensors), (), batch).last_hidden_state
        there = batch["attention_mask"][..., None].to(last)
        parts.append(nn.functional.normalize((last * there).sum(1) / there.sum(1), dim=1))
    return torch.cat(parts)


def _padded(group: list[list[int]]) -> Batch:
    rows = [torch.tensor(one) for one in group]
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(rows, batch_first=True),
        "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
    }
