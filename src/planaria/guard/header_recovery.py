"""Headers that another tool wrote and that are damaged: rebuilt so that tensors match their digests where they lie.

A guard knows the header that the file had when it was protected. Another tool may have written the file again since,
with other metadata or in another order: then the guard's header says nothing of where tensors begin. What the damaged
header still tells is read off its text, what it lacks is filled in from the guard, and digests decide.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints import Entry, Header, parse_bare_header
from planaria.checkpoints.header import INDEX, LONGEST_HEADER
from planaria.errors import InvalidFile
from planaria.guard.digests import group_digest, hash_group_digests
from planaria.guard.file import GuardFile

MOST_HASH_GROUPS = 2048  # that a candidate is tried with
MOST_BYTES = 2**26  # of groups that a candidate is tried with, where hash groups have no digests
MOST_CANDIDATES = 64
MOST_PERMUTED = 5  # tensors of which every order is tried
SPARE_TEXT = 2**20  # bytes by which a header of a cut file may be longer than four of the guard's

_ENTRY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\{([^{}]*)\}', re.DOTALL)
_OFFSETS = re.compile(rb'"data_offsets"\s*:\s*\[\s*(\d{1,19})\s*,\s*(\d{1,19})\s*\]')
_METADATA = re.compile(rb'"__metadata__"\s*:\s*\{')
_TEXTS = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True)
class Placing:
    """Where a file's tensors may lie: `starts` by name, in bytes from `begin`, the header's size."""

    begin: int
    starts: Mapping[str, int]


def recovered_headers(guard: GuardFile, files: Mapping[str, Path]) -> dict[str, bytes]:
    """By file, the header to go by where the file's own is damaged; other files are left out.

    Cost: a look at each header; where it is damaged, at one or two tiles of each tensor for each way to read it.
    """
    found = {}
    for name, path in files.items():
        if name != INDEX and path.is_file():
            header = _recovered(guard, guard.headers[name], path)
            if header is not None:
                found[name] = header
    return found


def _recovered(guard: GuardFile, given: bytes, path: Path) -> bytes | None:
    """The header to go by, the file's own if that fits best; None if it is sound, or if nothing fits at all."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        claimed = 8 + length if length <= LONGEST_HEADER else 8
        file.seek(0)
        if file.read(max(claimed, len(given)))[: len(given)] == given and claimed == len(given):
            return None
        expected = {entry.name: entry for entry in parse_bare_header(given).entries}
        total = sum(entry.nbytes for entry in expected.values())
        file.seek(0)
        content = file.read(min(max(size - total, 4 * len(given) + SPARE_TEXT), 8 + LONGEST_HEADER))
    own = _sound(content[:claimed])
    if own is not None and own.file_nbytes == size and not _damaged(own, content, expected):
        same = {entry.name: entry for entry in own.entries} == expected
        if not same or not _nearly_equal(content, given):
            return None  # another tool's, or another model's: opening it tells
    placings = list(_placings(own, content, claimed, size, given, expected))
    scores = [_matches(guard, path, expected, placing) for placing in placings]
    if not placings or max(scores) == 0:
        return None
    best = placings[int(np.argmax(scores))]
    if best == _placing_of(parse_bare_header(given)):
        return given  # to the byte, be there what may of another tool's metadata of the same length
    if own is not None and best == _placing_of(own) and not _damaged(own, content, expected):
        return content[:claimed]
    return _written(best, content, expected)


def _sound(content: bytes) -> Header | None:
    try:
        return parse_bare_header(content)
    except InvalidFile:
        return None


def _damaged(own: Header, content: bytes, expected: Mapping[str, Entry]) -> bool:
    """Whether a sound header is one flipped bit away from one of the expected tensors."""
    found = {entry.name: entry for entry in own.entries}
    lacking = [entry for name, entry in expected.items() if found.get(name) != entry]
    surplus = [entry for name, entry in found.items() if expected.get(name) != entry]
    if len(lacking) != 1 or len(surplus) != 1:
        return False
    (right,), (wrong,) = lacking, surplus
    if right.name == wrong.name:
        pairs = [(str([right.dtype, *right.shape]).encode(), str([wrong.dtype, *wrong.shape]).encode())]
    else:  # of characters beyond ASCII, tools write either the bytes or an escape
        written = [json.dumps(right.name, ensure_ascii=escaped)[1:-1].encode() for escaped in (False, True)]
        found_as = [raw for name, raw, _ in _entries_in(content) if name == wrong.name]
        pairs = [(left, candidate) for left in written for candidate in found_as]
    return any(len(left) == len(candidate) and _distance(left, candidate) == 1 for left, candidate in pairs)


def _nearly_equal(content: bytes, given: bytes) -> bool:
    """As for headers of checkpoints: at most one bit in 512 differs."""
    return len(content) >= len(given) and _distance(content[: len(given)], given) <= max(1, len(given) // 64)


def _distance(left: bytes, right: bytes) -> int:
    """In bits; both are of one length."""
    return int(np.bitwise_count(np.frombuffer(left, np.uint8) ^ np.frombuffer(right, np.uint8)).sum())


def _placing_of(header: Header) -> Placing:
    # A tensor of no bytes may stand anywhere: here always at the beginning, as in what is read off a text.
    return Placing(header.nbytes, {entry.name: entry.start if entry.nbytes else 0 for entry in header.entries})


def _placings(
    own: Header | None, content: bytes, claimed: int, size: int, given: bytes, expected: Mapping[str, Entry]
) -> Iterator[Placing]:
    """Where the tensors may lie, the likeliest first."""
    total = sum(entry.nbytes for entry in expected.values())
    begins = [begin for begin in (size - total, claimed, len(given)) if begin > 8]
    orders = []
    if own is not None and {entry.name: entry for entry in own.entries} == expected:
        orders.append(dict(_placing_of(own).starts))
    orders += islice(_arranged(_spans(content, expected), expected), MOST_CANDIDATES)
    orders.append(dict(_placing_of(parse_bare_header(given)).starts))
    for starts in orders:
        for begin in dict.fromkeys(begins):
            yield Placing(begin, starts)


def _entries_in(content: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """What looks like a tensor in the text of a header: its name, the name as it is written, and what is said of it."""
    for found in _ENTRY.finditer(content, 8):
        name = _text(found[1])
        if name is not None:
            yield name, found[1], found[2]


def _text(content: bytes) -> str | None:
    """A JSON text, given without its quotes; None if it is not sound."""
    try:
        text: str = json.loads(b'"' + content + b'"')
        text.encode()
    except ValueError:
        return None
    return text


def _spans(content: bytes, expected: Mapping[str, Entry]) -> dict[str, list[int]]:
    """By tensor, where the text of a header says that it begins; more than once where a name became another's."""
    spans: dict[str, list[int]] = {}
    for name, _, body in _entries_in(content):
        offsets = _OFFSETS.search(body)
        if name not in expected or offsets is None:
            continue
        start, stop = int(offsets[1]), int(offsets[2])
        if stop - start == expected[name].nbytes and start not in spans.setdefault(name, []):
            spans[name].append(start)
    return {name: starts for name, starts in spans.items() if starts}


def _arranged(spans: Mapping[str, list[int]], expected: Mapping[str, Entry]) -> Iterator[dict[str, int]]:
    """Every way to lay the tensors end to end that keeps to one of the places told of each."""
    total = sum(entry.nbytes for entry in expected.values())
    empty = {name: 0 for name, entry in expected.items() if not entry.nbytes}
    known = {name: starts for name, starts in spans.items() if name not in empty}
    if not known:
        return
    for chosen in islice(product(*known.values()), MOST_CANDIDATES):
        placed = dict(zip(known, chosen, strict=True))
        gaps, stop = [], 0
        for name in sorted(placed, key=lambda name: placed[name]):
            gaps.append((stop, placed[name]))
            stop = placed[name] + expected[name].nbytes
        gaps.append((stop, total))
        if any(begin > end for begin, end in gaps):
            continue
        lacking = [name for name in expected if name not in placed and name not in empty]
        for filled in _filled([gap for gap in gaps if gap[0] < gap[1]], lacking, expected):
            yield placed | filled | empty


def _filled(gaps: list[tuple[int, int]], lacking: list[str], expected: Mapping[str, Entry]) -> Iterator[dict[str, int]]:
    """Ways to fill the gaps with these tensors exactly: in every order of few, in the guard's order of many."""
    orders: Iterable[tuple[str, ...]] = permutations(lacking) if len(lacking) <= MOST_PERMUTED else [tuple(lacking)]
    for order in orders:
        filled, rest = {}, list(order)
        for begin, end in gaps:
            while begin < end and rest and begin + expected[rest[0]].nbytes <= end:
                filled[rest[0]] = begin
                begin += expected[rest.pop(0)].nbytes
            if begin != end:
                break
        else:
            if not rest:
                yield filled


@dataclass(frozen=True)
class _Laid:
    """A file's tensors, read as a placing says."""

    file: int
    placing: Placing
    expected: Mapping[str, Entry]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Bytes `[start, stop)` of a tensor; 0 past the end of the file."""
        stop = self.expected[name].nbytes if stop is None else stop
        content = np.zeros(stop - start, np.uint8)
        present = os.pread(self.file, stop - start, self.placing.begin + self.placing.starts[name] + start)
        content[: len(present)] = np.frombuffer(present, np.uint8)
        return content


def _matches(guard: GuardFile, path: Path, expected: Mapping[str, Entry], placing: Placing) -> int:
    """How many digests of some tiles of every tensor match in this placing."""
    layout = guard.layout
    held = {layout.index[name] for name in expected}
    file = os.open(path, os.O_RDONLY)
    try:
        content = _Laid(file, placing, expected)
        if "digest.tiles" in guard.arrays:
            tiles = [layout.tiles_of_tensor(tensor) for tensor in sorted(held)]
            edges = np.unique([at for tile in tiles if tile.stop > tile.start for at in (tile.start, tile.stop - 1)])
            hash_groups = np.unique(layout.hash_group_of[edges])
            hash_groups = hash_groups[
                np.linspace(0, len(hash_groups) - 1, min(len(hash_groups), MOST_HASH_GROUPS)).astype(np.int64)
            ]
            whole = [hash_group for hash_group in hash_groups if _tensors_of(guard, int(hash_group)) <= held]
            chosen = np.array(whole, np.int64)
            digests = hash_group_digests(content, layout, chosen, key=guard.key)
            return int((digests == guard.arrays["digest.tiles"][chosen]).all(1).sum())
        count, left = 0, MOST_BYTES
        for group in range(layout.groups):
            nbytes = sum(layout.entries[tensor].nbytes for tensor in layout.tensors_in(group))
            if not held.issuperset(layout.tensors_in(group)) or not 0 < nbytes <= left:
                continue
            left -= nbytes
            digest = group_digest(content, layout, group, key=guard.key)
            count += digest == guard.arrays["digest.tensors"][group].tobytes()
        return count
    finally:
        os.close(file)


def _tensors_of(guard: GuardFile, hash_group: int) -> set[int]:
    tiles = guard.layout.tiles_in(np.array([hash_group]))
    return set(guard.layout.tensors_of(tiles).tolist())


def _written(placing: Placing, content: bytes, expected: Mapping[str, Entry]) -> bytes:
    """A header of this placing and length, with what can be read of the metadata if there is room."""
    order = sorted(expected.values(), key=lambda entry: (placing.starts[entry.name], entry.nbytes))
    table: dict[str, object] = {
        entry.name: {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": [placing.starts[entry.name], placing.starts[entry.name] + entry.nbytes],
        }
        for entry in order
    }
    metadata = _metadata(content[: placing.begin])
    room = placing.begin - 8
    for head in ({"__metadata__": metadata} if metadata else {}, {}):
        text = json.dumps({**head, **table}, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= room:
            return room.to_bytes(8, "little") + text.ljust(room)
    return b""


def _metadata(content: bytes) -> dict[str, str]:
    """The pairs of texts in a damaged header's metadata, as far as they can be read."""
    found = _METADATA.search(content, 8)
    if found is None:
        return {}
    first = _ENTRY.search(content, found.end())
    metadata = {}
    for pair in _TEXTS.finditer(content, found.end(), first.start() if first else len(content)):
        name, value = _text(pair[1]), _text(pair[2])
        if name is not None and value is not None:
            metadata[name] = value
    return metadata
