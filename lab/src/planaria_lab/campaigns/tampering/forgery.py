"""What a forger of guards does again and again: read one without its key, and close a changed one soundly."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from planaria.checkpoints import parse_header
from planaria.codes import ReedSolomon
from planaria.errors import InvalidInput
from planaria.guard import Guard, container, protect
from planaria.guard.container import DIGEST_BYTES, SEAL, SEAL_BYTES
from planaria.guard.file import KEY_BYTES
from planaria.guard.manifest import COMPACT, Manifest
from planaria.guard.tiers import TIERS
from planaria_lab.campaigns.tampering.base import Tampering, Tensors

Tiers = Mapping[str, NDArray[np.generic]]
Seal = Literal["kept", "new"]
WIDER = 1.2  # from one budget to the next, where a guard of the victim's tiles is looked for


class Forgery(Tampering):
    """Changes some tiers and closes the file as well as can be done without the key.

    Args:
        seal: "kept": the victim's seal stays, so what was not changed is still proven, and what was changed is not.
            "new": the whole file is sealed without a key. A guard without a key is always sealed anew, soundly.

    Raises `InvalidInput` on another seal.
    """

    def __init__(self, *, seal: Seal = "kept"):
        if seal not in get_args(Seal):
            raise InvalidInput(f"A seal is {' or '.join(get_args(Seal))}, not {seal!r}.")
        self.seal = seal

    def apply(self, content: bytes, intact: Tensors, damaged: Tensors, generator: torch.Generator) -> bytes:
        victim = opened(content)
        kept = self._kept(victim)
        return closed(self._forged(victim, damaged, generator), seals_of=[content] if kept else ())

    def _kept(self, victim: Guard) -> bool:
        """Whether the victim's seal stays."""
        return self.seal == "kept" and victim.manifest.key != ""

    @abstractmethod
    def _forged(self, victim: Guard, damaged: Tensors, generator: torch.Generator) -> Tiers:
        """All tiers of the file, the changed ones among them. The victim's are not written to."""


class ForgeryOfTiers(Forgery):
    """Changes chosen tiers.

    Args:
        tiers: which, such as ["copy", "sketch"] or ["digest.tiles"].
        seal: as for `Forgery`.

    Raises `InvalidInput` unless at least one is named.
    """

    def __init__(self, tiers: Sequence[str], *, seal: Seal = "kept"):
        super().__init__(seal=seal)
        self.tiers = tuple(tiers)
        if not self.tiers or not all(isinstance(tier, str) and tier for tier in self.tiers):
            raise InvalidInput(f'Name one tier or more, such as ["parity"] or ["digest.tiles"], not {list(tiers)}.')

    def _chosen(self, victim: Guard) -> Tiers:
        """The victim's arrays that are of these tiers."""
        return {name: array for name, array in victim.arrays.items() if any(is_of(name, tier) for tier in self.tiers)}


def opened(content: bytes) -> Guard:
    """A sound guard file as anyone can read it: a key proves it, and hides nothing."""
    arrays = container.unpack(content, key=None).arrays
    return Guard(Manifest.decode(arrays["manifest"].tobytes()), arrays, None, len(content))


def closed(tiers: Tiers, *, seals_of: Sequence[bytes] = ()) -> bytes:
    """A guard file of these tiers, with a parity of its own that agrees with every byte.

    Args:
        seals_of: guard files whose seals are kept: for the file that of the first; for each tier that of the first in
            which it has the same bytes, else of the first. Without any the seal is a sound one of no key.
    """
    content = container.pack(tiers, key=None, bound=_is_compact(tiers))
    if not seals_of:
        return content
    head, start = _sealed_from(seals_of[0])[0], _start_of_seal(content)
    parts = _sealed_from(content)[1]
    parts |= {name: part for name, part in _sealed_from(seals_of[0])[1].items() if name in parts}
    for file in reversed(seals_of):
        known, sealed = container.unpack(file, key=None).arrays, _sealed_from(file)[1]
        same = {name for name in parts.keys() & known.keys() if known[name].tobytes() == tiers[name].tobytes()}
        parts |= {name: sealed[name] for name in same}
    seal = head + b"".join(parts.values())
    return with_new_parity(content[:start] + seal + content[start + len(seal) :])


def with_new_parity(content: bytes) -> bytes:
    """The file with its last bytes made the parity of all before: nothing will be mended back."""
    width, check = container.geometry(len(content))
    start = len(content) - width * check * 2
    symbols = np.frombuffer(content[:start], "<u2")
    rows = np.zeros((-(-len(symbols) // width), width), np.uint16)
    rows.reshape(-1)[: len(symbols)] = symbols
    return content[:start] + ReedSolomon(check).feed(rows).astype("<u2").tobytes()


def guard_like(victim: Guard, tensors: Tensors, *, tiers: tuple[str, ...], key: bytes | None = None) -> Guard:
    """A guard of other weights whose digests are laid out as the victim's. Raises `InvalidInput` if there is none.

    The layout follows from the budget, which the file does not tell: budgets from the victim's size on are tried. A
    guard with a key has a layout of its own, so against one the forger uses some key.
    """
    if victim.manifest.key and key is None:
        key = bytes(KEY_BYTES)
    budget = share_of(victim, tensors)
    while True:
        made = protect(tensors, budget=budget, tiers=tiers, key=key, threads=1)
        if made.manifest.tile == victim.manifest.tile and _shapes(made) == _shapes(victim):
            return made
        if budget >= 1:
            raise InvalidInput(f"No guard of these weights has tiles of {victim.manifest.tile} bytes, as the victim's.")
        budget = min(WIDER * budget, 1.0)


def share_of(victim: Guard, tensors: Tensors) -> float:
    """The budget that a guard of the victim's size has."""
    return min((victim.size + 1) / sum(tensor.nbytes for tensor in tensors.values()), 1.0)


def is_of(name: str, tier: str) -> bool:
    """Whether an array belongs to a tier: "digest.tiles" to "digest" and to itself."""
    array = TIERS[tier].array if tier in TIERS else tier
    return name == array or name.startswith(f"{array}.")


def with_fields(manifest: NDArray[np.generic], **fields: Any) -> NDArray[np.generic]:
    """The manifest with these values in place of its own; None takes one out."""
    changed = json.loads(manifest.tobytes()) | fields
    text = json.dumps({name: value for name, value in changed.items() if value is not None}, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8)


def _is_compact(tiers: Tiers) -> bool:
    """Whether they say that they are of a version whose seal binds them."""
    try:
        return int(json.loads(tiers["manifest"].tobytes()).get("version", 1)) >= COMPACT
    except (KeyError, ValueError, AttributeError, TypeError):  # no manifest, or noise
        return False


def _shapes(guard: Guard) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in guard.arrays.items() if is_of(name, "digest")}


def _sealed_from(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The seal's first bytes, which prove the file, and of each tier those that prove it."""
    names = [entry.name for entry in parse_header(content).entries[:-2]]
    start = _start_of_seal(content)
    parts = content[start + SEAL_BYTES : start + SEAL_BYTES + DIGEST_BYTES * len(names)]
    digests = [parts[at : at + DIGEST_BYTES] for at in range(0, len(parts), DIGEST_BYTES)]
    return content[start : start + SEAL_BYTES], dict(zip(names, digests, strict=True))


def _start_of_seal(content: bytes) -> int:
    header = parse_header(content)
    (seal,) = (entry for entry in header.entries if entry.name == SEAL)
    return header.nbytes + seal.start
