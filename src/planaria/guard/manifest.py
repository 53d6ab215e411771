"""What a guard says of itself: the JSON in its `manifest` tier. Specified in FORMAT.md, section 3."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planaria.errors import InvalidGuard
from planaria.memory.memory import CODECS
from planaria.memory.refinement import MOST_STAGES

VERSION = 5
COMPACT = 3  # the version from which small tensors cost less
NOT_FINITE = 4  # the version from which it is told which tensors without statistics held values that are no numbers
MORE_TIERS = 5  # the version from which a guard may hold tiers that are not in the format
MORE = "more"  # what the names of their arrays begin with: the seal has to be the last one
RESERVED = {"manifest", "headers", "statistics", "description", "seal", "self"}  # no names for tiers
FINGERPRINT = 16  # bytes
LARGEST_TILE = 2**20
LONGEST_NAME = 255  # bytes, of a file
PRETRAINED = (
    "frozen"  # the precision, in the format, of a rule that comes with the package: no parameter of it is stored
)
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class ParityShape:
    """Geometry of the parity tier: the layout is cut in segments, each coded on its own.

    Attributes:
        segment: symbols of a segment; the last may be shorter.
        width: codewords of a segment.
        check: check symbols of a codeword.
    """

    segment: int
    width: int
    check: int


@dataclass(frozen=True, kw_only=True)
class RuleShape:
    """How one tensor's rule is run, and what it was worth on held-out masks.

    Attributes:
        tensor: index of the tensor.
        recipe: name of the automaton's recipe, or of the pretrained rule.
        precision: of the stored parameters; "frozen" of a rule of which none are stored.
        space: axes of a neuron's sheet; empty for the flat layout.
        rates: missing fractions of the held-out masks, ascending.
        errors: root mean squared error over missing weights at each rate, in units of the weights' deviation.
        tile_error: the same over weights of lost tiles, whole; from 1 on the rule is not used for those.
    """

    tensor: int
    recipe: str
    precision: str
    space: Sequence[int]
    rates: Sequence[float]
    errors: Sequence[float]
    tile_error: float

    @property
    def stored(self) -> bool:
        """Whether the guard holds the rule's parameters."""
        return self.precision != PRETRAINED


class EncodedShape(NamedTuple):
    """What is encoded of one tensor.

    Attributes:
        tensor: index of the tensor.
        codec: of its sketch, or "" without one.
        space: spatial axes that its columns end with, for codec and prior; empty if neither needs them.
        refined, prior: 1 if the refinement covers it, and if it has a prior; else 0.
        error: root mean square of what the sketch leaves of the weights; of the weights themselves without one.
    """

    tensor: int
    codec: str
    space: Sequence[int]
    refined: int
    prior: int
    error: float

    @property
    def sketched(self) -> bool:
        """Whether the guard holds an array for it."""
        return bool(self.codec or self.prior)


@dataclass(frozen=True, kw_only=True)
class MemoryShape:
    """How the memory tiers are read.

    Attributes:
        tensors: what is encoded, by ascending index; only tensors with something.
        strengths: of the refinement's stages: the shares of weights that may be missing; empty without a refinement.
    """

    tensors: Sequence[EncodedShape]
    strengths: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest.

    Attributes:
        version: of the format; 3 for the compact one, see `compact`; 4 with `not_finite`; 5 with `tiers`.
        key: fingerprint of the key, or "" for a guard made without one.
        tile: bytes of a tile.
        files: (name, bytes of its header) of each file of the model; one of the name "" for a model in memory.
        aliases: other names of tensors that share memory.
        parity: shape of the parity tier, if there is one.
        rules: one for each tensor that has a rule.
        reasons: why tensors have no rule: reason -> indices of tensors.
        copied: indices of the tensors that the copy holds, ascending; from version 2.
        memory: shape of the memory tiers, if there are any; from version 2.
        not_finite: indices, ascending, of tensors without statistics in which some values were no numbers; from
            version 4.
        tiers: settings of tiers that are not in the format, by name; from version 5.
        plain: whether a guard of version 5 is not compact.
    """

    version: int = 1
    key: str = ""
    tile: int = 4096
    files: Sequence[tuple[str, int]] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    parity: ParityShape | None = None
    rules: Sequence[RuleShape] = ()
    reasons: Mapping[str, Sequence[int]] = field(default_factory=dict)
    copied: Sequence[int] = ()
    memory: MemoryShape | None = None
    not_finite: Sequence[int] = ()
    tiers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plain: bool = False

    @property
    def compact(self) -> bool:
        """Whether small tensors share digests, only large ones have statistics, headers come without offsets, and one
        seal binds all tiers together."""
        return self.version >= COMPACT and not self.plain

    def encode(self) -> NDArray[np.uint8]:
        """As the bytes of a tier; what is empty is left out."""
        fields = {name: value for name, value in asdict(self).items() if value}
        return np.frombuffer(json.dumps(fields, separators=(",", ":")).encode(), np.uint8)

    @classmethod
    def decode(cls, content: bytes) -> "Manifest":
        """Reads and validates. Raises `InvalidGuard`."""
        try:
            fields = json.loads(content, object_pairs_hook=_without_duplicates)
            if not isinstance(fields, dict):
                raise InvalidGuard("The guard's manifest is not a JSON object.")
            if isinstance(fields.get("version"), int) and fields["version"] > VERSION:
                raise InvalidGuard(
                    f"The guard is of format {fields['version']}; this planaria reads up to {VERSION}. Install a newer "
                    "planaria."
                )
            manifest = cls(**fields)
            manifest = cls(
                **{
                    **fields,
                    "parity": ParityShape(**fields["parity"]) if fields.get("parity") is not None else None,
                    "rules": tuple(RuleShape(**rule) for rule in fields.get("rules", ())),
                    "files": tuple((name, size) for name, size in fields.get("files", ())),
                    "copied": tuple(fields.get("copied", ())),
                    "not_finite": tuple(fields.get("not_finite", ())),
                    "memory": _memory(fields["memory"]) if fields.get("memory") is not None else None,
                }
            )
            manifest._validate()
        except (TypeError, ValueError, RecursionError, AttributeError, KeyError) as error:
            if isinstance(error, InvalidGuard):
                raise
            raise InvalidGuard(f"The guard's manifest is not sound: {str(error)[:200]!r}.") from error
        return manifest

    def _validate(self) -> None:
        checks = {
            "version": _whole(self.version, 1, VERSION),
            "key": isinstance(self.key, str) and len(self.key) in (0, 2 * FINGERPRINT),
            "tile": _whole(self.tile, 64, LARGEST_TILE) and self.tile & (self.tile - 1) == 0,
            "files": all(isinstance(name, str) and _whole(size, 0, 2**40) for name, size in self.files)
            and len({name for name, _ in self.files}) == len(self.files) > 0
            and (len(self.files) == 1 or all(_plain(name) for name, _ in self.files)),
            "aliases": _strings(self.aliases),
            "parity": self.parity is None
            or (
                _whole(self.parity.check, 1, 65534)
                and _whole(self.parity.width, 1, 2**32)
                and _whole(self.parity.segment, 1, 2**40)
                and -(-self.parity.segment // self.parity.width) + self.parity.check <= 65535
            ),
            "rules": all(_sound(rule) for rule in self.rules)
            and len({rule.tensor for rule in self.rules}) == len(self.rules),
            "reasons": isinstance(self.reasons, dict)
            and all(_whole(index, 0, 2**32) for indices in self.reasons.values() for index in indices),
            "copied": (not self.copied or _whole(self.version, 2, VERSION)) and _ascending(self.copied),
            "not_finite": (not self.not_finite or self.version >= NOT_FINITE) and _ascending(self.not_finite),
            "plain": isinstance(self.plain, bool) and (not self.plain or self.version >= MORE_TIERS),
            "tiers": isinstance(self.tiers, dict)
            and (not self.tiers or self.version >= MORE_TIERS)
            and all(is_tier_name(name) and isinstance(settings, dict) for name, settings in self.tiers.items()),
            "memory": self.memory is None or (_whole(self.version, 2, VERSION) and _remembers(self.memory)),
        }
        for name, sound in checks.items():
            if not sound:
                raise InvalidGuard(f"The guard's manifest is not sound: {name} is {repr(getattr(self, name))[:80]}.")


def is_tier_name(name: str) -> bool:
    """Whether a tier may have this name: small letters and digits, since arrays and options are named by it."""
    return name.isascii() and name.isalnum() and name.islower() and len(name) <= 32 and name not in RESERVED


def _plain(name: str) -> bool:
    """Whether it names a file in a folder: shards are opened by their names, and copied."""
    # Half of a surrogate pair passes the JSON parser, and no file system.
    whole = not any("\ud800" <= character <= "\udfff" for character in name)
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and whole and len(name.encode()) <= LONGEST_NAME


def _sound(rule: RuleShape) -> bool:
    numbers = [*rule.rates, *rule.errors, rule.tile_error]
    return (
        _whole(rule.tensor, 0, 2**32)
        and isinstance(rule.recipe, str)
        and isinstance(rule.precision, str)
        and len(rule.space) <= 3
        and all(_whole(size, 1, 2**20) for size in rule.space)
        and len(rule.rates) == len(rule.errors) > 0
        and all(isinstance(number, (int, float)) and 0 <= number <= 100 for number in numbers)
    )


def _memory(fields: dict[str, Any]) -> MemoryShape:
    entries = [EncodedShape(*entry) for entry in fields["tensors"]]
    return MemoryShape(
        **{
            **fields,
            "tensors": tuple(entry._replace(space=tuple(entry.space)) for entry in entries),
            "strengths": tuple(fields.get("strengths", ())),
        }
    )


def _remembers(memory: MemoryShape) -> bool:
    """Whether it could be a memory's; what hangs on the tensors themselves is for the guard file to say."""
    return (
        len(memory.tensors) > 0
        and _ascending([entry.tensor for entry in memory.tensors])
        and all(
            entry.codec in ("", *CODECS)
            and len(entry.space) <= 3
            and all(_whole(size, 1, 2**20) for size in entry.space)
            and all(_whole(flag, 0, 1) for flag in (entry.refined, entry.prior))
            and bool(entry.codec or entry.refined or entry.prior)
            and (bool(entry.space) if entry.codec == "low frequency" or entry.prior else not entry.space)
            and _number(entry.error, 0, FLOAT32_MAX)
            for entry in memory.tensors
        )
        and all(_number(strength, 0, 1) and strength > 0 for strength in memory.strengths)
        and sorted(memory.strengths, reverse=True) == list(memory.strengths)
        and len(memory.strengths) <= MOST_STAGES
        and bool(memory.strengths) == any(entry.refined for entry in memory.tensors)
    )


def _ascending(indices: Sequence[Any]) -> bool:
    return all(_whole(index, 0, 2**32) for index in indices) and all(left < right for left, right in pairwise(indices))


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _strings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name appears twice")
    return dict(pairs)
