"""What Gaussian vectors hold where they are missing, given the rest of them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SHRINKAGE = 1e-3  # of the mean variance, added to all: few samples leave directions without any
PIECE = 128  # vectors at once


def moments(samples: Float[Tensor, "samples size"]) -> tuple[Float[Tensor, " size"], Float[Tensor, "size size"]]:
    """Mean and covariance in float64, positive definite."""
    samples = samples.double()
    mean = samples.mean(0)
    covariance = (samples - mean).mT @ (samples - mean) / len(samples)
    ridge = SHRINKAGE * covariance.diagonal().mean() + 1e-12
    return mean, covariance + ridge * torch.eye(len(mean), dtype=mean.dtype)


def conditional(
    visible: Float[Tensor, "*batch size"],
    known: Bool[Tensor, "*batch size"],
    mean: Float[Tensor, " size"],
    covariance: Float[Tensor, "size size"],
) -> tuple[Float[Tensor, "*batch size"], Float[Tensor, "*batch size"]]:
    """Conditional means, and variances: Wiener's filter, for vectors of which each misses other entries.

    Cost: a Cholesky factor of the covariance for each vector.
    """
    means, variances = [], []
    pairs = zip(visible.flatten(0, -2).split(PIECE), known.flatten(0, -2).split(PIECE), strict=True)
    for some, there in pairs:
        # Missing rows and columns are those of the identity, and so are they in the inverse.
        mask = there.to(covariance)
        within = mask[:, :, None] * covariance * mask[:, None] + torch.diag_embed(1 - mask)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(within))
        gain = covariance @ (mask[:, :, None] * inverse * mask[:, None])
        means.append(mean + (gain @ (some.to(mean) - mean)[..., None])[..., 0])
        variances.append(covariance.diagonal() - (gain * covariance).sum(-1))
    return torch.cat(means).view_as(visible), torch.cat(variances).view_as(visible)
