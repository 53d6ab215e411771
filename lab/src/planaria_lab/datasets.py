"""Image data sets: digits (8x8), MNIST and Fashion-MNIST (28x28), from local files or, when allowed, a public mirror.

Every file is treated as hostile. It is decompressed up to its known size only and must have the published SHA-256, so a
damaged file or a wrong data set is never returned.
"""

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planaria.errors import DataNotFound, InvalidFile, InvalidInput
from planaria.streams import generator

__all__ = ["Dataset", "digits", "fashion_mnist", "mnist", "mnist_calibration", "mnist_test"]

CALIBRATION_IMAGES = 1000

_DIGITS_TEST_COUNT = 500
_IDX_UINT8 = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
# Gzip adds a header and, to data it cannot compress, far less than 1 %; no honest packed file exceeds this.
_PACKING_ALLOWANCE = 1 << 20
_REPLACE = "Replace it with an intact copy or remove it."


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled grey images, split into a training and a test part.

    Images are uint8 of shape (n, h, w): 28x28 with values 0..255 for MNIST and Fashion-MNIST, 8x8 with values 0..16 for
    digits. Labels are int64 of shape (n,) with values 0..9.
    """

    name: str
    train_images: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test_images: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)


@dataclass(frozen=True)
class _File:
    """What one IDX file must hold: the SHA-256 decompressed, and of the gzipped file that mirrors serve."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    packed_sha256: str = ""

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def packed_limit(self) -> int:
        """The most bytes the file may have as it lies on disk or comes from a mirror."""
        return self.size + _PACKING_ALLOWANCE


@dataclass(frozen=True)
class _Collection:
    name: str
    train_images: _File
    train_labels: _File
    test_images: _File
    test_labels: _File
    mirrors: tuple[str, ...]
    system_folder: Path | None = None

    @property
    def files(self) -> tuple[_File, _File, _File, _File]:
        return self.train_images, self.train_labels, self.test_images, self.test_labels


_COLLECTIONS = {
    "mnist": _Collection(
        name="mnist",
        train_images=_File(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        train_labels=_File(
            "train-labels-idx1-ubyte",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        test_images=_File(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        test_labels=_File(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": _Collection(
        name="fashion-mnist",
        train_images=_File(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        train_labels=_File(
            "train-labels-idx1-ubyte",
            (60_000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        test_images=_File(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        test_labels=_File(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        # Where Debian's package dataset-fashion-mnist puts the files.
        system_folder=Path("/usr/share/datasets/fashion-mnist"),
    ),
}


_CALIBRATION = _File(
    "calibration-images-idx3-ubyte",
    (CALIBRATION_IMAGES, 28, 28),
    "386bb018796babeaca208787b77c1b9db39532c4098951ea35f4694e744eb4b7",
)


def digits(*, seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, split at random by `seed` into 1,297 for training and 500 for test.

    Images are uint8 of shape (n, 8, 8) with values 0..16, labels int64 of shape (n,) in 0..9. Needs no network.
    """
    from sklearn.datasets import load_digits  # slow to import, needed only here

    source = load_digits()
    images = torch.from_numpy(source.images).to(torch.uint8)
    labels = torch.from_numpy(source.target).to(torch.int64)
    order = torch.randperm(len(images), generator=generator(seed, "digits split"))
    train, test = order[:-_DIGITS_TEST_COUNT], order[-_DIGITS_TEST_COUNT:]
    return Dataset("digits", images[train], labels[train], images[test], labels[test])


def mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = True) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images, uint8 (n, 28, 28) in 0..255, labels int64 (n,) in 0..9.

    A given `folder`, or its subfolder `mnist`, must hold the four IDX files, gzipped or not; nothing else is searched.
    Otherwise the folder named by the environment variable PLANARIA_DATA, the user's cache and, if `download`, public
    mirrors are tried in turn; what is downloaded goes into the cache.

    Raises DataNotFound if a file is nowhere, InvalidFile if one is damaged, InvalidInput if `folder` is not a path.
    """
    return _load_all(_COLLECTIONS["mnist"], folder, download)


def fashion_mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = True) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test images, uint8 (n, 28, 28) in 0..255, labels int64 (n,) in 0..9.

    Found like `mnist`, with `fashion-mnist` as the subfolder's name; the folder of Debian's package
    dataset-fashion-mnist is tried too, after PLANARIA_DATA.

    Raises DataNotFound if a file is nowhere, InvalidFile if one is damaged, InvalidInput if `folder` is not a path.
    """
    return _load_all(_COLLECTIONS["fashion-mnist"], folder, download)


def mnist_test() -> tuple[Tensor, Tensor]:
    """The MNIST test images, uint8 (10000, 28, 28) in 0..255, and labels, int64 (10000,) in 0..9; planaria ships them.

    Raises DataNotFound if the installation lacks them and InvalidFile if they are damaged.
    """
    collection = _COLLECTIONS["mnist"]
    return _load_shipped(collection.test_images), _load_shipped(collection.test_labels).to(torch.int64)


def mnist_calibration() -> Tensor:
    """The first 1,000 MNIST training images, uint8 (1000, 28, 28) in 0..255, without labels; planaria ships them.

    For the second moments of a first layer's inputs. Raises as `mnist_test` does.
    """
    return _load_shipped(_CALIBRATION)


def _load_shipped(file: _File) -> Tensor:
    resource = resources.files("planaria_lab") / "data" / "mnist" / f"{file.name}.gz"
    try:
        with resource.open("rb") as stream:
            packed = stream.read(file.packed_limit + 1)
    except OSError as error:
        raise DataNotFound(f"{resource}: cannot be read ({error}). Planaria ships it; reinstall planaria.") from error
    return _decode(packed, file, str(resource))


def _load_all(collection: _Collection, folder: str | os.PathLike[str] | None, download: bool) -> Dataset:
    chosen = None if folder is None else _as_path(folder)
    train_images, train_labels, test_images, test_labels = (
        _load(collection, file, chosen, download) for file in collection.files
    )
    return Dataset(
        collection.name, train_images, train_labels.to(torch.int64), test_images, test_labels.to(torch.int64)
    )


def _as_path(folder: str | os.PathLike[str]) -> Path:
    if not isinstance(folder, (str, os.PathLike)) or not isinstance(os.fspath(folder), str) or not os.fspath(folder):
        raise InvalidInput(f"folder is {folder!r}; give the path of a folder as a non-empty str or a Path, or None.")
    return Path(os.path.expanduser(folder))


@dataclass(frozen=True)
class _Place:
    """A folder to look in. The user is told of a damaged file in a folder they named; other folders are passed over."""

    title: str
    folder: Path
    named_by_user: bool = False
    # The folder is not this collection's own: another collection's files, which have the same names, may lie there.
    shared: bool = False


def _places(collection: _Collection, chosen: Path | None) -> Iterator[_Place]:
    if chosen is not None:
        yield _Place("folder argument", chosen / collection.name, named_by_user=True)
        yield _Place("folder argument", chosen, named_by_user=True)
        return
    if from_environment := os.environ.get("PLANARIA_DATA"):
        folder = Path(os.path.expanduser(from_environment))
        yield _Place("PLANARIA_DATA", folder / collection.name, named_by_user=True)
        yield _Place("PLANARIA_DATA", folder, named_by_user=True, shared=True)
    if collection.system_folder is not None:
        yield _Place("system folder", collection.system_folder)
    if (cache := _cache_folder(collection)) is not None:
        yield _Place("cache", cache)


def _cache_folder(collection: _Collection) -> Path | None:
    """None for a user without a home folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # unset, or to be ignored as the XDG standard asks
        base = Path(os.path.expanduser("~")) / ".cache"
    return base / "planaria" / collection.name if base.is_absolute() else None


def _load(collection: _Collection, file: _File, chosen: Path | None, download: bool) -> Tensor:
    """The file's uint8 content in its known shape, from the first place that has it."""
    tried: list[str] = []
    if chosen is None and not os.environ.get("PLANARIA_DATA"):
        tried.append("PLANARIA_DATA: not set")
    damaged = False
    for place in _places(collection, chosen):
        path = _existing(place.folder, file)
        if path is None:
            tried.append(f"{place.title}: {place.folder} holds no {file.name}.gz or {file.name}")
            continue
        try:
            return _read(path, file)
        except InvalidFile as error:
            other_data_set = place.shared and isinstance(error, _OtherDataSet)
            if place.named_by_user and not other_data_set:
                raise
            damaged = damaged or not other_data_set
            tried.append(f"{place.title}: {error}")

    if chosen is None and download:
        if (downloaded := _downloaded(collection, file, tried)) is not None:
            return downloaded
    elif chosen is None:
        tried.append("download: switched off by download=False")
    raise _not_loaded(collection, file, chosen, tried, InvalidFile if damaged and not download else DataNotFound)


def _not_loaded(
    collection: _Collection, file: _File, chosen: Path | None, tried: list[str], kind: type[DataNotFound | InvalidFile]
) -> DataNotFound | InvalidFile:
    if chosen is not None:
        advice = "Put the four IDX files there, or leave out folder to search the usual places."
    else:
        advice = "Allow the download, or set PLANARIA_DATA or pass folder to name a folder with the four IDX files."
        if collection.system_folder is not None:
            advice += " On Debian, the package dataset-fashion-mnist has them too."
    reasons = "".join(f"\n  - {reason}" for reason in tried)
    return kind(f"{collection.name}: no usable {file.name}. Tried:{reasons}\n{advice}")


def _existing(folder: Path, file: _File) -> Path | None:
    candidates = (folder / f"{file.name}.gz", folder / file.name)
    return next((path for path in candidates if path.is_file()), None)


def _downloaded(collection: _Collection, file: _File, tried: list[str]) -> Tensor | None:
    """The file from the first mirror that serves it intact; appends to `tried` why each other mirror failed."""
    cache = _cache_folder(collection)
    if cache is None:
        tried.append("download: there is no home folder to keep it in; set XDG_CACHE_HOME to an absolute path")
        return None
    import pooch  # needed only here

    def download(url: str, target: str, caller: object) -> None:
        with _Limited(target, file.packed_limit) as output:
            pooch.HTTPDownloader()(url, output, caller)

    name = f"{file.name}.gz"  # a damaged unpacked copy cannot shadow it: _existing prefers the .gz
    for mirror in collection.mirrors:
        url = mirror + name
        try:
            path = pooch.retrieve(url, f"sha256:{file.packed_sha256}", name, cache, downloader=download)
            return _read(Path(path), file)
        except (OSError, ValueError) as error:  # ValueError: another hash, or a malformed answer
            tried.append(f"download: {url}: {error}")
    return None


class _Limited(io.FileIO):
    """A new file that takes so many bytes and no more: an answer may be endless."""

    def __init__(self, path: str, limit: int):
        super().__init__(path, "wb")
        self.limit = limit

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > self.limit:
            raise InvalidFile(f"more than {self.limit} bytes came")
        return super().write(content)


class _OtherDataSet(InvalidFile):
    """An intact file, but of another data set whose files have the same names."""


def _read(path: Path, file: _File) -> Tensor:
    try:
        with path.open("rb") as stream:
            packed = stream.read(file.packed_limit + 1)
    except OSError as error:
        raise InvalidFile(f"{path}: cannot be read ({error}). Make it readable or remove it.") from error
    return _decode(packed, file, str(path))


def _decode(packed: bytes, file: _File, where: str) -> Tensor:
    """The uint8 content of an IDX file, gzipped or not, checked against `file`; `where` names it in InvalidFile."""
    if len(packed) > file.packed_limit:
        raise _too_long(where, file)
    raw = _unpack(packed, file, where)
    content = _parse_idx(raw, file.shape, where)
    digest = hashlib.sha256(raw).hexdigest()
    if digest == file.sha256:
        return content
    for other in _COLLECTIONS.values():
        if digest in (known.sha256 for known in other.files):
            raise _OtherDataSet(f"{where}: is from {other.name}, whose files have the same names. {_REPLACE}")
    raise InvalidFile(f"{where}: SHA-256 of the decompressed data is {digest}, expected {file.sha256}. {_REPLACE}")


def _too_long(where: str, file: _File) -> InvalidFile:
    return InvalidFile(f"{where}: more than {file.packed_limit} bytes, too long for {file.name}. {_REPLACE}")


def _unpack(packed: bytes, file: _File, where: str) -> bytes:
    if not packed.startswith(_GZIP_MAGIC):
        return packed
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            # One byte more than expected shows that a file is too long without unpacking the rest of a bomb.
            return stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidFile(f"{where}: damaged gzip data ({error}), expected {file.name} gzipped. {_REPLACE}") from error


def _parse_idx(raw: bytes, shape: tuple[int, ...], where: str) -> Tensor:
    """The uint8 tensor of the given `shape`, no dimension 0, in the bytes of an IDX file.

    Raises InvalidFile, naming the file as `where`, unless magic number, dimensions and length are those of `shape`.
    """
    magic = bytes((0, 0, _IDX_UINT8, len(shape)))
    if raw[:4] != magic:
        raise InvalidFile(f"{where}: starts with bytes {raw[:4].hex(' ')}, expected IDX {magic.hex(' ')}. {_REPLACE}")
    header = struct.Struct(f">4x{len(shape)}I")
    if len(raw) < header.size:
        raise InvalidFile(f"{where}: ends in its header, after {len(raw)} of {header.size} bytes. {_REPLACE}")
    found = header.unpack_from(raw)
    if found != shape:
        raise InvalidFile(f"{where}: dimensions are {found}, expected {shape}. {_REPLACE}")
    size = header.size + math.prod(shape)
    if len(raw) != size:
        came = f"{len(raw)} bytes" if len(raw) < size else f"more than {size} bytes"
        raise InvalidFile(f"{where}: {came} when decompressed, expected exactly {size}. {_REPLACE}")
    # bytearray: a tensor over immutable bytes would let a write corrupt them.
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header.size).reshape(shape)
