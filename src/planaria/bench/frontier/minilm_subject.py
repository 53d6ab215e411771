"""all-MiniLM-L6-v2, whose 36 encoder matrices lose weights all at once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call

from planaria.bench.frontier.base import Subject, Weights
from planaria.bench.frontier.sentences import sentences
from planaria.bench.guard import MINILM, model_file
from planaria.calibration import second_moments_of

SENTENCES = 256
LONGEST = 64  # tokens
BATCH = 32
JUDGED = 64  # of the sentences that moments are of

Batch = dict[str, Tensor]


def minilm_subject() -> Subject:
    """Metrics compare the embeddings of 256 sentences to the intact model's; moments are of 256 others, and the
    judge's likeness is of 64 of these.

    Raises `DataNotFound` if the model is not installed.
    """
    folder = str(model_file(MINILM).parent)
    from transformers import AutoModel, AutoTokenizer  # slow to import, needed only here

    model: Any = AutoModel.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    names = [name for name, part in model.encoder.named_modules(prefix="encoder") if isinstance(part, nn.Linear)]
    weights = {f"{name}.weight": model.get_submodule(name).weight.detach() for name in names}
    shown = _batches(tokenizer, sentences(SENTENCES), most=BATCH)
    intact = _embeddings(model, shown, {})
    # Batches of equal lengths: padding is not data.
    unpadded = _batches(tokenizer, sentences(SENTENCES, skip=SENTENCES), most=BATCH, equal_lengths=True)
    moments = second_moments_of(model, unpadded)
    judged = _batches(tokenizer, sentences(JUDGED, skip=SENTENCES), most=BATCH)
    as_intact = _embeddings(model, judged, {})

    def evaluate(tensors: Weights) -> dict[str, float]:
        return likeness(intact, _embeddings(model, shown, tensors))

    def judge(tensors: Weights) -> float:
        return float((as_intact * _embeddings(model, judged, tensors)).sum(1).mean().nan_to_num(0.0))

    return Subject(
        name=MINILM,
        weights=weights,
        evaluate=evaluate,
        metric="cosine",
        judge=judge,
        moments={name: moments[name] for name in weights},
        spaces={},
    )


def likeness(intact: Float[Tensor, "sentences width"], others: Float[Tensor, "sentences width"]) -> dict[str, float]:
    """How alike two sets of normalised embeddings are; each is 1 for the same.

    "cosine" is the mean over sentences, "spearman" the rank correlation of the similarities of all pairs, "nearest" the
    share of sentences whose nearest other is the same. Embeddings that are not finite count as 0.
    """
    others = others.nan_to_num(0.0, 0.0, 0.0)
    pairs = torch.triu_indices(len(intact), len(intact), 1)
    one, other = (embeddings @ embeddings.T for embeddings in (intact, others))
    similarities = [similar[pairs[0], pairs[1]] for similar in (one, other)]
    ranks = float(spearmanr(*similarities).statistic) if similarities[1].std() > 0 else 0.0
    nearest = [similar.fill_diagonal_(-2).argmax(1) for similar in (one, other)]
    return {
        "cosine": float((intact * others).sum(1).mean()),
        "spearman": ranks,
        "nearest": float((nearest[0] == nearest[1]).double().mean()),
    }


@torch.no_grad()
def _embeddings(model: nn.Module, batches: Sequence[Batch], tensors: Weights) -> Float[Tensor, "sentences width"]:
    """Normalised means of the last layer over each sentence's tokens, the model with these tensors in place."""
    parts = []
    for batch in batches:
        last = functional_call(model, dict(tensors), (), batch).last_hidden_state
        there = batch["attention_mask"][..., None].to(last)
        parts.append(nn.functional.normalize((last * there).sum(1) / there.sum(1), dim=1))
    return torch.cat(parts)


def _batches(
    tokenizer: Callable[..., dict[str, list[list[int]]]],
    texts: Sequence[str],
    *,
    most: int,
    equal_lengths: bool = False,
) -> list[Batch]:
    """Sentences by length, so that little is padded, or nothing."""
    tokens = sorted(tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"], key=len)
    groups: list[list[list[int]]] = []
    for one in tokens:
        full = not groups or len(groups[-1]) == most
        if full or (equal_lengths and len(groups[-1][0]) != len(one)):
            groups.append([])
        groups[-1].append(one)
    return [_padded(group) for group in groups]


def _padded(group: list[list[int]]) -> Batch:
    rows = [torch.tensor(one) for one in group]
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(rows, batch_first=True),
        "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
    }
