"""What lies in a model's place and is none: a pointer, a web page, nothing at all."""

import codecs
import os
import re
from pathlib import Path

LONGEST_TEXT = 16 * 2**20  # bytes: no error page is longer
CHUNK = 2**20
CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")  # characters that no text has
FORMATS = {
    b"PK\x03\x04": "a zip archive, perhaps a .pt file",
    b"\x1f\x8b": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xfd7zXZ": "an xz archive",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
}
"""Other kinds of files, by their first bytes."""


def foreign(path: str | os.PathLike[str], *, header: int = 0) -> str | None:
    """What a file is that holds no weights at all, in words that follow "this is"; None if it may hold some.

    `header` is how many bytes come before the weights. Cost: a look at the first MiB, unless that is text or one byte
    over and over.
    """
    path = Path(path)
    if not path.exists():
        return "a missing file"
    size = path.stat().st_size
    if size == 0:
        return "an empty file"
    with path.open("rb") as file:
        start = file.read(4096)
        if (text := _text(path, start, size)) is not None:
            return text
        if size <= header:
            return "a file that was cut off before its first weight"
        file.seek(header)
        first = file.read(1)
        while chunk := file.read(CHUNK):
            if chunk != first * len(chunk):
                return None
    return "all zeros" if first == b"\0" else f"the byte {first.hex()} over and over"


def other_format(path: str | os.PathLike[str]) -> str | None:
    """The other kind of file that one is by its first bytes, in words that follow "this is"; None if by those none.

    Chance or damage may put such bytes before weights: believe it only if no weight is found in its place.
    """
    with Path(path).open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in FORMATS.items() if start.startswith(magic)), None)


def advice(path: str | os.PathLike[str]) -> str:
    """A sentence to add to an error: what lies in a model's place, if that is none, and what to do; else ""."""
    path = Path(path)
    what = foreign(path) or (other_format(path) if path.suffix == ".safetensors" else None)
    return "" if what is None else f" This is {what}, not a model: fetch it again."


def _text(path: Path, start: bytes, size: int) -> str | None:
    """Which kind of text a whole file is, if it is one."""
    if b"\0" in start or size > LONGEST_TEXT:
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError:
                return None
            if CONTROL.search(text):
                return None
    begin = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer"
    if begin.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page"
    if begin.startswith(b"<"):
        return "a web page or an XML message"
    return "a JSON message" if begin.startswith((b"{", b"[")) else "text"
