"""The models of campaigns, and what their answers are worth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64, Shaped
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from planaria.errors import InvalidInput
from planaria_lab import datasets
from planaria_lab.bench import minilm, resnet, tinymlp
from planaria_lab.bench.frontier import convnet
from planaria_lab.bench.guard_subjects import MINILM, model_file
from planaria_lab.bench.half import halved
from planaria_lab.bench.sentences import sentences

BATCH = 500
MOST_SENTENCES = 256
Tensors = Mapping[str, Shaped[Tensor, "..."]]


@dataclass(frozen=True)
class Answers:
    """What a model says to the inputs of a campaign.

    Attributes:
        choices: its answer to each input.
        finite: share of the inputs whose output is finite.
        accuracy: percent of the inputs that it is right about.
    """

    choices: Int64[Tensor, " inputs"]
    finite: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Subject(ABC):
    """An intact model.

    Attributes:
        tensors: all that it stores, which is what is protected and damaged.
    """

    name: str
    tensors: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @abstractmethod
    def answers(self, tensors: Tensors) -> Answers:
        """What the model says with these tensors in place of its own."""


@dataclass(frozen=True, eq=False)
class Classifier(Subject):
    """Tells images. Tensors that are stored as float16 compute as float32, after which layers round: see `bench.half`.

    Attributes:
        module: the model, for attacks that need gradients.
        inputs, labels: what the answers are about.
        sample, sample_labels: what attackers draw from, calibration inputs and the intact model's answers to them.
    """

    module: nn.Module
    inputs: Tensor
    labels: Int64[Tensor, " inputs"]
    sample: Tensor
    sample_labels: Int64[Tensor, " samples"]

    @torch.no_grad()
    def answers(self, tensors: Tensors) -> Answers:
        outputs = _outputs(self.module, self.inputs, tensors)
        finite = outputs.isfinite().all(1)
        choices = outputs.nan_to_num(0.0).argmax(1)
        accuracy = 100 * (choices == self.labels).double().mean().item()
        return Answers(choices, finite.double().mean().item(), accuracy)


@dataclass(frozen=True, eq=False)
class Retriever(Subject):
    """Embeds sentences; its answer to each is the nearest other one by cosine, and right is what the intact model says.

    A sentence whose embedding is not finite has no answer, -1, and is nobody's.

    Attributes:
        module: the model.
        sentences: as batches of tokens.
        right: what the intact model answers.
    """

    module: nn.Module
    sentences: Sequence[minilm.Batch]
    right: Int64[Tensor, " sentences"]

    def answers(self, tensors: Tensors) -> Answers:
        try:
            embeddings = minilm.embeddings(self.module, self.sentences, tensors)
        except (IndexError, RuntimeError):  # a damaged position, which no table has
            embeddings = torch.full((len(self.right), 1), torch.nan)
        finite = embeddings.isfinite().all(1).double().mean().item()
        choices = _nearest(embeddings)
        return Answers(choices, finite, 100 * (choices == self.right).double().mean().item())


def _nearest(embeddings: Float[Tensor, "sentences width"]) -> Int64[Tensor, " sentences"]:
    """Of each sentence the nearest other one; -1 if there is none."""
    alike = (embeddings @ embeddings.T).fill_diagonal_(torch.nan).nan_to_num(-torch.inf)
    return torch.where(alike.isneginf().all(1), -1, alike.argmax(1))


def _outputs(module: nn.Module, inputs: Tensor, tensors: Tensors) -> Float[Tensor, "inputs classes"]:
    computing = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}
    return torch.cat([functional_call(module, computing, (part,)) for part in inputs.split(BATCH)])


@torch.no_grad()
def _classifier(name: str, module: nn.Module, prepare: Callable[[Tensor], Tensor], images: int) -> Classifier:
    module = module.eval()
    shown, labels = datasets.mnist_test()
    sample = prepare(datasets.mnist_calibration())
    tensors = {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
    sample_labels = _outputs(module, sample, tensors).argmax(1)
    return Classifier(name, tensors, module, prepare(shown[:images]), labels[:images], sample, sample_labels)


def _tinymlp(letter: str, images: int) -> Subject:
    return _classifier(f"TinyMLP {letter}", tinymlp.shipped(letter), tinymlp.standardised, images)


def _tinymlp_fp16(letter: str, images: int) -> Subject:
    return _classifier(f"TinyMLP {letter} fp16", halved(tinymlp.shipped(letter)), tinymlp.standardised, images)


def _convnet(images: int) -> Subject:
    return _classifier("ConvNet", convnet.shipped(), convnet.images_in, images)


def _convnet_fp16(images: int) -> Subject:
    return _classifier("ConvNet fp16", halved(convnet.shipped()), convnet.images_in, images)


def _resnet(images: int) -> Subject:
    return _classifier("ResNet-20 int8", resnet.shipped(), convnet.images_in, images)


def _minilm(count: int) -> Subject:
    """All that its file stores. Raises `DataNotFound` if it is not installed."""
    module, tokenizer = minilm.installed()
    tensors = load_file(model_file(MINILM))
    batches = minilm.batches(tokenizer, sentences(count))
    return Retriever(MINILM, tensors, module, batches, _nearest(minilm.embeddings(module, batches, tensors)))


SUBJECTS: Mapping[str, Callable[[int], Subject]] = {
    "TinyMLP A": partial(_tinymlp, "A"),
    "TinyMLP B": partial(_tinymlp, "B"),
    "ConvNet": _convnet,
    "TinyMLP A fp16": partial(_tinymlp_fp16, "A"),
    "TinyMLP B fp16": partial(_tinymlp_fp16, "B"),
    "ConvNet fp16": _convnet_fp16,
    "ResNet-20 int8": _resnet,
    MINILM: _minilm,
}


def subject(name: str, images: int) -> Subject:
    """The model of that name, asked about the first `images` test images, or so many sentences.

    Raises `InvalidInput` on other names, and `DataNotFound` if the model is not installed.
    """
    if name not in SUBJECTS:
        raise InvalidInput(f"Unknown model {name!r}. Models are: {', '.join(SUBJECTS)}.")
    return SUBJECTS[name](images)
