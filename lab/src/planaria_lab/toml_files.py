"""Settings in TOML files."""

import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from planaria.errors import InvalidFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """The table of a file. Raises `InvalidFile`, which calls it `what`, if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"Cannot read the {what} {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidFile(f"The {what} {path} is not TOML: {error}.") from error


def packaged_toml(name: str) -> dict[str, Any]:
    """The table of an experiment that comes with the package."""
    file = resources.files("planaria_lab") / "bench" / "experiments" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
