"""Populations to learn from."""

import torch
from helpers import drawn


def smooth(networks: int, grids: int, side: int, seed: int = 0) -> list[torch.Tensor]:
    """Grids whose neighbours are alike."""
    waves = torch.stack([torch.cos(torch.pi / side * (torch.arange(side) + 0.5) * wave) for wave in range(3)])
    mixed = drawn(networks, grids, 3, 3, seed=seed, name="mixture")
    return list(torch.einsum("ngab,ax,by->ngxy", mixed, waves, waves) + 0.1 * drawn(networks, grids, side, side))
