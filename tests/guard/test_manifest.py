"""What a guard says of itself: read back as written, and refused where it is not sound."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.errors import InvalidGuard
from planaria.guard.manifest import VERSION, Manifest, ParityShape, RuleShape

names = st.text(max_size=8)
files = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
indices = st.integers(0, 99)
numbers = st.floats(0, 100)
rules = st.builds(
    RuleShape,
    tensor=indices,
    recipe=names,
    precision=names,
    space=st.lists(st.integers(1, 64), max_size=3),
    rates=st.just([0.1, 0.5]),
    errors=st.lists(numbers, min_size=2, max_size=2),
    tile_error=numbers,
)
manifests = st.builds(
    Manifest,
    key=st.sampled_from(["", "0123456789abcdef" * 2]),
    tile=st.integers(6, 20).map(lambda power: 2**power),
    files=st.lists(st.tuples(files, st.integers(0, 2**40)), min_size=1, max_size=3, unique_by=lambda file: file[0]).map(
        tuple
    )
    | st.just((("", 80),)),
    aliases=st.dictionaries(names, names, max_size=3),
    parity=st.none()
    | st.builds(ParityShape, segment=st.integers(1, 2**20), width=st.integers(100, 2**32), check=st.integers(1, 55000)),
    rules=st.lists(rules, max_size=3, unique_by=lambda rule: rule.tensor).map(tuple),
    reasons=st.dictionaries(names, st.lists(indices, max_size=3), max_size=3),
)
PARITY: dict[str, Any] = {"segment": 1000, "width": 10, "check": 4}
RULE: dict[str, Any] = {
    "tensor": 0,
    "recipe": "default",
    "precision": "byte",
    "space": [16, 16],
    "rates": [0.1, 0.5],
    "errors": [0.2, 0.3],
    "tile_error": 0.9,
}
SOUND = {
    "version": 1,
    "key": "0" * 32,
    "tile": 4096,
    "files": [["a", 80], ["b", 90]],
    "aliases": {"one": "other"},
    "parity": PARITY,
    "rules": [RULE],
    "reasons": {"too small": [1, 2]},
}


def each(name: str, *values: Any) -> list[tuple[str, Any]]:
    return [(name, value) for value in values]


def decoded(fields: Any) -> Manifest:
    return Manifest.decode(json.dumps(fields).encode())


@given(manifest=manifests)
def test_what_is_encoded_is_decoded(manifest: Manifest) -> None:
    content = manifest.encode().tobytes()
    assert Manifest.decode(content) == manifest
    assert Manifest.decode(content).encode().tobytes() == content


def test_what_is_missing_has_its_default() -> None:
    assert decoded({"version": 1, "files": [["a", 80]]}) == Manifest(files=(("a", 80),)) != decoded(SOUND)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *each("version", 0, -1, True, "1", 1.0, None, [1]),
        *each("key", "ab", "0" * 31, 32, None, ["0"] * 32),
        *each("tile", 0, 32, 63, 4097, 6144, 2**21, -4096, 4096.0, "4096", True, None),
        *(("files", [["a", size]]) for size in (-1, 2**40 + 1, 1.5, "80", True, None)),
        *each("files", [], [["a", 1], ["a", 2]], [["", 1], ["a", 2]], [[1, 80]], [[None, 80]]),
        *(("files", [[name, 80], ["b", 90]]) for name in ("..", "a/b", "/a", "a\\b", "a\0", "a" * 256, "\ud800")),
        *each("aliases", [], "one", {"one": 1}, {"one": None}, {"one": {}}, None),
        *(("parity", PARITY | {"check": check}) for check in (0, -1, 65535, 2.0, "4", True, None)),
        *(("parity", PARITY | {"width": value}) for value in (0, 2**32 + 1, 1.0, None)),
        *(("parity", PARITY | {"segment": value}) for value in (0, 2**40 + 1, 655_320, None)),
        ("parity", PARITY | {"colour": 1}),
        ("parity", {"segment": 1000, "width": 10}),
        ("parity", 5),
        *(("rules", [RULE | {"tensor": value}]) for value in (-1, 1.0, "0", True, None)),
        *(("rules", [RULE | {"space": value}]) for value in ([0], [2**20 + 1], [1, 1, 1, 1], ["16"], [True])),
        *(("rules", [RULE | {"errors": value}]) for value in ([], [0.1], [0.1, -0.1], [0.1, 101], [0.1, "1"])),
        *(("rules", [RULE | {"errors": [0.1, value]}]) for value in (float("nan"), float("inf"), None)),
        *(("rules", [RULE | {"tile_error": value}]) for value in (-1, float("nan"), None, "1")),
        ("rules", [RULE | {"recipe": None}]),
        ("rules", [RULE | {"precision": 5}]),
        ("rules", [RULE | {"rates": [], "errors": []}]),
        ("rules", [RULE, RULE]),
        ("rules", [{"tensor": 0}]),
        ("rules", [RULE | {"colour": 1}]),
        *each("reasons", [], "x", {"x": [-1]}, {"x": ["1"]}, {"x": "12"}, None),
        *each("not_finite", [1], [0, 2]),  # of version 1
    ],
)
def test_a_field_that_is_not_sound_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidGuard, match=f"(?i)manifest is not sound: .*{name.removesuffix('s')}"):
        decoded(SOUND | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *each("files", None, 5, "ab", [["a"]], [["a", 1, 2]], [5], {"a": 80}),
        *each("rules", None, 5, [5], [None], {"a": 1}),
        *(("rules", [RULE | {field: 5}]) for field in ("space", "rates", "errors")),
        ("reasons", {"x": 5}),
    ],
)
def test_a_field_of_another_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidGuard):
        decoded(SOUND | {name: value})


@pytest.mark.parametrize("indices", [[-1], [1, 1], [2, 1], ["1"], [1.0], [True], 5, "12", {"1": 2}, [None]])
def test_tensors_that_held_what_is_no_number_are_ascending_indices(indices: Any) -> None:
    assert decoded(SOUND | {"version": 4, "not_finite": [1, 7]}).not_finite == (1, 7)
    with pytest.raises(InvalidGuard):
        decoded(SOUND | {"version": 4, "not_finite": indices})


@pytest.mark.parametrize("fields", [[], 5, "text", None, [SOUND]])
def test_what_is_no_object_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidGuard):
        decoded(fields)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff{}", b'{"tile":64}{}', b'{"tile":\xff}', b'{"tile":' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidGuard):
        Manifest.decode(content)


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(InvalidGuard, match="colour"):
        decoded(SOUND | {"colour": "blue"})


@pytest.mark.parametrize(
    "content",
    [b'{"tile":64,"tile":128}', b'{"aliases":{"a":"b","a":"c"}}', b'{"parity":{"segment":1,"segment":1}}'],
)
def test_a_name_that_stands_twice_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidGuard, match="twice"):
        Manifest.decode(content)


@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"aliases":', "}"), ('{"a":[', "]}"), ("[", "")])
def test_nesting_without_end_is_refused(before: str, after: str) -> None:
    with pytest.raises(InvalidGuard):
        Manifest.decode((before * 100_000 + "1" + after * 100_000).encode())


@given(
    version=st.integers(VERSION + 1, 10**6), more=st.dictionaries(st.sampled_from(["colour", "tile", "parity"]), names)
)
def test_a_newer_format_asks_for_a_newer_planaria_whatever_else_it_says(version: int, more: dict[str, str]) -> None:
    with pytest.raises(InvalidGuard, match=f"of format {version}; .* Install a newer"):
        decoded({**more, "version": version})
