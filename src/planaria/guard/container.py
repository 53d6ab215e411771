"""The guard file: a safetensors container that repairs itself. Specified in FORMAT.md, sections 1 and 2."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from planaria.checkpoints import Entry, parse_header
from planaria.checkpoints.header import format_header
from planaria.codes import ReedSolomon
from planaria.errors import InvalidFile, InvalidGuard
from planaria.guard.hashing import hasher

FORMAT = "planaria guard"  # for people; the manifest says which version
SEAL, SELF = "seal", "self"
SEAL_BYTES = 32
DIGEST_BYTES = 16
PAGE = 4096
PAGE_PROTECTED = 32 * 1024  # a smaller guard would spend more than a quarter of itself on surviving a lost page
COLUMN = 4096  # symbols of a codeword, at most
NUMPY_TYPES = {"U8": np.uint8, "U16": np.uint16, "F32": np.float32}
STORED_AS = {np.dtype(kind): name for name, kind in NUMPY_TYPES.items()}


@dataclass(frozen=True)
class Contents:
    """What came out of a guard file.

    Attributes:
        arrays: the tiers, by name.
        mended: bytes of the file that were broken and are restored here; at least so many.
        broken: tiers that could not be restored, or not be proven.
        together: whether the seal proves that the tiers, but for broken ones, were sealed as one guard.
    """

    arrays: dict[str, NDArray[np.generic]]
    mended: int
    broken: tuple[str, ...]
    together: bool


def geometry(length: int) -> tuple[int, int]:
    """(codewords, check symbols of each) of the code over a guard of `length` bytes.

    They follow from the length alone, so nothing of a damaged guard need be read before it is repaired. Each codeword
    corrects 2 % of its symbols (1 % of random bytes) and six standard deviations more; a guard of 32 KiB or more also
    corrects any run of 4,096 bytes.
    """
    symbols = length // 2
    width = max(1, -(-symbols // COLUMN))
    column = -(-symbols // width)
    errors = column // 50 + isqrt(column)
    if length >= PAGE_PROTECTED:
        # One more: a run that crosses from a short last row into the check symbols meets some columns once too often.
        errors = max(errors, -(-(PAGE // 2 + 1) // width) + 1)
    return width, 2 * errors


def survives_a_lost_page(length: int) -> bool:
    """Whether a guard of `length` bytes survives the loss of any one run of 4,096."""
    return length >= PAGE_PROTECTED


def pack(arrays: Mapping[str, NDArray[np.generic]], *, key: bytes | None, bound: bool = False) -> bytes:
    """The guard file of these tiers, sealed and with its own parity. The same tiers and key give the same bytes.

    Args:
        bound: the seal's first part is of the header and of the digests of the tiers, as from version 3 on, so it holds
            also where a tier is broken; before, it was of everything.
    """
    content = _laid_out(arrays)
    tiers = _parsed(content)
    sealed = len(content) - tiers[SELF].nbytes - tiers[SEAL].nbytes
    digests = b"".join(_digest(array, key) for name, array in tiers.items() if name not in (SEAL, SELF))
    covered = content[: parse_header(content).nbytes if bound else sealed]
    seal = hasher(key, covered + digests).digest() + digests
    content = content[:sealed] + seal + content[sealed + len(seal) :]
    width, check = geometry(len(content))
    covered = content[: len(content) - width * check * 2]
    return covered + ReedSolomon(check).feed(_rows(covered, width)).astype("<u2").tobytes()


def packed_size(arrays: Mapping[str, NDArray[np.generic]]) -> int:
    """Bytes of the guard file of tiers of these shapes. Costs nothing for their contents."""
    return _settled(arrays)[1]


def unpack(content: bytes, *, key: bytes | None) -> Contents:
    """The tiers of a guard file, repaired as far as its own parity goes.

    Raises:
        InvalidGuard: if it is not a guard, or so damaged that not even its container can be read.
    """
    repaired, mended, failed = _repaired(content)  # also where the seal is right: it does not cover the parity itself
    try:
        contents = _unsealed(content, key)
    except InvalidGuard:
        contents = None
    if contents is None or contents.broken or not contents.together:
        contents = _unsealed(repaired, key)
    if contents.broken == () and not contents.together:
        # Every tier matches its digest, but the container around them was rewritten.
        raise InvalidGuard("The guard's seal is broken: it was changed, or made with another key.")
    # Proven whole, though its own parity is broken beyond what that parity corrects: a new one mends it.
    return replace(contents, mended=mended if contents.broken else mended + failed)


def _laid_out(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The file with its seal and parity still zero."""
    seal = np.zeros(SEAL_BYTES + DIGEST_BYTES * len(arrays), np.uint8)
    spare = np.zeros(_settled(arrays)[0], np.uint8)
    return bytes(save({**arrays, SEAL: seal, SELF: spare}, metadata={"format": FORMAT}))


def _settled(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[int, int]:
    """Bytes of the guard's own parity, and of the file: it covers a header that tells its size, till both agree."""
    sizes = {name: (array.dtype, array.shape, array.nbytes) for name, array in arrays.items()}
    seal = SEAL_BYTES + DIGEST_BYTES * len(arrays)
    sizes[SEAL] = (np.dtype(np.uint8), (seal,), seal)
    spare = 0
    while True:
        sizes[SELF] = (np.dtype(np.uint8), (spare,), spare)
        # As the library lays out a file: wide types first, then by name.
        entries, end = [], 0
        for name, (kind, shape, nbytes) in sorted(sizes.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
            entries.append(Entry(name, STORED_AS[kind], shape, nbytes, end))
            end += nbytes
        length = len(format_header(entries, {"format": FORMAT})) + end
        width, check = geometry(length)
        if length % 2 == 0 and spare >= width * check * 2:
            return spare, length
        spare = max(spare + 1, width * check * 2)


def _unsealed(content: bytes, key: bytes | None) -> Contents:
    """The tiers, and what the seal says of them. Raises `InvalidGuard` if it is no guard."""
    tiers = _parsed(content)
    seal = tiers.pop(SEAL).tobytes()
    sealed = len(content) - tiers.pop(SELF).nbytes - len(seal)
    first, digests = seal[:SEAL_BYTES], seal[SEAL_BYTES:]
    parts = [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]
    broken = tuple(name for name, part in zip(tiers, parts, strict=True) if _digest(tiers[name], key) != part)
    bound = content[: parse_header(content).nbytes]
    together = any(hasher(key, covered + digests).digest() == first for covered in (bound, content[:sealed]))
    return Contents(tiers, 0, broken, together)


def _digest(tier: NDArray[np.generic], key: bytes | None) -> bytes:
    return hasher(key, np.ascontiguousarray(tier).tobytes()).digest(length=DIGEST_BYTES)


def _parsed(content: bytes) -> dict[str, NDArray[np.generic]]:
    """The arrays of the container, whether right or wrong."""
    try:
        header = parse_header(content)
    except InvalidFile as error:
        raise InvalidGuard(f"This is not a guard, or one beyond its own repair: {error}") from error
    arrays: dict[str, NDArray[np.generic]] = {}
    for entry in header.entries:
        if entry.dtype not in NUMPY_TYPES:
            raise InvalidGuard(f"A guard holds {', '.join(NUMPY_TYPES)}; {entry.name!r} is {entry.dtype}.")
        part = np.frombuffer(content, np.uint8, entry.nbytes, header.nbytes + entry.start)
        arrays[entry.name] = part.view(NUMPY_TYPES[entry.dtype]).reshape(entry.shape)
    last = [entry.name for entry in header.entries[-2:]]
    if last != [SEAL, SELF] or arrays[SEAL].nbytes != SEAL_BYTES + DIGEST_BYTES * (len(arrays) - 2):
        raise InvalidGuard("This is not a guard: a guard ends in its seal and its own parity.")
    return arrays


def _repaired(content: bytes) -> tuple[bytes, int, int]:
    """The file with what its own parity corrects, how many bytes that were, and how many codewords it gave up."""
    length = len(content)
    width, check = geometry(length)
    parity = length - width * check * 2
    if length % 2 or parity <= 0:
        return content, 0, 0
    code = ReedSolomon(check)
    rows = _rows(content[:parity], width)
    remainder = code.feed(rows) ^ np.frombuffer(content, "<u2", offset=parity).reshape(check, width)
    found = code.decode(remainder, len(rows))
    symbols = np.concatenate([rows.reshape(-1), np.frombuffer(content, "<u2", offset=parity)])
    # Check symbols follow the data's last, padded row.
    symbols[found.rows * width + found.columns] ^= found.values
    whole = symbols.astype("<u2").tobytes()
    repaired = whole[:parity] + whole[rows.nbytes :]
    mended = int((np.frombuffer(repaired, np.uint8) != np.frombuffer(content, np.uint8)).sum())
    return repaired, mended, len(found.failed)


def _rows(content: bytes, width: int) -> NDArray[np.uint16]:
    symbols = np.frombuffer(content, "<u2")
    padded = np.zeros((-(-len(symbols) // width), width), np.uint16)
    padded.reshape(-1)[: len(symbols)] = symbols
    return padded
