"""The smooth fields that a tensor's grids are mixed from, in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from planaria.automaton.survey import Survey, analysed, synthesised

OUTPUT_SHARE = 0.2  # of the layer-output error in the metric that decides which fields matter
CORRELATION = 2.0  # how much more variance the noise is given than there is, because neighbours err alike


@torch.no_grad()
def learn_modes(
    survey: Survey, grids: Float[Tensor, "batch *space"], moments: Float[Tensor, "inputs inputs"] | None
) -> None:
    """Principal components of the grids' lowest cosine coefficients, written into the survey.

    With second moments of the inputs, and grids that are a neuron each, components are those of a metric in which a
    fifth of the error is the layer's output error: fields over bright inputs then come first.
    """
    frequencies = survey.fields.shape[1]
    coefficients = analysed(grids.double(), frequencies).flatten(1)
    size = coefficients.shape[1]
    metric = torch.eye(size, dtype=torch.float64, device=grids.device)
    if moments is not None and len(moments) == grids[0].numel():
        waves = synthesised(metric.view(size, *survey.fields.shape[1:]), tuple(grids.shape[1:])).flatten(1)
        outputs = waves @ moments.double() @ waves.T / moments.double().diagonal().mean()
        metric = (1 - OUTPUT_SHARE) * metric + OUTPUT_SHARE * outputs
    eigenvalues, eigenvectors = torch.linalg.eigh(metric)
    root = (eigenvectors * eigenvalues.clamp_min(1e-9).sqrt()) @ eigenvectors.T
    weighted = coefficients @ root
    modes = len(survey.fields)
    variances, directions = torch.linalg.eigh(weighted.T @ weighted / len(weighted))
    variances, directions = variances.flip(0)[:modes].clamp_min(0), directions.flip(1)[:, :modes]
    fields = torch.linalg.solve(root, directions * variances.sqrt()).T
    kept = fields.new_zeros(modes, size)
    kept[: len(fields)] = fields  # there may be fewer coefficients than modes
    survey.fields.copy_(kept.view_as(survey.fields))
    mixture = weighted @ directions / variances.clamp_min(1e-12).sqrt()
    smooth = synthesised((mixture @ fields).view(len(grids), *survey.fields.shape[1:]), tuple(grids.shape[1:]))
    survey.noise.copy_((CORRELATION * (grids - smooth).square().mean()).clamp_min(1e-3))
