"""all-MiniLM-L6-v2, whose 36 encoder matrices lose weights all at once."""

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn

from planaria.calibration import second_moments_of
from planaria_lab.bench.frontier.base import FrontierSubject, Weights
from planaria_lab.bench.guard_subjects import MINILM
from planaria_lab.bench.minilm import batches, embeddings, installed
from planaria_lab.bench.sentences import sentences

SENTENCES = 256
JUDGED = 64  # of the sentences that moments are of


def minilm_subject() -> FrontierSubject:
    """Metrics compare the embeddings of 256 sentences to the intact model's; moments are of 256 others, and the
    judge's likeness is of 64 of these.

    Raises `DataNotFound` if the model is not installed.
    """
    model, tokenizer = installed()
    encoder = model.get_submodule("encoder").named_modules(prefix="encoder")
    names = [name for name, part in encoder if isinstance(part, nn.Linear)]
    weights = {f"{name}.weight": model.get_parameter(f"{name}.weight").detach() for name in names}
    shown = batches(tokenizer, sentences(SENTENCES))
    intact = embeddings(model, shown, {})
    # Batches of equal lengths: padding is not data.
    unpadded = batches(tokenizer, sentences(SENTENCES, skip=SENTENCES), equal_lengths=True)
    moments = second_moments_of(model, unpadded)
    judged = batches(tokenizer, sentences(JUDGED, skip=SENTENCES))
    as_intact = embeddings(model, judged, {})

    def evaluate(tensors: Weights) -> dict[str, float]:
        return likeness(intact, embeddings(model, shown, tensors))

    def judge(tensors: Weights) -> float:
        return float((as_intact * embeddings(model, judged, tensors)).sum(1).mean().nan_to_num(0.0))

    return FrontierSubject(
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
