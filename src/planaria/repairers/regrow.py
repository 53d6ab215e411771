"""Missing weights are regrown by the automaton from those that survive around them."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planaria.automaton import Automaton
from planaria.automaton.normalisation import Normalisation
from planaria.errors import InvalidInput
from planaria.layouts import Layout
from planaria.repairers.base import Record, Repairer

Precision = Literal["single", "half", "byte"]
PRECISIONS: tuple[Precision, ...] = ("single", "half", "byte")
LARGEST_BYTE = 127


class Regrow(Repairer):
    """Runs a fitted automaton on the layout's grids (Paladini, Tuba, Mariot 2026).

    The record holds all that was learned, rule and survey, so that it is counted, and the tensor's normalisation (16
    bytes). `restore` runs what the record holds, never the automaton that it was made from.

    Args:
        automaton: with a fitted rule, see `planaria.fit.fit_rule`. Its rule may be of another tensor.
        layout: as in the fit.
        precision: of the stored rule: "single" 4, "half" 2, or "byte" 1 byte a parameter (and a scale for each
            tensor).
        steps: of a repair; the recipe's number by default.

    Raises:
        InvalidInput: if the layout's dimensions are not the automaton's, or the precision is unknown.
    """

    def __init__(
        self,
        automaton: Automaton,
        layout: Layout,
        *,
        precision: Precision = "half",
        steps: int | None = None,
    ):
        if automaton.dimensions != layout.dimensions:
            raise InvalidInput(
                f"The automaton's grids have {automaton.dimensions} dimensions and those of {layout} have "
                f"{layout.dimensions}; make one with dimensions={layout.dimensions}."
            )
        if precision not in PRECISIONS:
            raise InvalidInput(f"Unknown precision {precision!r}. Precisions are: {', '.join(PRECISIONS)}.")
        self.automaton = automaton
        self.layout = layout
        self.precision = precision
        self.steps = steps

    def _prepare(self, weight: Float[Tensor, "*weight"]) -> Record:
        self.layout.to_grid(weight)  # refuses a weight that does not fit, before anything is stored
        tensors = {"normalisation": Normalisation.of(weight).to_tensor()}
        for name, parameter in self.automaton.state_dict().items():
            tensors |= self._encoded(name, parameter.cpu())
        return Record(tensors)

    def _fill(
        self, visible: Float[Tensor, "*weight"], known: Bool[Tensor, "*weight"], record: Record
    ) -> Float[Tensor, "*weight"]:
        normalisation = Normalisation.from_tensor(record["normalisation"])
        automaton = Automaton(self.automaton.recipe, dimensions=self.layout.dimensions, seed=self.automaton.seed)
        automaton.load_state_dict(
            {name: self._decoded(name, record, blank) for name, blank in automaton.state_dict().items()}
        )
        automaton.to(visible.device)
        grid = self.layout.to_grid(normalisation.apply(visible).float())
        with torch.no_grad():
            state = automaton.run(automaton.start(grid, self.layout.to_grid(known)), steps=self.steps)
        return normalisation.undo(self.layout.from_grid(state[:, 0], tuple(visible.shape)).to(visible))

    def _encoded(self, name: str, parameter: Tensor) -> dict[str, Tensor]:
        if self.precision == "byte":
            scale = parameter.abs().max().clamp_min(1e-30) / LARGEST_BYTE
            return {name: (parameter / scale).round().to(torch.int8), f"{name}_scale": scale.view(1)}
        return {name: parameter.to(torch.float16 if self.precision == "half" else torch.float32, copy=True)}

    def _decoded(self, name: str, record: Record, blank: Tensor) -> Tensor:
        scale = record.tensors.get(f"{name}_scale")
        values = record[name].float()
        if values.shape != blank.shape:
            raise InvalidInput(
                f"The record's {name} has shape {tuple(values.shape)}; this automaton's has {tuple(blank.shape)}. "
                "Restore with the recipe that prepared the record."
            )
        return values if scale is None else values * scale
