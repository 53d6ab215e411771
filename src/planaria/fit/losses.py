"""What a fit makes small."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def missing_error(error: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]) -> Float[Tensor, ""]:
    """Mean squared error over missing cells: the talk's loss. 0 if nothing is missing."""
    missing = ~known
    return torch.where(missing, error, 0.0).square().sum() / missing.sum().clamp_min(1)


def output_error(
    error: Float[Tensor, "batch *space"],
    known: Bool[Tensor, "batch *space"],
    moments: Float[Tensor, "inputs inputs"],
) -> Float[Tensor, ""]:
    """Mean squared error of the layer's outputs, in units of the missing-cell error.

    A neuron whose weights err by `e` errs by `e' M e` in the mean square of its output, `M` the second moments of its
    inputs. Small weight errors that agree in sign over bright inputs add up there and nowhere else. Divided by the
    mean of M's diagonal and the number of missing cells: uncorrelated errors then count as in `missing_error`.

    Each neuron's inputs must lie contiguously in the grid, as they do in the flat and the sheet layout.
    """
    missing = ~known
    errors = torch.where(missing, error, 0.0).reshape(-1, moments.shape[0])
    return ((errors @ moments) * errors).sum() / moments.diagonal().mean() / missing.sum().clamp_min(1)


def second_moments(inputs: Float[Tensor, "samples inputs"]) -> Float[Tensor, "inputs inputs"]:
    """Uncentred second moments of a layer's inputs, float32."""
    inputs = inputs.float()
    return inputs.T @ inputs / len(inputs)
