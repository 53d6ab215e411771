"""What a guard file holds, read and validated."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from planaria.checkpoints import Entry
from planaria.checkpoints.header import expected_entries
from planaria.checkpoints.sharded_folder import INDEX
from planaria.errors import InvalidFile, InvalidGuard, InvalidInput, UntrustedGuard
from planaria.files import write_atomically
from planaria.frozen.prior import takes
from planaria.guard import container
from planaria.guard.digests import BUNDLE_DIGEST_BYTES, GROUP_DIGEST_BYTES
from planaria.guard.hashing import hasher
from planaria.guard.headers import LARGEST_EXPANSION, unpack_headers
from planaria.guard.manifest import FINGERPRINT, Manifest, RememberedShape
from planaria.guard.statistics import FLOATS, Statistics
from planaria.guard.stream import Stream
from planaria.memory import Memory
from planaria.memory.ladder import Ladder
from planaria.memory.memory import PRIOR_BYTES, Remembered, matrix_shape

TIERS = ("digest", "copy", "parity", "hint", "ladder", "rule")
KEY_BYTES = 32
STATISTICS = 8  # numbers a tensor
FEWEST = 256  # weights of a tensor that is remembered


@dataclass(frozen=True, eq=False, repr=False)
class GuardFile:
    """A guard's contents, in memory.

    Attributes:
        manifest: what it says of itself.
        arrays: its tiers, by the names of FORMAT.md.
        key: 32 bytes that digests and seal depend on, or None.
        size: bytes of its file.
        mended: bytes of the file that were broken and restored on loading, in memory: the file is as it was.
        lost: tiers that were damaged beyond repair, and are not used.
    """

    manifest: Manifest
    arrays: Mapping[str, NDArray[np.generic]]
    key: bytes | None = field(default=None, repr=False)
    size: int = 0
    mended: int = 0
    lost: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line, of what it holds."""
        tiers = ", ".join(tier for tier, nbytes in self.tier_bytes().items() if nbytes and tier in TIERS)
        keyed = ", keyed" if self.key else ""
        return (
            f"<{type(self).__name__} of {len(self.entries):,} tensors, {self.protected_bytes:,} bytes: {tiers}; "
            f"{self.size:,} bytes{keyed}>"
        )

    def __eq__(self, other: object) -> bool:
        """Guards are equal if they hold the same, under the same key."""
        if not isinstance(other, GuardFile):
            return NotImplemented
        return (self.key, self.arrays.keys()) == (other.key, other.arrays.keys()) and all(
            array.dtype == other.arrays[name].dtype and np.array_equal(array, other.arrays[name])
            for name, array in self.arrays.items()
        )

    def __hash__(self) -> int:
        return hash((self.key, self.arrays["manifest"].tobytes()))

    @cached_property
    def headers(self) -> dict[str, bytes]:
        """The model's file headers, exactly as they were; one of the name "" for a model in memory."""
        names, sizes = zip(*self.manifest.files, strict=True)
        packed = self.arrays["headers"].tobytes()
        return dict(zip(names, unpack_headers(packed, sizes, bare=self.manifest.lean), strict=True))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The model's tensors, in the order of the stream."""
        headers = {name: header for name, header in self.headers.items() if name != INDEX}
        return tuple(expected_entries(headers).values())

    @cached_property
    def stream(self) -> Stream:
        """The model as symbols and tiles."""
        return Stream(self.entries, tile=self.manifest.tile, bundled=self.manifest.lean)

    def statistics(self, tensor: int) -> Statistics | None:
        """Of the intact tensor; None if it was not measured, is of whole numbers, or the tier is lost."""
        if tensor not in self._measured:
            return None
        numbers = (float(number) for number in self.arrays["statistics"][self._measured[tensor]])
        lowest, highest, mean, rms, rows, columns, floor, zeros = numbers
        # A forged share of zeros is no share, and what is computed of it no number.
        return Statistics(lowest, highest, mean, rms, (rows, columns), floor, min(max(zeros, 0.0), 1.0))

    @cached_property
    def _measured(self) -> dict[int, int]:
        """The row of each floating-point tensor that has statistics."""
        rows = len(self.arrays.get("statistics", ()))
        measured = measured_tensors(self.entries, rows, lean=self.manifest.lean)
        return {tensor: row for row, tensor in enumerate(measured) if self.entries[tensor].dtype in FLOATS}

    def memory(self) -> Memory | None:
        """What is remembered of the model, but for what is lost of it; None if that is nothing.

        Raises `InvalidGuard` if the ladder is not sound.
        """
        shape = self.manifest.memory
        if shape is None:
            return None
        nothing = np.zeros(0, np.uint8)
        there = [of for of in shape.tensors if not _hinted(of) or f"hint.{of.tensor}" in self.arrays]
        # Its residuals are what hints leave: without one of them the ladder tells nothing.
        climbs = "ladder" in self.arrays and all(of in there for of in shape.tensors if of.laddered)
        tensors = []
        for of in there:
            entry, content = self.entries[of.tensor], self.arrays.get(f"hint.{of.tensor}", nothing).view(np.uint8)
            end = len(content) - PRIOR_BYTES * of.prior
            tensors.append(
                Remembered(
                    name=entry.name,
                    shape=entry.shape,
                    codec=of.codec or None,
                    space=tuple(of.space),
                    content=content[:end],
                    prior=content[end:],
                    laddered=bool(of.laddered) and climbs,
                )
            )
        return Memory(tensors, self._ladder() if climbs else None, shape.strengths if climbs else ())

    def _ladder(self) -> Ladder | None:
        """As stored; None without one. Raises `InvalidGuard`."""
        shape = self.manifest.memory
        covered = [] if shape is None else [self.entries[of.tensor].shape for of in shape.tensors if of.laddered]
        if shape is None or not covered:
            return None
        try:
            ladder = Ladder.from_bytes(self.arrays["ladder"].view(np.uint8), [matrix_shape(one) for one in covered])
        except InvalidInput as error:
            raise InvalidGuard(f"The guard's ladder is not sound: {error}") from error
        if len(ladder.stages) != len(shape.strengths):
            raise InvalidGuard(f"The guard's ladder has {len(ladder.stages)} stages, not {len(shape.strengths)}.")
        return ladder

    def copy_of(self, tensor: int) -> NDArray[np.uint8] | None:
        """The bytes of a tensor, if the guard holds a copy of it."""
        copied = list(self.manifest.copied)
        if tensor not in copied or "copy" not in self.arrays:
            return None
        start = sum(self.entries[index].nbytes for index in copied[: copied.index(tensor)])
        return self.arrays["copy"].view(np.uint8)[start : start + self.entries[tensor].nbytes]

    @property
    def protected_bytes(self) -> int:
        """Bytes of the model's tensors."""
        return self.stream.nbytes

    def tier_bytes(self) -> dict[str, int]:
        """Bytes of the file by tier; they sum to its size."""
        by_tier = dict.fromkeys((*TIERS, "description"), 0)
        for name, array in self.arrays.items():
            first = name.split(".")[0]
            by_tier[first if first in by_tier else "description"] += array.nbytes
        by_tier["self-repair"] = self.size - sum(by_tier.values())
        return by_tier

    def to_bytes(self) -> bytes:
        """The guard file, whole: what was mended on loading is as it was when it was made.

        Raises `InvalidGuard` if tiers are lost: a guard without them could not be read again.
        """
        if self.lost:
            raise InvalidGuard(
                f"Tiers of this guard are damaged beyond its own repair: {', '.join(self.lost)}. Nothing is written "
                "without them. Use another copy of it."
            )
        return container.pack(dict(self.arrays), key=self.key, bound=self.manifest.lean)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the guard file, whole or not at all. Where there is one, its permissions stay, and links are followed.

        To mend a guard on disk, load and save it. Raises `OutputFailed`, and `InvalidGuard` as `to_bytes` does.
        """
        path = Path(path).resolve()
        write_atomically(path, self.to_bytes(), mode=stat.S_IMODE(path.stat().st_mode) if path.is_file() else None)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, key: bytes | None = None) -> Self:
        """Reads and validates a guard file, and repairs it in memory as far as its own parity goes.

        Raises:
            InvalidGuard: if it is not a guard, is of a newer format, or is damaged beyond its own repair.
            UntrustedGuard: an `InvalidGuard`; if a key is given, and it was made with another or without one.
            InvalidInput: if it was made with a key and none is given, or the key is not 32 bytes.
            FileNotFoundError: if there is no such file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no guard file {path}.")
        try:
            return cls.from_bytes(path.read_bytes(), key=key)
        except InvalidGuard as error:
            raise type(error)(f"{path}: {error}") from error

    @classmethod
    def from_bytes(cls, content: bytes, *, key: bytes | None = None) -> Self:
        """As `load`, from memory."""
        check_key(key)
        contents = container.unpack(content, key=key)
        arrays, lost = contents.arrays, contents.broken
        if "manifest" not in arrays:
            raise InvalidGuard("This is not a guard: it has no manifest.")
        try:
            manifest = Manifest.decode(arrays["manifest"].tobytes())
        except InvalidGuard as error:
            if "manifest" in lost:
                raise InvalidGuard("The guard is damaged beyond its own repair. Use another copy of it.") from error
            raise
        _check_fingerprint(manifest, key)
        if {"manifest", "headers"} & set(lost) or {"digest.tensors", "digest.tiles"} <= set(lost):
            raise InvalidGuard(
                f"The guard is damaged beyond its own repair: {', '.join(lost)}. Use another copy of it."
            )
        if not contents.together and (key is not None or manifest.lean):
            raise InvalidGuard(
                "The guard is damaged beyond its own repair, or put together from several: nothing proves that its "
                "tiers belong together. Use another copy of it."
            )
        guard = cls(manifest, arrays, key, len(content), contents.mended, lost)
        guard._validate()  # lost tiers too: their sizes bound what the manifest may claim
        return replace(guard, arrays={name: array for name, array in arrays.items() if name not in lost})

    def _validate(self) -> None:
        """Every count, shape and type that the code relies on, before anything is allocated from them."""
        free = {"manifest", "headers", *(name for name in self.arrays if name.startswith(("rule.", "hint.")))}
        for name in free | ({"ladder"} & self.arrays.keys()):
            self._require(name, np.uint8, (self.arrays[name].size if name in self.arrays else 0,))
        try:
            stream = self.stream
        except InvalidGuard:
            raise
        except InvalidFile as error:
            raise InvalidGuard(f"The guard's record of the model is not sound: {error}") from error
        tensors = len(stream.entries)
        if len(stream.index) != tensors:
            raise InvalidGuard("The guard names one tensor twice.")
        self._require("digest.tensors", np.uint8, (stream.groups, GROUP_DIGEST_BYTES))
        self._require("digest.tiles", np.uint8, (stream.bundles, BUNDLE_DIGEST_BYTES))
        statistics = self.arrays.get("statistics", np.empty((0, STATISTICS), np.float32))
        rows = tensors
        if self.manifest.lean:
            rows = min(len(statistics), sum(entry.dtype in FLOATS for entry in stream.entries))
        if rows or "statistics" in self.arrays:
            self._require("statistics", np.float32, (rows, STATISTICS))
        # Where all weights are equal, the limits of the detector's scores are no numbers.
        if "statistics" not in self.lost and np.isnan(np.delete(statistics, (4, 5), axis=1)).any():
            raise InvalidGuard("The guard's statistics are not all numbers.")
        parity = self.manifest.parity
        if parity is not None:
            segments = -(-stream.symbols // parity.segment)
            self._require("parity", np.uint16, (segments, parity.check, parity.width))
            if parity.width * segments > stream.symbols + segments * 65535:
                raise InvalidGuard("The guard's parity is wider than its model.")
        for rule in self.manifest.rules:
            shape = stream.entries[rule.tensor].shape if rule.tensor < tensors else ()
            columns, cells = prod(shape[1:]), prod(rule.space)
            whole = not rule.space or cells == columns
            fits = whole if rule.stored else takes(rule.space) and columns % cells == 0
            if len(shape) < 2 or not fits:
                raise InvalidGuard(f"The guard has a rule of space {list(rule.space)} for a tensor of shape {shape}.")
            if not rule.stored and f"rule.{rule.tensor}" in self.arrays:
                raise InvalidGuard(f"The guard stores a rule of tensor {rule.tensor} that comes with planaria.")
        odd = self.manifest.not_finite
        if odd and odd[-1] >= len(self.entries):
            raise InvalidGuard(f"The guard speaks of tensor {odd[-1]}, and the model has {len(self.entries)}.")
        self._validate_copy()
        self._validate_memory()

    def _validate_copy(self) -> None:
        copied = self.manifest.copied
        if copied and copied[-1] >= len(self.entries):
            raise InvalidGuard(f"The guard has a copy of tensor {copied[-1]}, and the model {len(self.entries)}.")
        if copied or "copy" in self.arrays:
            self._require("copy", np.uint8, (sum(self.entries[index].nbytes for index in copied),))

    def _validate_memory(self) -> None:
        shape = self.manifest.memory
        hints = {name for name in self.arrays if name.startswith("hint.")}
        remembered = () if shape is None else shape.tensors
        if hints != {f"hint.{of.tensor}" for of in remembered if _hinted(of)}:
            raise InvalidGuard("The guard's hints are not those that its manifest names.")
        for of in remembered:
            entry = self.entries[of.tensor] if of.tensor < len(self.entries) else None
            if entry is None or not remembers(entry):
                raise InvalidGuard(f"The guard remembers tensor {of.tensor}, of which no memory is made.")
            columns, cells = prod(entry.shape[1:]), prod(of.space)
            if columns % cells or (of.codec == "low frequency" and columns != cells):
                raise InvalidGuard(
                    f"The guard remembers {columns} columns of {entry.name!r} as laid out over {of.space}."
                )
            content = self.arrays[f"hint.{of.tensor}"].size if _hinted(of) else 0
            if content < PRIOR_BYTES * of.prior or (content > PRIOR_BYTES * of.prior) != bool(of.codec):
                raise InvalidGuard(f"The guard's hint of {entry.name!r} takes {content} bytes, which cannot be.")
        covered = [self.entries[of.tensor] for of in remembered if of.laddered]
        if bool(covered) != ("ladder" in self.arrays):
            raise InvalidGuard(
                f"The guard's ladder is of {len(covered)} tensors, and {'' if covered else 'not '}missing."
            )
        if ladder_columns(covered) > LARGEST_EXPANSION * self.size:
            raise InvalidGuard(f"The guard's ladder claims {ladder_columns(covered)} columns in {self.size} bytes.")
        if covered and "ladder" not in self.lost:
            self._ladder()

    def _require(self, name: str, kind: type[np.generic], shape: tuple[int, ...]) -> None:
        tier = self.arrays.get(name)
        if tier is None or tier.dtype != kind or tier.shape != shape:
            came = "missing" if tier is None else f"{tier.dtype} of shape {tier.shape}"
            raise InvalidGuard(f"The guard's {name} tier is {came}; it has to be {np.dtype(kind)} of shape {shape}.")


def remembers(entry: Entry) -> bool:
    """Whether a memory of a tensor can be made, if it is finite: of matrices that float32 holds exactly."""
    return entry.dtype in FLOATS and entry.dtype != "F64" and len(entry.shape) > 1 and prod(entry.shape) >= FEWEST


def largest_floats(entries: Sequence[Entry], count: int) -> list[int]:
    """The indices, ascending, of so many floating-point tensors of most weights; of equal ones the first."""
    floats = [index for index, entry in enumerate(entries) if entry.dtype in FLOATS]
    return sorted(sorted(floats, key=lambda index: (-prod(entries[index].shape), index))[:count])


def measured_tensors(entries: Sequence[Entry], rows: int, *, lean: bool) -> Sequence[int]:
    """The indices, ascending, of the tensors that so many rows of statistics are of."""
    return largest_floats(entries, rows) if lean else range(rows)


def ladder_columns(entries: Sequence[Entry]) -> int:
    """For how many columns a ladder over these tensors stores a rung: packed so well that it has to be limited."""
    return sum(matrix_shape(entry.shape)[1] for entry in entries)


def _hinted(of: RememberedShape) -> bool:
    return bool(of.codec or of.prior)


def check_key(key: bytes | None) -> None:
    """Raises `InvalidInput` unless `key` is None or 32 bytes."""
    if key is not None and len(key) != KEY_BYTES:
        raise InvalidInput(f"A key is {KEY_BYTES} bytes, not {len(key)}. Make one with `planaria key -o FILE`.")


def fingerprint(key: bytes | None) -> str:
    """Tells keys apart without telling them; "" for none."""
    return "" if key is None else hasher(key, b"planaria key fingerprint").hexdigest(length=FINGERPRINT)


def _check_fingerprint(manifest: Manifest, key: bytes | None) -> None:
    if manifest.key == fingerprint(key):
        return
    if key is None:
        raise InvalidInput("This guard was made with a key. Give it by --key-file or PLANARIA_KEY.")
    if manifest.key:
        came, key_of_it = "with another key", "give the key that it was made with"
    else:
        came, key_of_it = "without a key", "give no key"
    raise UntrustedGuard(
        f"This guard was made {came}, and the one given proves nothing of it: it may have been put in the place "
        f"of yours. Use your own copy of the guard; or {key_of_it}, if you know where it comes from."
    )
