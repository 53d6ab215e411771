"""Data sets: tiny made-up collections, the shipped MNIST test set and, where present, the real MNIST."""

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests
import torch
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planaria.errors import DataNotFound, InvalidFile, InvalidInput
from planaria_lab import datasets

REAL_DATA = os.environ.get("PLANARIA_DATA")
LOADERS: dict[str, Callable[..., datasets.Dataset]] = {"mnist": datasets.mnist, "fashion-mnist": datasets.fashion_mnist}


def idx_bytes(content: Tensor) -> bytes:
    header = bytes((0, 0, 8, content.ndim)) + struct.pack(f">{content.ndim}I", *content.shape)
    return header + bytes(content.flatten().tolist())


@dataclass
class Tiny:
    """A collection like MNIST but of 3 training and 2 test images of 4x4, and the IDX bytes of each of its files."""

    collection: datasets._Collection
    raw: dict[str, bytes]

    def write(self, folder: Path, *, gzipped: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in self.raw.items():
            (folder / (f"{name}.gz" if gzipped else name)).write_bytes(gzip.compress(raw) if gzipped else raw)

    def load(self, folder: object = None, *, download: bool = False) -> datasets.Dataset:
        return LOADERS[self.collection.name](folder, download=download)

    def matches(self, loaded: datasets.Dataset) -> bool:
        parts = (loaded.train_images, loaded.train_labels, loaded.test_images, loaded.test_labels)
        contents = (idx_bytes(part.to(torch.uint8)) for part in parts)
        return loaded.name == self.collection.name and list(contents) == [
            self.raw[file.name] for file in self.collection.files
        ]


def make_tiny(name: str, offset: int, system_folder: Path | None) -> Tiny:
    real = datasets._COLLECTIONS[name]
    raw: dict[str, bytes] = {}

    def shrink(file: datasets._File, count: int) -> datasets._File:
        shape = (count, 4, 4)[: len(file.shape)]
        content = idx_bytes(torch.arange(offset, offset + torch.Size(shape).numel(), dtype=torch.uint8).reshape(shape))
        raw[file.name] = content
        hashes = (hashlib.sha256(one).hexdigest() for one in (content, gzip.compress(content, mtime=0)))
        return datasets._File(file.name, shape, *hashes)

    collection = datasets._Collection(
        name=name,
        train_images=shrink(real.train_images, 3),
        train_labels=shrink(real.train_labels, 3),
        test_images=shrink(real.test_images, 2),
        test_labels=shrink(real.test_labels, 2),
        mirrors=("https://one.test/", "https://two.test/"),
        system_folder=system_folder,
    )
    return Tiny(collection, raw)


class FakeWeb:
    """Stands in for requests.get: serves `pages` by address, 404 for all else, and remembers what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Exception] = {}
        self.asked: list[str] = []
        self.content_length: str | None = None

    def __call__(self, url: str, *, timeout: float, stream: bool) -> "FakeResponse":
        assert timeout > 0 and stream
        self.asked.append(url)
        page = self.pages.get(url, requests.HTTPError(f"404 Client Error: Not Found for url: {url}"))
        headers = {} if self.content_length is None else {"content-length": self.content_length}
        return FakeResponse(page, headers)

    def serve(self, tiny: Tiny, mirror: str) -> None:
        self.pages |= {f"{mirror}{name}.gz": gzip.compress(raw, mtime=0) for name, raw in tiny.raw.items()}


@dataclass
class FakeResponse:
    page: bytes | Exception
    headers: dict[str, str]

    def raise_for_status(self) -> None:
        if isinstance(self.page, Exception):
            raise self.page

    def iter_content(self, chunk_size: int) -> Iterator[bytes]:
        for start in range(0, len(self.page), chunk_size):
            yield self.page[start : start + chunk_size]


@pytest.fixture(autouse=True)
def web(monkeypatch: pytest.MonkeyPatch) -> FakeWeb:
    fake = FakeWeb()
    monkeypatch.setattr(requests, "get", fake)
    return fake


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PLANARIA_DATA", raising=False)
    return tmp_path / "cache" / "planaria" / "mnist"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    made = make_tiny("mnist", 0, None)
    monkeypatch.setitem(datasets._COLLECTIONS, "mnist", made.collection)
    return made


@pytest.fixture
def tiny_fashion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tiny:
    made = make_tiny("fashion-mnist", 100, tmp_path / "system")
    monkeypatch.setitem(datasets._COLLECTIONS, "fashion-mnist", made.collection)
    return made


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# digits and the shipped test set


def test_digits_have_the_promised_shapes_and_ranges() -> None:
    loaded = datasets.digits()
    assert loaded.train_images.shape == (1297, 8, 8) and loaded.test_images.shape == (500, 8, 8)
    assert loaded.train_labels.shape == (1297,) and loaded.test_labels.shape == (500,)
    assert loaded.train_images.dtype == torch.uint8 and loaded.train_labels.dtype == torch.int64
    images = torch.cat([loaded.train_images, loaded.test_images])
    labels = torch.cat([loaded.train_labels, loaded.test_labels])
    assert images.min() == 0 and images.max() == 16 and set(labels.tolist()) == set(range(10))
    assert repr(loaded) == "Dataset(name='digits')"


def test_digits_split_is_a_partition_that_depends_on_the_seed_alone() -> None:
    def rows(images: Tensor, labels: Tensor) -> list[tuple[int, ...]]:
        return [tuple(row) for row in torch.cat([images.flatten(1), labels[:, None]], dim=1).tolist()]

    first, other = datasets.digits(seed=0), datasets.digits(seed=1)
    torch.rand(1)
    again = datasets.digits(seed=0)
    assert torch.equal(first.test_images, again.test_images) and torch.equal(first.train_labels, again.train_labels)
    assert not torch.equal(first.test_images, other.test_images)
    everything = [
        sorted(rows(split.train_images, split.train_labels) + rows(split.test_images, split.test_labels))
        for split in (first, other)
    ]
    assert everything[0] == everything[1]


def test_shipped_test_set_is_loaded_without_network(web: FakeWeb) -> None:
    images, labels = datasets.mnist_test()
    assert images.shape == (10_000, 28, 28) and images.dtype == torch.uint8 and images.max() == 255
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9] and labels.dtype == torch.int64
    assert not web.asked


def test_damaged_or_missing_shipped_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = datasets._COLLECTIONS["mnist"]
    monkeypatch.setitem(
        datasets._COLLECTIONS, "mnist", replace(real, test_images=replace(real.test_images, sha256="0" * 64))
    )
    with pytest.raises(InvalidFile, match="SHA-256"):
        datasets.mnist_test()
    monkeypatch.setitem(
        datasets._COLLECTIONS, "mnist", replace(real, test_images=replace(real.test_images, name="absent"))
    )
    with pytest.raises(DataNotFound, match="reinstall"):
        datasets.mnist_test()


@pytest.mark.skipif(not REAL_DATA, reason="PLANARIA_DATA is not set")
def test_shipped_test_set_equals_the_real_one() -> None:
    collection = datasets._COLLECTIONS["mnist"]
    images, labels = (
        datasets._load(collection, file, Path(str(REAL_DATA)), download=False)
        for file in (collection.test_images, collection.test_labels)
    )
    shipped_images, shipped_labels = datasets.mnist_test()
    assert torch.equal(shipped_images, images) and torch.equal(shipped_labels, labels.to(torch.int64))


def test_known_tables_are_complete_and_distinct() -> None:
    files = [file for collection in datasets._COLLECTIONS.values() for file in collection.files]
    hashes = [digest for file in files for digest in (file.sha256, file.packed_sha256)]
    assert len(set(hashes)) == 16 and all(len(bytes.fromhex(digest)) == 32 for digest in hashes)
    assert datasets._COLLECTIONS["mnist"].train_images.size == 47_040_016


# where files are looked for


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("inner", ["", "mnist"])
def test_given_folder_or_its_subfolder_is_used(tiny: Tiny, tmp_path: Path, inner: str, gzipped: bool) -> None:
    tiny.write(tmp_path / "given" / inner, gzipped=gzipped)
    for folder in (tmp_path / "given", str(tmp_path / "given")):
        loaded = tiny.load(folder)
        assert tiny.matches(loaded)
        assert loaded.train_images.dtype == torch.uint8 and loaded.train_labels.dtype == torch.int64


def test_only_the_given_folder_is_used(tiny: Tiny, tmp_path: Path, cache: Path, web: FakeWeb) -> None:
    tiny.write(cache)
    web.serve(tiny, "https://one.test/")
    with pytest.raises(DataNotFound, match="train-images-idx3-ubyte") as caught:
        tiny.load(tmp_path / "absent", download=True)
    assert str(tmp_path / "absent" / "mnist") in str(caught.value) and str(cache) not in str(caught.value)
    assert not web.asked


@pytest.mark.parametrize("folder", ["", 3, b"bytes", ["list"]])
def test_folder_must_be_a_path(tiny: Tiny, folder: object) -> None:
    with pytest.raises(InvalidInput, match="folder is"):
        tiny.load(folder)


def test_places_are_searched_in_order(
    tiny_fashion: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: FakeWeb
) -> None:
    """Files are put in ever earlier places; only the earliest that has them may be read."""
    cache = tmp_path / "cache" / "planaria" / "fashion-mnist"
    environment, system = tmp_path / "environment", tmp_path / "system"
    monkeypatch.setenv("PLANARIA_DATA", str(environment))
    web.serve(tiny_fashion, "https://one.test/")

    assert tiny_fashion.matches(tiny_fashion.load(download=True))
    assert len(web.asked) == 4 and names_in(cache) == {f"{name}.gz" for name in tiny_fashion.raw}
    assert tiny_fashion.matches(tiny_fashion.load(download=True)) and len(web.asked) == 4

    opened: list[Path] = []
    read = datasets._read

    def remember(path: Path, file: datasets._File) -> Tensor:
        opened.append(path.parent)
        return read(path, file)

    monkeypatch.setattr(datasets, "_read", remember)
    for place in (cache, system, environment, environment / "fashion-mnist"):
        tiny_fashion.write(place)
        opened.clear()
        assert tiny_fashion.matches(tiny_fashion.load())
        assert set(opened) == {place}


def test_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collection = datasets._COLLECTIONS["mnist"]
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert datasets._cache_folder(collection) == tmp_path / ".cache" / "planaria" / "mnist"


def test_user_without_a_home_is_told_to_set_the_cache(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(DataNotFound, match="set XDG_CACHE_HOME"):
        tiny.load(download=True)


def test_all_places_and_reasons_are_named_when_nothing_is_found(
    tiny_fashion: Tiny, tmp_path: Path, web: FakeWeb
) -> None:
    web.pages["https://two.test/train-images-idx3-ubyte.gz"] = TimeoutError("timed out")
    with pytest.raises(DataNotFound) as caught:
        tiny_fashion.load(download=True)
    for expected in (
        "PLANARIA_DATA: not set",
        str(tmp_path / "system"),
        str(tmp_path / "cache" / "planaria" / "fashion-mnist"),
        "https://one.test/train-images-idx3-ubyte.gz",
        "404",
        "https://two.test/train-images-idx3-ubyte.gz",
        "timed out",
        "dataset-fashion-mnist",
    ):
        assert expected in str(caught.value)


def test_download_false_asks_no_mirror(tiny: Tiny, web: FakeWeb) -> None:
    web.serve(tiny, "https://one.test/")
    with pytest.raises(DataNotFound, match="download=False"):
        tiny.load(download=False)
    assert not web.asked


# files of the wrong data set


def test_other_data_set_in_planaria_data_is_passed_over(
    tiny: Tiny, tiny_fashion: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path / "data")
    monkeypatch.setenv("PLANARIA_DATA", str(tmp_path / "data"))
    assert tiny.matches(tiny.load())
    with pytest.raises(DataNotFound, match="is from mnist"):
        tiny_fashion.load()
    tiny_fashion.write(tmp_path / "system")
    assert tiny_fashion.matches(tiny_fashion.load())


def test_other_data_set_in_a_given_or_own_folder_is_an_error(
    tiny: Tiny, tiny_fashion: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    tiny_fashion.write(tmp_path / "data" / "mnist")
    with pytest.raises(InvalidFile, match="is from fashion-mnist"):
        tiny.load(tmp_path / "data" / "mnist")
    monkeypatch.setenv("PLANARIA_DATA", str(tmp_path / "data"))
    with pytest.raises(InvalidFile, match="is from fashion-mnist"):
        tiny.load()
    monkeypatch.delenv("PLANARIA_DATA")
    tiny_fashion.write(cache)
    with pytest.raises(InvalidFile, match="is from fashion-mnist"):
        tiny.load()


# damaged files


def damages() -> dict[str, tuple[Callable[[bytes], bytes], str]]:
    def bomb(raw: bytes) -> bytes:
        return gzip.compress(raw + bytes(1 << 24))

    def wrong_check_value(raw: bytes) -> bytes:
        packed = bytearray(gzip.compress(raw))
        packed[-8] ^= 1
        return bytes(packed)

    return {
        "empty": (lambda raw: b"", "starts with bytes"),
        "not IDX": (lambda raw: b"<html>not found</html>", "starts with bytes 3c 68 74 6d"),
        "wrong type": (lambda raw: raw[:2] + b"\x0d" + raw[3:], "00 00 0d 03"),
        "wrong rank": (lambda raw: raw[:3] + b"\xff" + raw[4:], "expected IDX 00 00 08 03"),
        "cut header": (lambda raw: raw[:9], "after 9 of 16 bytes"),
        "huge dimension": (lambda raw: raw[:4] + b"\xff" * 4 + raw[8:], "4294967295"),
        "cut": (lambda raw: raw[:-1], "63 bytes when decompressed, expected exactly 64"),
        "too long": (lambda raw: raw + b"\x00", "more than 64 bytes when decompressed"),
        "one bit": (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "SHA-256"),
        "cut gzip": (lambda raw: gzip.compress(raw)[:-9], "damaged gzip"),
        "bad deflate": (lambda raw: gzip.compress(raw)[:10] + b"\xff" * 40, "damaged gzip"),
        "wrong check value": (wrong_check_value, "damaged gzip"),
        "bomb": (bomb, "more than 64 bytes when decompressed"),
        "packed too long": (lambda raw: raw + bytes(1 << 21), "bytes, too long for train-images"),
    }


@pytest.mark.parametrize("damage", damages())
def test_damaged_file_in_a_folder_the_user_named_is_an_error(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: FakeWeb, damage: str
) -> None:
    spoil, message = damages()[damage]
    tiny.write(tmp_path / "data")
    path = tmp_path / "data" / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoil(tiny.raw["train-images-idx3-ubyte"]))
    with pytest.raises(InvalidFile, match=message) as caught:
        tiny.load(tmp_path / "data")
    assert str(path) in str(caught.value) and "Replace it" in str(caught.value)
    monkeypatch.setenv("PLANARIA_DATA", str(tmp_path / "data"))
    with pytest.raises(InvalidFile, match=message):
        tiny.load(download=True)
    assert not web.asked


def test_bomb_is_not_unpacked_beyond_the_known_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    unpack = gzip.GzipFile.read

    def remember(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(-1 if size is None else size)
        return unpack(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", remember)
    file = datasets._File("bomb", (4,), "")
    with pytest.raises(InvalidFile):
        datasets._decode(gzip.compress(bytes(1 << 24)), file, "bomb")
    assert asked == [file.size + 1]


def test_unreadable_file_is_reported(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write(tmp_path / "data")

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidFile, match="Permission denied"):
        tiny.load(tmp_path / "data")


def test_damaged_cached_file_is_downloaded_again_if_allowed(tiny: Tiny, cache: Path, web: FakeWeb) -> None:
    tiny.write(cache)
    damaged = cache / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(b"damaged")
    with pytest.raises(InvalidFile, match="t10k-labels-idx1-ubyte"):
        tiny.load(download=False)
    with pytest.raises(DataNotFound, match="starts with bytes"):
        tiny.load(download=True)
    assert damaged.read_bytes() == b"damaged"
    web.serve(tiny, "https://one.test/")
    assert tiny.matches(tiny.load(download=True))
    assert tiny.matches(tiny.load(download=False))


def test_damaged_unpacked_file_in_the_cache_does_not_hide_the_download(tiny: Tiny, cache: Path, web: FakeWeb) -> None:
    cache.mkdir(parents=True)
    (cache / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    web.serve(tiny, "https://one.test/")
    assert tiny.matches(tiny.load(download=True))
    assert tiny.matches(tiny.load(download=False))


def test_damaged_file_of_the_system_is_passed_over(tiny_fashion: Tiny, tmp_path: Path, web: FakeWeb) -> None:
    tiny_fashion.write(tmp_path / "system")
    (tmp_path / "system" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    web.serve(tiny_fashion, "https://one.test/")
    assert tiny_fashion.matches(tiny_fashion.load(download=True))
    assert web.asked == ["https://one.test/train-images-idx3-ubyte.gz"]


# download


def test_second_mirror_is_used_when_the_first_serves_a_damaged_file(tiny: Tiny, cache: Path, web: FakeWeb) -> None:
    web.serve(tiny, "https://two.test/")
    web.pages["https://one.test/train-images-idx3-ubyte.gz"] = b"<html>log in to the hotel's network</html>"
    assert tiny.matches(tiny.load(download=True))
    assert names_in(cache) == {f"{name}.gz" for name in tiny.raw}


@pytest.mark.parametrize(
    "page",
    [
        gzip.compress(b"something else"),
        gzip.compress(bytes(1 << 24)),
        bytes(1 << 22),
        b"",
        zlib.error("not an answer requests gives, but still"),
    ],
    ids=["other content", "bomb", "endless", "empty", "unexpected error"],
)
def test_failed_download_leaves_nothing(tiny: Tiny, cache: Path, web: FakeWeb, page: bytes | Exception) -> None:
    web.pages = {f"{mirror}train-images-idx3-ubyte.gz": page for mirror in tiny.collection.mirrors}
    with pytest.raises(zlib.error if isinstance(page, zlib.error) else DataNotFound):
        tiny.load(download=True)
    assert names_in(cache) == set()


def test_failed_move_leaves_nothing(tiny: Tiny, cache: Path, web: FakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    web.serve(tiny, "https://one.test/")

    def fail(source: str, target: str) -> None:
        assert Path(source).parent == Path(target).parent == cache
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", fail)
    with pytest.raises(DataNotFound, match="No space left"):
        tiny.load(download=True)
    assert names_in(cache) == set()


def test_interrupted_download_leaves_nothing(
    tiny: Tiny, cache: Path, web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.serve(tiny, "https://one.test/")

    def interrupt(self: FakeResponse, chunk_size: int) -> Iterator[bytes]:
        yield self.page[:1]
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeResponse, "iter_content", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.load(download=True)
    assert names_in(cache) == set()


def test_unwritable_cache_is_reported_before_any_mirror_is_asked(tiny: Tiny, cache: Path, web: FakeWeb) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_bytes(b"a file where the cache folder should be")
    with pytest.raises(DataNotFound, match=r"Not a directory|File exists"):
        tiny.load(download=True)
    assert not web.asked


@pytest.mark.parametrize("length", ["1", "99999999999"])
def test_announced_length_is_only_shown(tiny: Tiny, web: FakeWeb, length: str) -> None:
    web.serve(tiny, "https://one.test/")
    web.content_length = length
    assert tiny.matches(tiny.load(download=True))


def test_senseless_announced_length_fails_that_mirror_only(tiny: Tiny, web: FakeWeb) -> None:
    web.serve(tiny, "https://one.test/")
    web.content_length = "many"
    with pytest.raises(DataNotFound, match="many"):
        tiny.load(download=True)
    assert len(web.asked) == 2


def test_an_endless_answer_is_cut_at_what_a_file_may_have(tiny: Tiny, web: FakeWeb) -> None:
    web.pages["https://one.test/train-images-idx3-ubyte.gz"] = bytes(1 << 21)
    limit = tiny.collection.train_images.packed_limit
    with pytest.raises(DataNotFound, match=f"more than {limit} bytes came"):
        tiny.load(download=True)


def test_another_packing_of_the_right_content_is_no_download_but_a_file_to_use(
    tiny: Tiny, cache: Path, web: FakeWeb
) -> None:
    web.pages = {f"https://one.test/{name}.gz": gzip.compress(raw, 1, mtime=7) for name, raw in tiny.raw.items()}
    with pytest.raises(DataNotFound, match="does not match the known hash"):
        tiny.load(download=True)
    cache.mkdir(parents=True, exist_ok=True)
    for url, page in web.pages.items():
        (cache / url.rpartition("/")[2]).write_bytes(page)
    assert tiny.matches(tiny.load(download=False))


# the IDX parser


@examples(50)
@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_idx_round_trip(data: st.DataObject, shape: list[int]) -> None:
    count = torch.Size(shape).numel()
    values = data.draw(st.binary(min_size=count, max_size=count))
    content = torch.tensor(list(values), dtype=torch.uint8).reshape(shape)
    assert torch.equal(datasets._parse_idx(idx_bytes(content), tuple(shape), "here"), content)


@examples(100)
@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"\x1f\x8b\x08" + tail)))
def test_no_bytes_make_the_decoder_fail_otherwise_than_invalid_file(packed: bytes) -> None:
    with pytest.raises(InvalidFile, match="here: "):
        datasets._decode(packed, datasets._File("any", (2, 2, 2), "0" * 64), "here")
