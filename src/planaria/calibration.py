"""What a network's layers are fed: second moments of their inputs, measured on data or read from a file.

An error `e` of a neuron's weights is an error `e' M e` in the mean square of its output, `M` the second moments of its
inputs. Side memory that knows `M` spends its bytes where outputs feel them.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from planaria.checkpoints import Entry, open_checkpoint
from planaria.dtypes import torch_dtypes
from planaria.errors import InvalidInput
from planaria.fit import second_moments
from planaria.stationary import correlations_of_pairs

SUFFIX = ".second_moment"
DTYPES = {name: torch_dtypes()[name] for name in ("F64", "F32", "F16", "BF16")}
ASYMMETRY = 1e-3  # of two entries that should be equal, in units of what their diagonal allows
ROUNDING = 1e-5  # of the trace: a form may be that much below zero for being summed in single precision


@dataclass(frozen=True)
class Calibration:
    """Second moments of layer inputs.

    Attributes:
        moments: by weight name, float32 `[inputs, inputs]`.
        notes: a sentence for each tensor whose moments are not plain averages.
    """

    moments: dict[str, Float[Tensor, "inputs inputs"]]
    notes: tuple[str, ...] = ()


def second_moments_of(module: nn.Module, batches: Iterable[Any]) -> dict[str, Float[Tensor, "inputs inputs"]]:
    """Second moments E[x x'] of the inputs of each `Linear` and `Conv2d` layer, by the name of its weight.

    A convolution's inputs are the patches that its kernel sees, of `channels * height * width` numbers in the order of
    its weight; those of a grouped one are pooled over the groups. Layers that are never called are left out. The module
    runs in evaluation mode without gradients, and is left as it was. Padding that a batch brings along is data to the
    layers: prefer batches of equal lengths.

    Args:
        module: any module.
        batches: what to call it with: a tensor, a tuple of arguments or a mapping of named ones.

    Cost: one pass, and memory for the moments and one layer's patches of one batch.

    Raises:
        InvalidInput: if there is no batch, or an input is not finite.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def watch(name: str) -> Any:
        def before(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs = _rows(layer, arguments[0].detach())
            part = second_moments(inputs) * len(inputs)
            sums[name] = sums[name] + part if name in sums else part
            counts[name] += len(inputs)

        return before

    training = {part: part.training for part in module.modules()}
    seen = 0
    with ExitStack() as stack, torch.no_grad():
        stack.callback(_set_training, training)
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(watch(name)).remove)
        module.eval()
        for batch in batches:
            if isinstance(batch, Mapping):
                module(**batch)
            else:
                module(*batch if isinstance(batch, (tuple, list)) else (batch,))
            seen += 1
    if not seen:
        raise InvalidInput("Second moments need at least one batch; there is none. Pass an iterable that is not empty.")
    moments = {f"{name}.weight": total / counts[name] for name, total in sums.items() if counts[name]}
    for name, moment in moments.items():
        if not moment.isfinite().all():
            raise InvalidInput(f"The inputs of {name!r} are not all finite. Calibrate an intact model on sound data.")
    return moments


def natural_images(space: tuple[int, ...]) -> Float[Tensor, "inputs inputs"]:
    """Second moments to expect of a layer over images where there is no data to calibrate on, with a diagonal of 1.

    The power of natural images falls as the square of the frequency (Field 1987), here down to half a period an image.

    Args:
        space: height and width of the images in pixels, each at least 1; float32 `[height * width]` squared comes back.

    Raises `InvalidInput` on other than two axes.
    """
    if len(space) != 2 or min(space) < 1:
        raise InvalidInput(f"Images have a height and a width of at least 1 pixel, not {tuple(space)}.")
    down, across = (torch.fft.fftfreq(2 * size, dtype=torch.float64) for size in space)
    squares = down[:, None].square() + across.square()
    squares[0, 0] = squares.flatten()[1:].min()
    return correlations_of_pairs(torch.fft.ifft2(1 / squares).real, space)


def load_calibration(path: str | os.PathLike[str], shapes: Mapping[str, tuple[int, ...]]) -> Calibration:
    """Reads moments, or inputs to take them of, from a safetensors file.

    A tensor `NAME`, the name of a weight, holds inputs of its layer, `[samples, inputs]`; `NAME.second_moment` holds
    `[inputs, inputs]`. `inputs` is the product of all axes of the weight but the first. A weight that the file does not
    name has no moments.

    With fewer samples than inputs the average is singular, and is shrunk towards its diagonal by the share that makes
    the expected squared error least (Schafer and Strimmer 2005, target D, for uncentred moments); a note says so.

    Args:
        path: the file; treated as hostile.
        shapes: of the weights, by name.

    Raises:
        InvalidFile: if it is no sound safetensors file.
        InvalidInput: if it names a weight that is not there or twice, or a tensor has a wrong dtype or shape, holds a
            number that is not finite, or is no matrix of second moments.
        FileNotFoundError: if there is none.
    """
    moments: dict[str, Tensor] = {}
    notes = []
    with open_checkpoint(path) as file:
        for entry in file.entries.values():
            given = entry.name not in shapes and entry.name.endswith(SUFFIX)
            name = entry.name.removesuffix(SUFFIX) if given else entry.name
            _require_weight(name, entry, shapes, moments, path)
            inputs = prod(shapes[name][1:])
            _require_entry(entry, inputs, given)
            values = torch.from_numpy(file.read(entry.name)).view(DTYPES[entry.dtype]).view(entry.shape).float()
            if not values.isfinite().all():
                raise InvalidInput(f"{entry.name!r} holds numbers that are not finite in float32. Calibrate again.")
            if given:
                moments[name] = _sound(values, entry.name)
                continue
            moments[name], share = _shrunk(values)
            if not moments[name].isfinite().all():
                raise InvalidInput(f"{name!r} has inputs whose squares are not finite in float32. Scale the model.")
            if share:
                notes.append(
                    f"{name}: {len(values)} samples of {inputs} inputs are too few; their second moments were shrunk "
                    f"by {share:.0%} towards the diagonal."
                )
    return Calibration(moments, tuple(notes))


def _rows(layer: nn.Module, inputs: Tensor) -> Float[Tensor, "samples inputs"]:
    """What each output is computed from."""
    if not isinstance(layer, nn.Conv2d):
        return inputs.reshape(-1, inputs.shape[-1])
    inputs = inputs if inputs.dim() == 4 else inputs[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    patches = functional.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    by_group = patches.unflatten(1, (layer.groups, -1))
    return by_group.transpose(2, 3).flatten(0, 2)


def _set_training(modes: Mapping[nn.Module, bool]) -> None:
    for part, training in modes.items():
        part.training = training


def _require_weight(
    name: str,
    entry: Entry,
    shapes: Mapping[str, tuple[int, ...]],
    moments: Mapping[str, Tensor],
    path: str | os.PathLike[str],
) -> None:
    if name not in shapes:
        raise InvalidInput(
            f"{path} has a tensor {entry.name!r}, and there is no weight {name!r}. Name inputs as the weight, and "
            f"second moments as the weight and {SUFFIX!r}."
        )
    if len(shapes[name]) < 2:
        raise InvalidInput(f"{name!r} has shape {shapes[name]}: no layer multiplies inputs by it. Leave it out.")
    if name in moments:
        raise InvalidInput(f"{path} has both inputs and second moments of {name!r}. Keep one of them.")


def _require_entry(entry: Entry, inputs: int, given: bool) -> None:
    wanted = f"[{inputs}, {inputs}]" if given else f"[samples, {inputs}], at least one sample"
    square = len(entry.shape) == 2 and entry.shape[1] == inputs
    if not square or (entry.shape[0] != inputs if given else entry.shape[0] < 1):
        raise InvalidInput(f"{entry.name!r} has shape {list(entry.shape)}; it must be {wanted}.")
    if entry.dtype not in DTYPES:
        raise InvalidInput(f"{entry.name!r} is {entry.dtype}; calibration is one of {', '.join(DTYPES)}. Convert it.")


def _sound(moment: Float[Tensor, "inputs inputs"], name: str) -> Float[Tensor, "inputs inputs"]:
    """The symmetric part. Raises `InvalidInput` if this cannot be an average of x x'."""
    diagonal = moment.diagonal()
    if (diagonal < 0).any():
        raise InvalidInput(f"{name!r} has {int((diagonal < 0).sum())} negative mean squares. Calibrate again.")
    allowed = diagonal.sqrt()[:, None] * diagonal.sqrt()  # by Cauchy and Schwarz
    if ((moment - moment.T).abs() > ASYMMETRY * allowed).any():
        raise InvalidInput(f"{name!r} is not symmetric, as second moments are. Calibrate again.")
    whole = (moment.double() + moment.T.double()) / 2
    # Positive on top of what rounding explains, for every direction: then a Cholesky factor exists.
    slack = ROUNDING * float(whole.trace()) + 1e-300
    if int(torch.linalg.cholesky_ex(whole + slack * torch.eye(len(whole), dtype=torch.float64)).info):
        raise InvalidInput(f"{name!r} gives some combination of inputs a negative mean square. Calibrate again.")
    return whole.float()


def _shrunk(samples: Float[Tensor, "samples inputs"]) -> tuple[Float[Tensor, "inputs inputs"], float]:
    """Second moments, and by what share they were shrunk; 0 where there are as many samples as inputs."""
    moment, (count, inputs) = second_moments(samples), samples.shape
    if count >= inputs:
        return moment, 0.0
    square, products = moment.double().square(), samples.double().square()
    scatter = products.T @ products / count - square  # of each product around its mean
    apart = ~torch.eye(inputs, dtype=torch.bool)
    noise = float(scatter[apart].sum()) / max(count - 1, 1)
    share = min(1.0, noise / max(float(square[apart].sum()), 1e-300)) if count > 1 else 1.0
    return torch.where(apart, (1 - share) * moment, moment), share
