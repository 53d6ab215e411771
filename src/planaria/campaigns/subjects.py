"""The models of campaigns, and what their answers are worth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from planaria import datasets
from planaria.bench import resnet, tinymlp
from planaria.bench.frontier import convnet
from planaria.errors import InvalidInput

BATCH = 500
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
class Subject:
    """An intact model.

    Attributes:
        tensors: its state dict.
        module: the model, for attacks that need gradients.
        inputs, labels: what the answers are about.
        sample, sample_labels: what attackers draw from, calibration inputs and the intact model's answers to them.
    """

    name: str
    tensors: dict[str, Tensor]
    module: nn.Module
    inputs: Tensor
    labels: Int64[Tensor, " inputs"]
    sample: Tensor
    sample_labels: Int64[Tensor, " samples"]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @torch.no_grad()
    def answers(self, tensors: Tensors) -> Answers:
        """What the model says with these tensors in place of its own."""
        outputs = self._outputs(self.inputs, tensors)
        finite = outputs.isfinite().all(1)
        choices = outputs.nan_to_num(0.0).argmax(1)
        accuracy = 100 * (choices == self.labels).double().mean().item()
        return Answers(choices, finite.double().mean().item(), accuracy)

    def _outputs(self, inputs: Tensor, tensors: Tensors) -> Float[Tensor, "inputs classes"]:
        parts = inputs.split(BATCH)
        return torch.cat([functional_call(self.module, dict(tensors), (part,)) for part in parts]).float()


def _subject(name: str, module: nn.Module, prepare: Callable[[Tensor], Tensor], images: int) -> Subject:
    module = module.eval()
    shown, labels = datasets.mnist_test()
    sample = prepare(datasets.mnist_calibration())
    tensors = {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
    with torch.no_grad():
        sample_labels = module(sample).argmax(1)
    return Subject(name, tensors, module, prepare(shown[:images]), labels[:images], sample, sample_labels)


def _tinymlp(letter: str, images: int) -> Subject:
    return _subject(f"TinyMLP {letter}", tinymlp.shipped(letter), tinymlp.standardised, images)


def _convnet(images: int) -> Subject:
    return _subject("ConvNet", convnet.shipped(), convnet.images_in, images)


def _resnet(images: int) -> Subject:
    return _subject("ResNet-20 int8", resnet.shipped(), convnet.images_in, images)


SUBJECTS: Mapping[str, Callable[[int], Subject]] = {
    "TinyMLP A": partial(_tinymlp, "A"),
    "TinyMLP B": partial(_tinymlp, "B"),
    "ConvNet": _convnet,
    "ResNet-20 int8": _resnet,
}


def subject(name: str, images: int) -> Subject:
    """The model of that name, asked about the first `images` test images. Raises `InvalidInput` on other names."""
    if name not in SUBJECTS:
        raise InvalidInput(f"Unknown model {name!r}. Models are: {', '.join(SUBJECTS)}.")
    return SUBJECTS[name](images)
