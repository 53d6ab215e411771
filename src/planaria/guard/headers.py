"""The headers of the model's files, packed. Specified in FORMAT.md, section 3."""

import re
import zlib
from collections.abc import Sequence
from itertools import accumulate
from math import prod

from planaria.dtypes import DTYPES
from planaria.errors import InvalidGuard

LARGEST_EXPANSION = 64  # a header that zlib packs tighter than this is stored as it is
FURTHEST = 2**63  # no byte of a file lies further

# A tensor in a header as safetensors writes it, with or without its offsets.
_TENSOR = re.compile(rb'"dtype":"([A-Z0-9_]{1,16})","shape":\[([\d,]{0,1000})\](,"data_offsets":\[\d+,\d+\])?(?=\})')


def pack_headers(headers: Sequence[bytes], *, bare: bool) -> bytes:
    """All headers in a row, packed by zlib unless they pack suspiciously well.

    Args:
        headers: in the order of the manifest.
        bare: leave out offsets that follow from the sizes of tensors.
    """
    content = b"".join(headers)
    packed = zlib.compress(b"".join(map(_bare, headers)) if bare else content, 9)
    return packed if len(content) <= LARGEST_EXPANSION * len(packed) else zlib.compress(content, 0)


def unpack_headers(packed: bytes, sizes: Sequence[int], *, bare: bool) -> list[bytes]:
    """Reverses `pack_headers`, for headers of these sizes.

    Raises `InvalidGuard` on anything else, before it is expanded.
    """
    size = sum(sizes)
    if size > LARGEST_EXPANSION * len(packed):
        raise InvalidGuard(f"The guard's {len(packed)} bytes of headers claim to hold {size}.")
    layout = zlib.decompressobj()
    try:
        content = layout.decompress(packed, size + 1)
    except zlib.error as error:
        raise InvalidGuard(f"The guard's headers cannot be unpacked: {error}.") from error
    if bare:
        content = _with_offsets(content, sizes)
    if len(content) != size or not layout.eof:
        raise InvalidGuard("The guard's headers have another size than its manifest says.")
    ends = list(accumulate(sizes))
    return [content[end - nbytes : end] for end, nbytes in zip(ends, sizes, strict=True)]


def _bare(header: bytes) -> bytes:
    """A header without its offsets; as it is if they are not what `_with_offsets` puts back."""
    bare = _TENSOR.sub(lambda found: found[0].removesuffix(found[3] or b""), header)
    try:
        return bare if _with_offsets(bare, [len(header)]) == header else header
    except InvalidGuard:
        return header


def _with_offsets(content: bytes, sizes: Sequence[int]) -> bytes:
    """Headers of these sizes, with offsets for the tensors that have none: each begins where the one before ends."""
    parts, length, start, offset, ends = [], 0, 0, 0, list(accumulate(sizes))
    for found in _TENSOR.finditer(content):
        parts.append(content[start : found.end()])
        length, start = length + len(parts[-1]), found.end()
        while len(ends) > 1 and length > ends[0]:  # the next file's first tensor
            del ends[0]
            offset = 0
        end = offset + _nbytes(found[1], found[2])
        if found[3] is None:
            parts.append(b',"data_offsets":[%d,%d]' % (offset, end))
            length += len(parts[-1])
        if length > ends[-1] or end > FURTHEST:
            raise InvalidGuard("The guard's headers have another size than its manifest says.")
        offset = end
    return b"".join([*parts, content[start:]])


def _nbytes(dtype: bytes, shape: bytes) -> int:
    """Of a tensor; 0 for what is none, which the header's parser will refuse."""
    axes = shape.split(b",") if shape else []
    if not all(axes):
        return 0
    return prod(map(int, axes)) * (known.bits if (known := DTYPES.get(dtype.decode())) else 0) // 8
