"""Writing files whole or not at all."""

import os
import tempfile
from pathlib import Path

from planaria.errors import OutputFailed


def write_atomically(path: str | os.PathLike[str], content: bytes, *, mode: int | None = None) -> None:
    """Writes to a temporary file beside `path`, flushes it, and renames it into place.

    Args:
        mode: permissions of the file; by default those of any new file.

    Raises:
        OutputFailed: if the folder is missing or cannot be written; whatever was at `path` is then still there.
    """
    path = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~_umask() if mode is None else mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputFailed(
            f"Cannot write {path}: {error.strerror or error}. Choose a folder that can be written."
        ) from error


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder, and those above it, unless it is there. Raises `OutputFailed`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed(f"Cannot make the folder {path}: {error.strerror or error}. Choose another.") from error
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
