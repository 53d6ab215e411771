"""Pretrained rules as files: written once they are learned, and read with care where it is not known who wrote them."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from planaria.automaton import Recipe
from planaria.errors import InvalidFile
from planaria.files import write_atomically
from planaria.pretrained import RECIPE, PretrainedRule
from planaria.pretrained.prior import TOLD
from planaria.pretrained.rule import metadata

VERSION = "1"
LARGEST_BYTE = 127
MOST_BYTES = 2**26  # of a file
LARGEST = {"channels": 256, "hidden": 4096, "steps": 256}
"""What a rule's automaton may have larger than `RECIPE`, and how large: a rule's bytes are nobody's."""


def sizes(recipe: Recipe) -> dict[str, Any]:
    """What `LARGEST` names, of a recipe."""
    return {name: getattr(recipe, name) for name in LARGEST}


def rule_bytes(rule: PretrainedRule) -> bytes:
    """As a safetensors file: fields of the prior as bytes with a scale each, all else in float32 and float16."""
    scale = rule.prior.fields.abs().amax((2, 3), keepdim=True).clamp_min(1e-30) / LARGEST_BYTE
    tensors = {
        "prior.fields": (rule.prior.fields / scale).round().to(torch.int8),
        "prior.scale": scale,
        "prior.remainder": rule.prior.remainder.half(),
        "shift": rule.shift,
        **{f"automaton.{name}": value for name, value in rule.automaton.state_dict().items()},
    }
    # One entry: the order of several is not the same in every process.
    told: dict[str, Any] = {"version": VERSION, "name": rule.name, "card": rule.card}
    if (size := sizes(rule.automaton.recipe)) != sizes(RECIPE):
        told["size"] = size
    about = {"rule": json.dumps(told)}
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, about)


def save_rule(rule: PretrainedRule, path: str | PathLike[str]) -> None:
    """Writes the file. Raises `OutputFailed` if it cannot."""
    write_atomically(Path(path), rule_bytes(rule))


def load_rule(path: str | PathLike[str]) -> PretrainedRule:
    """Reads and validates a file. Raises `InvalidFile` if it cannot be read or is no rule of this version."""
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise InvalidFile(f"{path} has more than {MOST_BYTES:,} bytes, too many for a rule.")
        content = Path(path).read_bytes()
        tensors, about = load(content), metadata(content)
        if about.get("version") != VERSION:
            raise InvalidFile(
                f"{path} is a rule of version {about.get('version')!r}; this planaria reads {VERSION!r}. Train it anew."
            )
        card, size = about["card"], about.get("size", {})
        if not isinstance(card, dict) or not all(isinstance(text, str) for text in card.values()):
            raise InvalidFile(f"{path} has a card that is no mapping of strings. Train the rule anew.")
        if not all(name in LARGEST and type(of) is int and 1 <= of <= LARGEST[name] for name, of in size.items()):
            raise InvalidFile(f"{path} has an automaton of sizes {size}; allowed are up to {LARGEST}.")
        if not all(of.float().isfinite().all() for of in tensors.values()):
            raise InvalidFile(f"{path} holds numbers of no rule. Train it anew.")
        rule = PretrainedRule.from_bytes(content)
        if tuple(rule.shift.shape) != (rule.automaton.recipe.hidden, TOLD):
            raise InvalidFile(f"{path} shifts another automaton than its own. Train it anew.")
        return rule
    except InvalidFile:
        raise
    except OSError as error:
        raise InvalidFile(f"Cannot read the rule {path}: {error}.") from error
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InvalidFile(f"{path} cannot be read as a rule ({error}). Train it anew.") from error
