"""Reading a model's files: that they hold still meanwhile, and that they are a model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from planaria.checkpoints import parse_bare_header
from planaria.checkpoints.foreign import foreign, other_format
from planaria.checkpoints.header import INDEX
from planaria.errors import InvalidFile, LooksDifferent, OtherModel
from planaria.files import printable
from planaria.guard.copies import file_states
from planaria.guard.examine import Examination
from planaria.guard.file import GuardFile


@contextmanager
def unchanged_while_read(files: Mapping[str, Path]) -> Iterator[Callable[[], None]]:
    """Where damage is found in a model's files, tells whether they were being written.

    Answers with a function that raises `InvalidFile` if a file has changed since. The same is raised in place of an
    error that says that the files are broken or another model's.
    """
    before = file_states(files)

    def require_unchanged() -> None:
        for name, state in file_states(files).items():
            if state != before[name]:
                raise InvalidFile(
                    f"{printable(files[name])} changed while it was read: check it again when it is whole."
                )

    try:
        yield require_unchanged
    except (InvalidFile, OtherModel, LooksDifferent):
        require_unchanged()
        raise


def require_weights(guard: GuardFile, examination: Examination, files: Mapping[str, Path]) -> None:
    """Raises `InvalidFile` if a file that is not restored exactly holds no weights at all, and says what it is.

    Nothing could be told of its weights but that they are lost, and a sound file of estimates would hide that.
    """
    layout = guard.layout
    if not examination.unproven.any():
        return
    for name, path in files.items():
        if name == INDEX:
            continue
        header = guard.headers[name]
        held = [layout.tiles_of_tensor(layout.index[entry.name]) for entry in parse_bare_header(header).entries]
        tiles = np.concatenate([np.arange(span.start, span.stop) for span in held])
        if not examination.unproven[tiles].any():
            continue
        what = foreign(path, header=len(header))
        if what is None and examination.damaged[tiles].all():
            what = other_format(path)
        if what is not None:
            raise InvalidFile(
                f"{printable(path)} is {what}, not a model, and is lost past what the guard restores exactly: fetch it "
                "again. Nothing was written; force=True estimates its weights."
            )
