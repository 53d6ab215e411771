"""What a guard file holds, read and validated."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from planaria.checkpoints import Entry
from planaria.checkpoints.header import expected_entries
from planaria.checkpoints.sharded_folder import INDEX
from planaria.errors import InvalidFile, InvalidGuard, InvalidInput, UntrustedGuard
from planaria.files import write_atomically
from planaria.guard import container
from planaria.guard.byte_layout import ByteLayout
from planaria.guard.hashing import hasher
from planaria.guard.headers import unpack_headers
from planaria.guard.manifest import FINGERPRINT, MORE, Manifest
from planaria.guard.statistics import FLOATS, Statistics, measured_tensors
from planaria.guard.tiers import TIERS, require_array

KEY_BYTES = 32


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
        return dict(zip(names, unpack_headers(packed, sizes, bare=self.manifest.compact), strict=True))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The model's tensors, in the order of the layout."""
        headers = {name: header for name, header in self.headers.items() if name != INDEX}
        return tuple(expected_entries(headers).values())

    @cached_property
    def layout(self) -> ByteLayout:
        """The model as symbols and tiles."""
        return ByteLayout(self.entries, tile=self.manifest.tile, grouped=self.manifest.compact)

    def statistics(self, tensor: int) -> Statistics | None:
        """Of the intact tensor; None if it was not measured, is of whole numbers, or the tier is lost."""
        row = self._measured.get(tensor)
        return None if row is None else Statistics.of_row(self.arrays["statistics"][row])

    @cached_property
    def _measured(self) -> dict[int, int]:
        """The row of each floating-point tensor that has statistics."""
        rows = len(self.arrays.get("statistics", ()))
        measured = measured_tensors(self.entries, rows, compact=self.manifest.compact)
        return {tensor: row for row, tensor in enumerate(measured) if self.entries[tensor].dtype in FLOATS}

    def all_finite(self, tensor: int) -> bool:
        """Whether all weights of the intact tensor are known to have been finite, or none was seen that was not."""
        statistics = self.statistics(tensor)
        return tensor not in self.manifest.not_finite if statistics is None else statistics.all_finite

    @property
    def unknown(self) -> tuple[str, ...]:
        """Tiers that it holds and this planaria does not know: they are kept, and not used."""
        return tuple(name for name in self.manifest.tiers if name not in TIERS)

    @property
    def protected_bytes(self) -> int:
        """Bytes of the model's tensors."""
        return self.layout.nbytes

    def tier_bytes(self) -> dict[str, int]:
        """Bytes of the file by tier; they sum to its size."""
        by_tier = dict.fromkeys((*TIERS, *self.unknown, "description"), 0)
        for name, array in self.arrays.items():
            own_name = name.removeprefix(f"{MORE}.").split(".")[0]
            owner = next((tier.name for tier in TIERS.values() if tier.owns(name)), own_name)
            by_tier[owner if owner in by_tier else "description"] += array.nbytes
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
        return container.pack(dict(self.arrays), key=self.key, bound=self.manifest.compact)

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
        if not contents.together and (key is not None or manifest.compact):
            raise InvalidGuard(
                "The guard is damaged beyond its own repair, or put together from several: nothing proves that its "
                "tiers belong together. Use another copy of it."
            )
        guard = cls(manifest, arrays, key, len(content), contents.mended, lost)
        guard._validate()  # lost tiers too: their sizes bound what the manifest may claim
        return replace(guard, arrays={name: array for name, array in arrays.items() if name not in lost})

    def _validate(self) -> None:
        """Every count, shape and type that the code relies on, before anything is allocated from them."""
        for name in ("manifest", "headers"):
            require_array(self, name, np.uint8, (self.arrays[name].size if name in self.arrays else 0,))
        try:
            layout = self.layout
        except InvalidGuard:
            raise
        except InvalidFile as error:
            raise InvalidGuard(f"The guard's record of the model is not sound: {error}") from error
        if len(layout.index) != len(layout.entries):
            raise InvalidGuard("The guard names one tensor twice.")
        for tier in TIERS.values():
            tier.validate(self)


def check_key(key: bytes | None) -> None:
    """Raises `InvalidInput` unless `key` is None or 32 bytes."""
    if key is not None and len(key) != KEY_BYTES:
        raise InvalidInput(f"A key is {KEY_BYTES} bytes, not {len(key)}. Make one: planaria.new_key().")


def fingerprint(key: bytes | None) -> str:
    """Tells keys apart without telling them; "" for none."""
    return "" if key is None else hasher(key, b"planaria key fingerprint").hexdigest(length=FINGERPRINT)


def _check_fingerprint(manifest: Manifest, key: bytes | None) -> None:
    if manifest.key == fingerprint(key):
        return
    if key is None:
        raise InvalidInput("This guard was made with a key. Give it: key=KEY.")
    if manifest.key:
        came, key_of_it = "with another key", "give the key that it was made with"
    else:
        came, key_of_it = "without a key", "give no key"
    raise UntrustedGuard(
        f"This guard was made {came}, and the one given proves nothing of it: it may have been put in the place "
        f"of yours. Use your own copy of the guard; or {key_of_it}, if you know where it comes from."
    )
