"""Files whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.errors import OutputFailed
from planaria.files import make_folder, write_atomically


@given(contents=st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_a_file_holds_what_was_written_last_and_nothing_else_is_left(contents: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for content in contents:
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir", "scandir"])
def test_a_failure_at_any_point_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def fail(*arguments: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"planaria.files.os.{call}", fail)
    with pytest.raises(OutputFailed, match=r"result\.json: No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def failing_on_folders(number: int, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Lets the flush of a folder fail with that error; of each flush, remembers whether it was one of a folder."""
    flushed, fsync = [], os.fsync

    def call(descriptor: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if flushed[-1]:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr("planaria.files.os.fsync", call)
    return flushed


def test_a_folder_that_fails_to_last_is_told_once_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = failing_on_folders(errno.EIO, monkeypatch)
    with pytest.raises(OutputFailed, match="is written, but may not outlast a loss of power"):
        write_atomically(tmp_path / "result.json", b"new")
    assert (tmp_path / "result.json").read_bytes() == b"new" and flushed == [False, True]


def test_a_file_system_that_flushes_no_folders_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_on_folders(errno.EINVAL, monkeypatch)
    write_atomically(tmp_path / "result.json", b"new")
    assert (tmp_path / "result.json").read_bytes() == b"new"


def test_an_interruption_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planaria.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_and_a_folder_in_the_way_are_failures(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match="Cannot write"):
        write_atomically(tmp_path / "nowhere" / "result.json", b"")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputFailed, match="Cannot write"):
        write_atomically(tmp_path / "taken", b"")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_the_permissions_that_the_user_asks_of_new_files(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "result.json", b"")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o666 & ~mask


def test_folders_are_made_with_those_above_and_may_exist(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    assert make_folder(folder) == folder == make_folder(str(folder))
    assert folder.is_dir()


def test_a_file_where_a_folder_should_be_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputFailed, match="Cannot make the folder"):
            make_folder(wrong)
