"""A rule that was learned on a population, as a file: the same for every network, so that it costs none a byte."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load
from torch import Tensor

from planaria.automaton import Automaton, Recipe
from planaria.errors import InvalidFile, InvalidInput
from planaria.pretrained.prior import Prior

RECIPE = Recipe(name="frozen", channels=9, hidden=24, steps=16, laplacian=True, fire_rate=1.0, hints=1, cooling=0.88)
"""The automaton of pretrained rules, by default: a hint, which is the prior's answer, and six hidden channels."""

SHIPPED = {
    "sheet-1": "a86a688f5eec6fc13582dc5f5782da35224224e0eca9d8b137b06f71aa20c554",
    "kernel-1": "1be4a7da5ff6891c3761bf9783fb6d050e93943178b0712bb40e81438d51eff0",
}
"""SHA-256 of the files that come with the package, by name. A new file has a new name: guards rely on the old."""


@dataclass(frozen=True, eq=False)
class PretrainedRule:
    """What was learned on a population.

    Attributes:
        name: of the rule with its version, as "sheet-1".
        prior: what is known of grids.
        automaton: of `RECIPE`, perhaps with more channels, hidden units or steps; it starts at the prior's answer.
        shift: `[hidden, told]`: what the survivors tell of a tensor (`Surveyed.told`), times this, is added to the
            biases of the rule's hidden layer: feature-wise modulation (Perez et al. 2018) without its factors, so that
            each tensor is repaired by an automaton of its own at no byte.
        card: what it was trained on; strings.
    """

    name: str
    prior: Prior
    automaton: Automaton
    shift: Float[Tensor, "hidden told"]
    card: dict[str, str]

    def repaired(
        self, weight: Float[Tensor, "batch *space"], known: Bool[Tensor, "batch *space"]
    ) -> Float[Tensor, "batch *space"]:
        """Grids of one tensor with missing cells filled.

        Args:
            weight: of mean 0 and deviation about 1, two axes of at most 1,024 cells; what is missing is not looked at.
        """
        surveyed = self.prior.surveyed(weight, known)
        with torch.no_grad():
            automaton = self.automaton_for(surveyed.told)
            state = automaton.start(surveyed.mean, known, surveyed.mean)
            return automaton.run(state)[:, 0]

    def automaton_for(self, told: Float[Tensor, " told"]) -> Automaton:
        """The automaton for a tensor of which this is told."""
        automaton = Automaton(self.automaton.recipe, dimensions=self.automaton.dimensions)
        automaton.load_state_dict(self.automaton.state_dict())
        automaton.to(told.device)
        with torch.no_grad():
            automaton.rule.hidden_bias.add_(self.shift.to(told) @ told)
        return automaton

    @classmethod
    def from_bytes(cls, content: bytes) -> "PretrainedRule":
        """A rule from its safetensors file: fields of the prior as bytes with a scale each, all else as floats.

        For files that are known to be sound; `planaria_lab.pretrained.load_rule` reads others.
        """
        tensors, about = load(content), metadata(content)
        prior = Prior(tensors["prior.fields"].float() * tensors["prior.scale"], tensors["prior.remainder"])
        automaton = Automaton(replace(RECIPE, **about.get("size", {})))
        start = "automaton."
        automaton.load_state_dict(
            {name.removeprefix(start): tensor.float() for name, tensor in tensors.items() if name.startswith(start)}
        )
        return cls(str(about["name"]), prior, automaton, tensors["shift"].float(), about["card"])


@cache
def shipped(name: str) -> PretrainedRule:
    """A rule that comes with the package, read once.

    Raises:
        InvalidInput: if there is none of this name.
        InvalidFile: if its file has changed.
    """
    if name not in SHIPPED:
        raise InvalidInput(f"There is no pretrained rule {name!r}. Rules are: {', '.join(SHIPPED)}.")
    content = (resources.files("planaria") / "data" / "rules" / f"{name}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != SHIPPED[name]:
        raise InvalidFile(f"The pretrained rule {name} has changed on disk. Install planaria again.")
    return PretrainedRule.from_bytes(content)


def metadata(content: bytes) -> dict[str, Any]:
    """What the header of a rule's file tells of it: its name, version and card, and sizes unlike those of `RECIPE`."""
    size = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["rule"])
    return found
