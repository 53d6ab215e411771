"""Safetensors headers: what is accepted is what the library accepts, understood alike."""

import json
from typing import Any

import pytest
from checkpoint_files import every_dtype, file_of, header_of
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from planaria.checkpoints import Entry, Header, parse_header
from planaria.checkpoints.header import expected_entries, format_header, parse_bare_header
from planaria.dtypes import DTYPES
from planaria.errors import InvalidFile

ENTRY: dict[str, Any] = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
TEXT = '{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
DTYPE_AGAIN = ',"dtype":"U8",'
GOOD = save(every_dtype(), metadata={"format": "pt"})


def understood(content: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]] | None:
    """What planaria makes of a file; None if it refuses it."""
    try:
        header = parse_header(content)
    except InvalidFile:
        return None
    found = {}
    for entry in header.entries:
        start = header.nbytes + entry.start
        found[entry.name] = (entry.dtype, entry.shape, content[start : start + entry.nbytes])
    return found


def understood_by_the_library(content: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]] | None:
    try:
        found = deserialize(content)
    except SafetensorError:
        return None
    return {name: (info["dtype"], tuple(info["shape"]), bytes(info["data"])) for name, info in found}


dtypes = st.sampled_from(sorted(DTYPES))


@st.composite
def files(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A sound header, its tensors in any order, and the bytes that follow it."""
    table: dict[str, Any] = draw(st.sampled_from([{}, {"__metadata__": {}}, {"__metadata__": {"format": "pt"}}]))
    stop = 0
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), unique=True, max_size=5))
    entries = []
    for name in names:
        dtype = draw(dtypes)
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        shape += [4] if DTYPES[dtype].bits < 8 else []  # whole bytes
        numbers = 1
        for size in shape:
            numbers *= size
        entries.append(
            (name, {"dtype": dtype, "shape": shape, "data_offsets": [stop, stop + numbers * DTYPES[dtype].bits // 8]})
        )
        stop = entries[-1][1]["data_offsets"][1]
    return table | dict(draw(st.permutations(entries))), stop


def test_every_dtype_is_understood_as_the_library_does() -> None:
    assert understood(GOOD) == understood_by_the_library(GOOD)
    assert len(parse_header(GOOD).entries) == len(every_dtype())


@given(file=files(), seed=st.integers(0, 255))
def test_every_sound_file_is_accepted_and_understood_as_the_library_does(
    file: tuple[dict[str, Any], int], seed: int
) -> None:
    table, count = file
    content = file_of(table, bytes((seed + index) % 256 for index in range(count)))
    assert understood(content) is not None
    assert understood(content) == understood_by_the_library(content)


@given(file=files())
def test_entries_stand_in_the_order_of_their_bytes(file: tuple[dict[str, Any], int]) -> None:
    header = parse_header(file_of(*file))
    stop = 0
    for entry in header.entries:
        assert entry.start == stop
        stop += entry.nbytes
    assert header.file_nbytes == header.nbytes + stop


@examples(300)
@given(
    start=st.integers(0, len(header_of(GOOD)) + 20),
    count=st.integers(0, 3),
    new=st.one_of(
        st.binary(max_size=3), st.sampled_from([b"0", b"1", b'"', b",", b"-", b" ", b"9", b"[", b"null", b"1.0"])
    ),
)
def test_what_is_accepted_of_a_file_with_a_broken_byte_the_library_understands_alike(
    start: int, count: int, new: bytes
) -> None:
    content = GOOD[:start] + new + GOOD[start + count :]
    found = understood(content)
    assert found is None or found == understood_by_the_library(content)


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 9),
        st.sampled_from([2**31, 2**63, 2**64, 10**30, 4.0, "U8", "F4", "", [4], [0, 4], [0, 0], [4, 4]]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "shape"]), inner, max_size=2),
    max_leaves=4,
)


@examples(300)
@given(
    table=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.one_of(
            values,
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["U8", "U8", "F4", "u8", "F16"]),
                    "shape": st.one_of(st.sampled_from([[4], [2, 2], [], [0]]), values),
                    "data_offsets": st.one_of(st.sampled_from([[0, 4], [4, 8], [0, 2], [0, 0]]), values),
                },
                optional={"extra": values},
            ),
        ),
        max_size=3,
    ),
    size=st.sampled_from([0, 2, 4, 8]),
)
def test_what_is_accepted_of_a_header_of_anything_the_library_understands_alike(
    table: dict[str, Any], size: int
) -> None:
    content = file_of(table, size)
    found = understood(content)
    assert found is None or found == understood_by_the_library(content)


HOSTILE: dict[str, bytes] = {
    "empty file": b"",
    "seven bytes": b"1234567",
    "no JSON": bytes(8),
    "longer than the file": (50).to_bytes(8, "little") + b"{}",
    "longer than any file": b"\xff" * 8 + b"{}",
    "longer than allowed": (100_000_001).to_bytes(8, "little") + b" " * 100,
    "a list": file_of(b"[]"),
    "text": file_of(b'"a"'),
    "a byte order mark": file_of(b"\xef\xbb\xbf{}"),
    "UTF-16": file_of("{}".encode("utf-16-le")),
    "no UTF-8": file_of(b'{"__metadata__":{"a":"\xff"}}'),
    "a form feed": file_of(b"\x0c{}"),
    "a NUL after it": file_of(b"{}\0"),
    "two objects": file_of(b"{}{}"),
    "a control character": file_of(f'{{"a\n":{TEXT}}}'.encode(), 4),
    "half a surrogate pair in a name": file_of(f'{{"\\ud800":{TEXT}}}'.encode(), 4),
    "half a surrogate pair in the metadata": file_of(b'{"__metadata__":{"a":"\\ud800"}}'),
    "a name twice": file_of(f'{{"a":{TEXT},"a":{TEXT}}}'.encode(), 4),
    "a name twice, once escaped": file_of(f'{{"a":{TEXT},"\\u0061":{TEXT}}}'.encode(), 4),
    "a dtype twice": file_of(f'{{"a":{TEXT.replace(",", DTYPE_AGAIN, 1)}}}'.encode(), 4),
    "metadata twice": file_of(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata of numbers": file_of({"__metadata__": {"a": 1}}),
    "metadata of null": file_of({"__metadata__": None}),
    "metadata in a list": file_of({"__metadata__": []}),
    "depth": file_of(b'{"a":' * 200_000),
    "depth in brackets": file_of(b'{"a":' + b"[" * 200_000),
    "digits without end": file_of(b'{"a":' + b"9" * 100_000 + b"}"),
    "an unknown dtype": file_of({"a": ENTRY | {"dtype": "U9"}}, 4),
    "a dtype in lower case": file_of({"a": ENTRY | {"dtype": "u8"}}, 4),
    "a dtype that is a list": file_of({"a": ENTRY | {"dtype": ["U8"]}}, 4),
    "no dtype": file_of({"a": {"shape": [4], "data_offsets": [0, 4]}}, 4),
    "a fourth field": file_of({"a": ENTRY | {"x": 1}}, 4),
    "an entry in a list": file_of({"a": ["U8", [4], [0, 4]]}, 4),
    "a fraction": file_of({"a": ENTRY | {"shape": [4.0]}}, 4),
    "a truth": file_of({"a": ENTRY | {"shape": [4, True]}}, 4),
    "a negative size": file_of({"a": ENTRY | {"shape": [-2, -2]}}, 4),
    "minus zero": file_of(b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'),
    "a size that is text": file_of({"a": ENTRY | {"shape": ["4"]}}, 4),
    "no number": file_of(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', 4),
    "a size past 64 bits": file_of({"a": ENTRY | {"shape": [2**64, 0], "data_offsets": [0, 0]}}),
    "a product past 64 bits": file_of({"a": ENTRY | {"shape": [2**32, 2**32, 0], "data_offsets": [0, 0]}}),
    "a product that wraps around": file_of({"a": ENTRY | {"shape": [2**62, 4, 1]}}, 4),
    "three offsets": file_of({"a": ENTRY | {"data_offsets": [0, 4, 4]}}, 4),
    "one offset": file_of({"a": ENTRY | {"data_offsets": [4]}}, 4),
    "offsets backwards": file_of({"a": ENTRY | {"data_offsets": [4, 0]}}, 4),
    "negative offsets": file_of({"a": ENTRY | {"data_offsets": [-4, 0]}}, 4),
    "a size that is not the shape's": file_of({"a": ENTRY | {"data_offsets": [0, 5]}}, 5),
    "half a byte": file_of({"a": ENTRY | {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2),
    "a hole at the start": file_of({"a": ENTRY | {"data_offsets": [1, 5]}}, 5),
    "a hole between": file_of({"a": ENTRY, "b": ENTRY | {"data_offsets": [5, 9]}}, 9),
    "an overlap": file_of({"a": ENTRY, "b": ENTRY | {"data_offsets": [2, 6]}}, 6),
    "the same bytes": file_of({"a": ENTRY, "b": ENTRY}, 4),
    "nothing, past the end": file_of({"a": ENTRY | {"shape": [0], "data_offsets": [9, 9]}}),
    "a file too short": file_of({"a": ENTRY}, 3),
    "a file too long": file_of({"a": ENTRY}, 5),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused_in_one_short_line(content: bytes) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_header(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_header_longer_than_the_library_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_of({"a": ENTRY}, 4)
    monkeypatch.setattr("planaria.checkpoints.header.LONGEST_HEADER", len(header_of(content)) - 8)
    parse_header(content)
    monkeypatch.setattr("planaria.checkpoints.header.LONGEST_HEADER", len(header_of(content)) - 9)
    with pytest.raises(InvalidFile, match="claims"):
        parse_header(content)


def test_the_good_twin_of_the_hostile_headers_is_accepted() -> None:
    assert parse_header(file_of({"a": ENTRY}, 4)) == Header(
        8 + len(json.dumps({"a": ENTRY})), (Entry("a", "U8", (4,), 4),)
    )


def test_a_file_is_told_by_its_first_bytes_and_its_size() -> None:
    header = header_of(GOOD)
    assert parse_header(header, size=len(GOOD)) == parse_header(GOOD)
    with pytest.raises(InvalidFile, match="cut short"):
        parse_header(header, size=len(GOOD) - 1)


@given(file=files())
def test_a_written_header_reads_back_and_begins_its_tensors_aligned(file: tuple[dict[str, Any], int]) -> None:
    entries = parse_header(file_of(*file)).entries
    header = parse_bare_header(format_header(entries))
    assert header.entries == entries
    assert [entry.start for entry in header.entries] == [entry.start for entry in entries]
    assert header.nbytes == len(format_header(entries))
    assert header.nbytes % 8 == 0


def test_given_headers_come_file_after_file_and_share_no_name() -> None:
    one, other = file_of({"b": ENTRY}), file_of({"a": ENTRY})
    assert list(expected_entries({"2": other, "1": one})) == ["b", "a"]
    with pytest.raises(InvalidFile, match="more than one"):
        expected_entries({"1": one, "2": one})


def test_a_given_header_ends_where_it_says() -> None:
    with pytest.raises(InvalidFile, match="given header"):
        expected_entries({"1": file_of({"a": ENTRY}, 1)})
