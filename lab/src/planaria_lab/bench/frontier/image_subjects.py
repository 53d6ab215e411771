"""Networks that tell digits: the TinyMLPs, whose first layer is damaged, and a convolutional one, all of which is."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from planaria.calibration import second_moments_of
from planaria_lab import datasets
from planaria_lab.bench import tinymlp
from planaria_lab.bench.frontier import convnet
from planaria_lab.bench.frontier.base import FrontierSubject, Spaces, Weights


def tinymlp_subject(letter: str) -> FrontierSubject:
    """TinyMLP A or B: `fc1.weight`. Its inputs are images."""
    network = tinymlp.shipped(letter)
    images, labels = datasets.mnist_test()
    calibration = tinymlp.standardised(datasets.mnist_calibration())
    spaces = {"fc1.weight": (28, 28)}
    return _classifier(f"TinyMLP {letter}", network, spaces, tinymlp.standardised(images), labels, calibration)


def convnet_subject() -> FrontierSubject:
    """The convolutional network: all weights but the biases. Kernels are sheets, as are the linear layer's inputs."""
    network = convnet.shipped()
    images, labels = datasets.mnist_test()
    calibration = convnet.images_in(datasets.mnist_calibration())
    spaces = {"conv1.weight": (5, 5), "conv2.weight": (5, 5), "fc1.weight": (4, 4), "fc2.weight": ()}
    return _classifier("ConvNet", network, spaces, convnet.images_in(images), labels, calibration)


def _classifier(
    name: str,
    network: nn.Module,
    spaces: Spaces,
    inputs: Tensor,
    labels: Int64[Tensor, " images"],
    calibration: Tensor,
) -> FrontierSubject:
    """Accuracy is percent of the test images. The judge's likeness is of training images, without their labels."""

    @torch.no_grad()
    def logits(tensors: Weights, images: Tensor) -> Float[Tensor, "images classes"]:
        return torch.cat([functional_call(network, dict(tensors), (some,)) for some in images.split(500)])

    answers = logits({}, calibration).argmax(1)

    def evaluate(tensors: Weights) -> dict[str, float]:
        return {"accuracy": 100 * (logits(tensors, inputs).argmax(1) == labels).double().mean().item()}

    def judge(tensors: Weights) -> float:
        """Share of equal answers; among equals, the mean probability of the intact network's answer."""
        found = logits(tensors, calibration)
        likely = found.softmax(1).gather(1, answers[:, None]).mean().nan_to_num(0.0)
        return ((found.argmax(1) == answers).double().mean() + likely / len(answers)).item()

    moments = second_moments_of(network, [calibration])
    return FrontierSubject(
        name=name,
        weights={of: network.get_parameter(of).detach() for of in spaces},
        evaluate=evaluate,
        metric="accuracy",
        judge=judge,
        moments={of: moments[of] for of in spaces},
        spaces={of: space for of, space in spaces.items() if space},
    )
