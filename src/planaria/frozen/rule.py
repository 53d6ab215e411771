"""A rule that was learned on a population, as a file: the same for every network, so that it costs none a byte."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from planaria.automaton import Automaton, Recipe
from planaria.errors import InvalidFile, InvalidInput
from planaria.files import write_atomically
from planaria.frozen.prior import TOLD, Prior

VERSION = "1"
LARGEST_BYTE = 127
MOST_BYTES = 2**26  # of a file
RECIPE = Recipe(name="frozen", channels=9, hidden=24, steps=16, laplacian=True, fire_rate=1.0, hints=1, cooling=0.88)
"""The automaton of frozen rules, by default: a hint, which is the prior's answer, and six hidden channels."""

LARGEST = {"channels": 256, "hidden": 4096, "steps": 256}
"""What may be larger, and how large: a rule's bytes are nobody's."""

SHIPPED = {
    "sheet-1": "a86a688f5eec6fc13582dc5f5782da35224224e0eca9d8b137b06f71aa20c554",
    "kernel-1": "1be4a7da5ff6891c3761bf9783fb6d050e93943178b0712bb40e81438d51eff0",
}
"""SHA-256 of the files that come with the package, by name. A new file has a new name: guards rely on the old."""


@dataclass(frozen=True, eq=False)
class FrozenRule:
    """What was learned on a population.

    Attributes:
        name: of the rule with its version, as "sheet-1".
        prior: what is known of grids.
        automaton: of `RECIPE`, but for the sizes in `LARGEST`; it starts at the prior's answer.
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
            automaton.rule.hidden_bias.copy_(shifted_bias(automaton, self.shift.to(told), told))
        return automaton

    def without(self, kind: int) -> "FrozenRule":
        """The same with a prior that does not know this kind: what it is worth where it knows none that fits."""
        return replace(self, prior=self.prior.without(kind))

    @property
    def nbytes(self) -> int:
        """Of its file."""
        return len(self.to_bytes())

    def to_bytes(self) -> bytes:
        """As a safetensors file: fields of the prior as bytes with a scale each, all else in float32 and float16."""
        scale = self.prior.fields.abs().amax((2, 3), keepdim=True).clamp_min(1e-30) / LARGEST_BYTE
        tensors = {
            "prior.fields": (self.prior.fields / scale).round().to(torch.int8),
            "prior.scale": scale,
            "prior.remainder": self.prior.remainder.half(),
            "shift": self.shift,
            **{f"automaton.{name}": value for name, value in self.automaton.state_dict().items()},
        }
        # One entry: the order of several is not the same in every process.
        told: dict[str, Any] = {"version": VERSION, "name": self.name, "card": self.card}
        if (size := sizes(self.automaton.recipe)) != sizes(RECIPE):
            told["size"] = size
        about = {"rule": json.dumps(told)}
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, about)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the file. Raises `OutputFailed` if it cannot."""
        write_atomically(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "FrozenRule":
        """Reads and validates a file. Raises `InvalidFile` if it cannot be read or is no rule of this version."""
        try:
            if Path(path).stat().st_size > MOST_BYTES:
                raise InvalidFile(f"{path} has more than {MOST_BYTES:,} bytes, too many for a rule.")
            return cls.from_bytes(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise InvalidFile(f"Cannot read the rule {path}: {error}.") from error

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> "FrozenRule":
        """The same from memory; `source` is what errors call it."""
        try:
            tensors, about = load(content), json.loads(_metadata(content)["rule"])
            if about.get("version") != VERSION:
                raise InvalidFile(
                    f"{source} is a rule of version {about.get('version')!r}; this planaria reads {VERSION!r}. "
                    "Train it anew."
                )
            name, card = str(about["name"]), about["card"]
            if not isinstance(card, dict) or not all(isinstance(text, str) for text in card.values()):
                raise InvalidFile(f"{source} has a card that is no mapping of strings. Train the rule anew.")
            prior = Prior(tensors["prior.fields"].float() * tensors["prior.scale"], tensors["prior.remainder"])
            size = about.get("size", {})
            if not all(name in LARGEST and type(of) is int and 1 <= of <= LARGEST[name] for name, of in size.items()):
                raise InvalidFile(f"{source} has an automaton of sizes {size}; allowed are up to {LARGEST}.")
            automaton = Automaton(replace(RECIPE, **size))
            start = "automaton."
            automaton.load_state_dict(
                {name.removeprefix(start): of.float() for name, of in tensors.items() if name.startswith(start)}
            )
            shift = tensors["shift"].float()
            if tuple(shift.shape) != (automaton.recipe.hidden, TOLD) or not all(
                of.float().isfinite().all() for of in tensors.values()
            ):
                raise InvalidFile(f"{source} holds numbers of no rule. Train it anew.")
            return cls(name, prior, automaton, shift, card)
        except (
            InvalidInput,
            SafetensorError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            RuntimeError,
        ) as error:
            if isinstance(error, InvalidFile):
                raise
            raise InvalidFile(f"{source} cannot be read as a rule ({error}). Train it anew.") from error


def sizes(recipe: Recipe) -> dict[str, Any]:
    """What rules may have larger than `RECIPE` has it, by the names of `LARGEST`."""
    return {name: getattr(recipe, name) for name in LARGEST}


def shifted_bias(
    automaton: Automaton, shift: Float[Tensor, "hidden told"], told: Float[Tensor, " told"]
) -> Float[Tensor, " hidden"]:
    """The biases of the rule's hidden layer for a tensor of which this is told."""
    return automaton.rule.hidden_bias + shift @ told


@cache
def shipped(name: str) -> FrozenRule:
    """A rule that comes with the package, read once.

    Raises:
        InvalidInput: if there is none of this name.
        InvalidFile: if its file has changed.
    """
    if name not in SHIPPED:
        raise InvalidInput(f"There is no frozen rule {name!r}. Rules are: {', '.join(SHIPPED)}.")
    content = (resources.files("planaria") / "data" / "rules" / f"{name}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != SHIPPED[name]:
        raise InvalidFile(f"The frozen rule {name} has changed on disk. Install planaria again.")
    return FrozenRule.from_bytes(content, name)


def _metadata(content: bytes) -> dict[str, Any]:
    """The strings in a safetensors file's header, which was read before without an error."""
    size = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    return found
