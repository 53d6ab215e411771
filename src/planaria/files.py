"""Writing files whole or not at all."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from planaria.errors import OutputFailed

LOCK = ".lock"  # the file in a temporary folder that whoever uses it holds a lock on
LONGEST_PREFIX = 200  # bytes of a name that a temporary folder repeats: names have at most 255


def printable(text: object) -> str:
    """The text without what a terminal would obey: names come from files that anyone may have made."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def write_atomically(path: str | os.PathLike[str], content: bytes, *, mode: int | None = None) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path, mode=mode) as new:
        new.write_bytes(content)


@contextmanager
def replacing(path: str | os.PathLike[str], *, mode: int | None = None) -> Iterator[Path]:
    """Where to write a file that becomes `path` at the end, whole or not at all. Links are followed.

    It has the name of `path`, in a folder of its own beside it, and is flushed before it is renamed. If the writer
    raises, whatever was at `path` stays, and nothing is left over.

    Args:
        mode: permissions of the file; by default those of any new file.

    Raises:
        OutputFailed: for an `OSError` of the writer's too.
    """
    path = Path(path)
    real = followed(path)
    try:
        with temporary_folder(real) as folder:
            new = folder / path.name
            yield new
            flush(new)
            if mode is not None:
                new.chmod(mode)
            os.replace(new, real)
    except OSError as error:
        raise OutputFailed(
            f"Cannot write {path}: {error.strerror or error}. Choose a folder that can be written."
        ) from error
    try:
        flush(real.absolute().parent)
    except OSError as error:
        raise OutputFailed(
            f"{path} is written, but may not outlast a loss of power: {error.strerror or error}. Check it."
        ) from error


def flush(path: Path) -> None:
    """Makes a file's contents, or a folder's names, last through a loss of power. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system flushes no folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A folder of a hidden name next to a path, to make there what is renamed to that path. It is gone at the end.

    Its name is `.NAME.planaria-PID-RANDOM`, and its user holds a lock in it. Those that nobody holds any more, because
    their process was killed, are removed first; locks outlive no process, unlike the numbers of processes.

    Raises `OSError` if it cannot be made.
    """
    prefix = f".{os.fsdecode(os.fsencode(beside.name)[:LONGEST_PREFIX])}.planaria-"
    parent = beside.absolute().parent
    _remove_leftovers(parent, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{prefix}{os.getpid()}-"))
        try:
            # Another process may have taken the new folder for a leftover before it was locked.
            if (lock := _lock(folder)) is not None:
                break
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def followed(path: str | os.PathLike[str]) -> Path:
    """Where a file that is written to a path belongs: where links lead, be there a file yet or not.

    Raises `OutputFailed` if links lead in a circle, or to a device.
    """
    path = Path(path)
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    if real.is_symlink():
        raise OutputFailed(f"Cannot write {path}: the link leads in a circle. Name another output.")
    if real.is_block_device() or real.is_char_device():
        raise OutputFailed(f"Cannot write {path}: {real} is a device. Name a file.")
    return real


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder, and those above it, unless it is there. Raises `OutputFailed`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed(f"Cannot make the folder {path}: {error.strerror or error}. Choose another.") from error
    return path


def _remove_leftovers(parent: Path, prefix: str) -> None:
    """Removes the temporary folders of this prefix that nobody holds a lock in."""
    with os.scandir(parent) as listing:
        folders = [
            Path(found) for found in listing if found.name.startswith(prefix) and found.is_dir(follow_symlinks=False)
        ]
    for folder in folders:
        with suppress(OSError):  # of another user, or already gone
            lock = _lock(folder, required=True)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path, *, required: bool = False) -> int | None:
    """The descriptor of the folder's lock, now held; None if somebody else holds it, or removed the folder.

    Where the file system has no locks, the descriptor is answered with unlocked, or, if `required`, `OSError` raised.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            if required:
                raise
        if os.path.samestat(os.fstat(descriptor), (folder / LOCK).stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
