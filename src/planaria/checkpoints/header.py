"""Headers of safetensors files: parsed strictly, written, compared.

The safetensors library answers with tensors but not with where their bytes are, so the header is read here. Whatever
`parse_header` accepts the library accepts too, and understands alike. Format: huggingface.co/docs/safetensors.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from planaria.dtypes import DTYPES
from planaria.errors import InvalidFile, OtherModel

INDEX = "model.safetensors.index.json"  # which shard of a folder holds which tensor
LONGEST_HEADER = 100_000_000  # bytes of JSON: the library's limit
MOST_AXES = 64  # that NumPy and PyTorch compute with


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint.

    Attributes:
        name: its name.
        dtype: as safetensors names it: "F32", "BF16", "F8_E4M3".
        shape: in numbers; two "F4" share a byte.
        nbytes: its size.
        start: its first byte in the file, counted from the end of the header. Equal entries may differ in it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Header:
    """What a safetensors header says.

    Attributes:
        nbytes: of the header, its 8-byte length included.
        entries: the tensors in the order of their bytes, which follow one another without gaps.
    """

    nbytes: int
    entries: tuple[Entry, ...]

    @property
    def file_nbytes(self) -> int:
        """Size of the file."""
        return self.nbytes + sum(entry.nbytes for entry in self.entries)


def parse_header(content: bytes, *, size: int | None = None) -> Header:
    """The header of a safetensors file whose first bytes are `content`.

    `size` is the file's in bytes; without it `content` is the whole file.

    Raises:
        InvalidFile: if the header is not sound, or its tensors do not fill the file exactly.
    """
    header = parse_bare_header(content)
    size = len(content) if size is None else size
    if header.file_nbytes != size:
        raise InvalidFile(
            f"The safetensors header describes {header.file_nbytes} bytes, and the file has {size}. It was cut short "
            "or written over: fetch it again."
        )
    return header


def parse_bare_header(content: bytes) -> Header:
    """As `parse_header`, whatever the size of the file. Raises `InvalidFile`."""
    try:
        return _parsed(content)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"This is no sound safetensors header: {error}.") from error


def expected_entries(headers: Mapping[str, bytes]) -> dict[str, Entry]:
    """The tensors of these headers, file after file in the order of names; an index has none. Raises `InvalidFile`."""
    entries: dict[str, Entry] = {}
    for file in sorted(headers.keys() - {INDEX}):
        header = parse_bare_header(headers[file])
        if header.nbytes != len(headers[file]):
            raise InvalidFile(f"The given header of {file!r} is {len(headers[file])} bytes, not {header.nbytes}.")
        for entry in header.entries:
            if entry.name in entries:
                raise InvalidFile(f"The tensor {entry.name!r} is in more than one of the given headers.")
            entries[entry.name] = entry
    return entries


def require_same_entries(found: Mapping[str, Entry], expected: Mapping[str, Entry]) -> None:
    """Raises `OtherModel`, naming up to three differences, unless names, dtypes and shapes agree, in any order."""
    differences = [f"{name!r} is missing" for name in expected if name not in found]
    differences += [f"{name!r} is not in the guard" for name in found if name not in expected]
    differences += [
        f"{name!r} is {found[name].dtype} {list(found[name].shape)} and not {entry.dtype} {list(entry.shape)}"
        for name, entry in expected.items()
        if name in found and found[name] != entry
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise OtherModel(f"The guard is of another model: {'; '.join(differences[:3])}{more}. Use this model's guard.")


def format_header(entries: Iterable[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """The header of a safetensors file of these tensors, in their order."""
    table: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    table |= {
        entry.name: {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": [entry.start, entry.start + entry.nbytes],
        }
        for entry in entries
    }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin aligned
    return len(text).to_bytes(8, "little") + text


def strict_json(content: bytes) -> dict[str, Any]:
    """A JSON object. Names that stand twice and text that is not Unicode are refused. Raises `ValueError`."""
    # Python takes -0 for a whole number and the library does not.
    value = json.loads(
        content.decode("utf-8"),
        object_pairs_hook=_unique,
        parse_int=lambda digits: -1 if digits == "-0" else int(digits),
    )
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {type(value).__name__} and not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{name[:80]!r} stands twice in it")
        # Half of a surrogate pair passes the JSON parser and fails here.
        (name + value if isinstance(value, str) else name).encode()
        table[name] = value
    return table


def _parsed(content: bytes) -> Header:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, LONGEST_HEADER):
        raise ValueError(f"it claims {length} bytes, and {max(0, len(content) - 8)} follow")
    table = strict_json(content[8 : 8 + length])
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ are not texts")
    entries = sorted((_entry(*item) for item in table.items()), key=lambda entry: (entry.start, entry.nbytes))
    stop = 0
    for entry in entries:
        if entry.start != stop:
            raise ValueError(f"{entry.name[:80]!r} begins at byte {entry.start} and not at {stop}")
        stop += entry.nbytes
    return Header(8 + length, tuple(entries))


def _entry(name: str, info: Any) -> Entry:
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:80]!r} does not have exactly a dtype, a shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name[:80]!r} has the unknown dtype {str(dtype)[:80]!r}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"the shape and the two data_offsets of {name[:80]!r} are not whole numbers below 2^63")
    if len(shape) > MOST_AXES:
        raise ValueError(f"{name[:80]!r} has {len(shape)} axes, and at most {MOST_AXES} can be computed with")
    # The library refuses a product past 64 bits even where a later size is 0.
    if math.prod(max(size, 1) for size in shape) * DTYPES[dtype].bits >= 2**63:
        raise ValueError(f"the shape of {name[:80]!r} is too large")
    start, stop = offsets
    if math.prod(shape) * DTYPES[dtype].bits != (stop - start) * 8:
        raise ValueError(f"{name[:80]!r} takes {stop - start} bytes, which its dtype and shape do not")
    return Entry(name, dtype, tuple(shape), stop - start, start)


def _whole_numbers(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
