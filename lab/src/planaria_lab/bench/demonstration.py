"""Fit, damage, repair, look: the pictures of one fit on a shipped network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.automaton.normalisation import Normalisation
from planaria.files import write_atomically
from planaria.fit import Fit
from planaria.repairers import Regrow, Repairer
from planaria_lab.bench import figures, repair_table, tinymlp
from planaria_lab.repairers import Kriging, MeanFill, NeighbourFill

RATE = 0.9
NEURONS = (3, 11, 19, 27, 35, 43, 51, 59)


def draw(fit: Fit, folder: Path, *, network: str = "A", seed: int = 0) -> list[Path]:
    """Writes the intact-missing-regrown picture, the gallery, the loss curve and the GIF of the rollout into `folder`.

    All show the first stored mask at 90 % missing. Returns the files in that order. Raises `OutputFailed`.
    """
    layout = repair_table.SHEETS
    intact = tinymlp.shipped(network).fc1.weight.detach()
    faults = repair_table.stored_faults(intact, rate=RATE, mask=0, seed=seed)
    damaged, known = faults.replay(intact), faults.known

    def repaired(repairer: Repairer) -> Float[Tensor, "neurons 28 28"]:
        return layout.to_grid(repairer.restore(damaged, known, repairer.prepare(intact)))

    regrown = repaired(Regrow(fit.automaton, layout))
    sheets, known_sheets = layout.to_grid(intact), layout.to_grid(known)
    triptych = {"intact": sheets, "90 % missing": layout.to_grid(damaged), "regrown": regrown}
    gallery = {
        "intact": sheets,
        "damaged": layout.to_grid(damaged),
        "mean": repaired(MeanFill()),
        "neighbour": repaired(NeighbourFill(layout)),
        "kriging": repaired(Kriging(layout)),
        "regrown": regrown,
    }
    paths = [folder / name for name in ("regrown.png", "gallery.png", "loss.png", "rollout.gif")]
    figures.save_figure(figures.triptych(triptych, known_sheets), paths[0])
    figures.save_figure(figures.gallery(gallery, known_sheets, neurons=NEURONS), paths[1])
    figures.save_figure(figures.loss_curve(fit.losses, fit.held_out), paths[2])
    rollout = _rollout(fit, intact, known)
    write_atomically(paths[3], figures.rollout_gif(rollout, intact=sheets, known=known_sheets))
    return paths


def draw_curves(result: dict[str, Any], folder: Path) -> list[Path]:
    """Writes a figure of accuracy against damage for each network of a repair result. Raises `OutputFailed`."""
    paths = []
    for name, measured in result["networks"].items():
        paths.append(folder / f"recovery_{name.lower()}.png")
        figures.save_figure(figures.recovery_curves(name, measured, result["the_talk"]), paths[-1])
    return paths


@torch.no_grad()
def _rollout(
    fit: Fit, intact: Float[Tensor, "out in"], known: Bool[Tensor, "out in"]
) -> Iterator[Float[Tensor, "neurons 28 28"]]:
    """The weights after every step, in the weights' own units."""
    layout = repair_table.SHEETS
    normalisation = Normalisation.of(intact)
    grid = layout.to_grid(normalisation.apply(torch.where(known, intact, 0.0)))
    state = fit.automaton.start(grid, layout.to_grid(known))
    yield normalisation.undo(state[:, 0])
    for index in range(fit.automaton.recipe.steps):
        state = fit.automaton.step(state, index=index)
        yield normalisation.undo(state[:, 0])
