"""A folder of safetensors files with an index, as large models are published."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planaria.checkpoints.base import Checkpoint, require_file
from planaria.checkpoints.header import INDEX as INDEX
from planaria.checkpoints.header import LONGEST_HEADER, strict_json
from planaria.checkpoints.safetensors_file import SafetensorsFile
from planaria.errors import InvalidFile, OtherModel
from planaria.files import write_atomically


class ShardedFolder(Checkpoint):
    """A folder with `model.safetensors.index.json` and the shards it names.

    Args:
        path: the folder.
        headers: of all shards, and the index, from a guard: see `SafetensorsFile`. An index on disk that differs, or
            is missing, counts as damaged, and so does a missing shard unless all are missing.
        mended: of shards, the headers to go by whatever the disk holds: see `SafetensorsFile`.
        writable: allows writing.

    Raises:
        InvalidFile: if the index or a shard is not sound, or they disagree.
        OtherModel: if a shard's header is sound but not that of `headers`.
        FileNotFoundError: naming the index or shard that is missing.
        OutputFailed: if a shard is to be written and must not be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        headers: Mapping[str, bytes] | None = None,
        mended: Mapping[str, bytes] | None = None,
        writable: bool = False,
    ):
        self.path = Path(path)
        self.aliases = {}
        self.writable = writable
        index, self._index_damaged = self._index(headers)
        weight_map = _weight_map(index, self.path / INDEX)
        names = sorted(set(weight_map.values()))
        if headers is not None and headers.keys() != {INDEX, *names}:
            raise InvalidFile(f"The guard has headers of {sorted(headers)}, and its index names {names}.")
        may_lack = any((self.path / name).exists() for name in names)
        with ExitStack() as opened:
            shards = {
                name: opened.enter_context(
                    SafetensorsFile(
                        self.path / name,
                        headers=None if headers is None else {name: headers[name]},
                        mended=mended,
                        may_lack=may_lack,
                        writable=writable,
                    )
                )
                for name in names
            }
            astray = {(name, shard) for shard in shards for name in shards[shard].entries} ^ weight_map.items()
            if astray:
                name, shard = min(astray)
                raise InvalidFile(f"{self.path}: the index and {shard} disagree on whether it holds {name!r}.")
            self._close_shards = opened.pop_all()
        self._shards = shards
        self._shard_of = {name: shard for shard in shards.values() for name in shard.entries}
        self.entries = {name: shard.entries[name] for name, shard in self._shard_of.items()}
        self.headers = {INDEX: index} | {name: shard.headers[name] for name, shard in shards.items()}
        self.header_damaged = self._index_damaged or any(shard.header_damaged for shard in shards.values())

    def truncated(self) -> Mapping[str, tuple[int, int]]:
        return {name: span for shard in self._shards.values() for name, span in shard.truncated().items()}

    def wrong_length(self) -> bool:
        return any(shard.wrong_length() for shard in self._shards.values())

    def write_headers(self) -> None:
        self._require_writable()
        for shard in self._shards.values():
            shard.write_headers()
        if self._index_damaged:
            write_atomically(self.path / INDEX, self.headers[INDEX])
        self.header_damaged = self._index_damaged = False

    def close(self) -> None:
        self._close_shards.close()

    def _read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        return self._shard_of[name].read(name, start, stop)

    def _write(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        self._shard_of[name].write(name, start, content)

    def _index(self, headers: Mapping[str, bytes] | None) -> tuple[bytes, bool]:
        """The index to go by, and whether the one on disk is damaged."""
        path = self.path / INDEX
        if headers is None:
            if require_file(path).stat().st_size > LONGEST_HEADER:
                raise InvalidFile(f"{path} is longer than {LONGEST_HEADER} bytes, and so is no index.")
            return path.read_bytes(), False
        if INDEX not in headers:
            raise OtherModel(f"The guard is of a model that is not in shards; {self.path} is a folder of shards.")
        given = headers[INDEX]
        same = path.is_file() and path.stat().st_size == len(given) and path.read_bytes() == given
        return given, not same


def _weight_map(index: bytes, path: Path) -> dict[str, str]:
    """The shard of each tensor."""
    try:
        weight_map = strict_json(index).get("weight_map")
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{path} is no sound JSON: {error}.") from error
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InvalidFile(f"{path} has no weight_map from names of tensors to names of files.")
    for shard in weight_map.values():
        # What it names is opened, and perhaps written: nothing outside the folder.
        if shard in ("", ".", "..") or set(shard) & set("/\\\0"):
            raise InvalidFile(f"{path}: {shard[:80]!r} is not the plain name of a file in the folder.")
    return weight_map
