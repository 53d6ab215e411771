"""The acts of a guard as functions: what `import planaria` offers beside `protect`."""

import os
import secrets

from planaria.guard.file import KEY_BYTES
from planaria.guard.guard import Guard, Model, Progress
from planaria.guard.known import Mask
from planaria.guard.report import Report

Where = Guard | str | os.PathLike[str]


def new_key() -> bytes:
    """A random key of 32 bytes, with which a guard detects attackers too. Keep it away from model and guard."""
    return secrets.token_bytes(KEY_BYTES)


def load(path: str | os.PathLike[str], *, key: bytes | None = None) -> Guard:
    """Reads a guard file. Raises as `Guard.load`."""
    return Guard.load(path, key=key)


def check(
    model: Model,
    guard: Where,
    *,
    key: bytes | None = None,
    known: Mask | None = None,
    faulty: Mask | None = None,
    quick: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """What is damaged, and how exactly a repair would restore it; see `Guard.check`. `guard` may be a guard file."""
    return _guard(guard, key).check(
        model, known=known, faulty=faulty, quick=quick, force=force, threads=threads, progress=progress
    )


def repair(
    model: Model,
    guard: Where,
    output: str | os.PathLike[str] | None = None,
    *,
    in_place: bool = False,
    key: bytes | None = None,
    known: Mask | None = None,
    faulty: Mask | None = None,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Repairs a model; see `Guard.repair`. `guard` may be a guard file."""
    return _guard(guard, key).repair(
        model, output, in_place=in_place, known=known, faulty=faulty, force=force, threads=threads, progress=progress
    )


def _guard(guard: Where, key: bytes | None) -> Guard:
    return guard if isinstance(guard, Guard) else Guard.load(guard, key=key)
