"""What repairs leave behind when the world around them fails: a full disk, a kill, a neighbour, a link, a pipe."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import drawn, same_bits
from safetensors.torch import load_file, save_file
from shard_folders import INDEX, shards_of

from planaria.errors import InvalidFile, InvalidGuard, InvalidInput, OtherModel, OutputFailed, PlanariaError
from planaria.files import write_atomically
from planaria.guard import Guard, protect
from planaria.guard.manifest import VERSION

TENSORS = {"wide": drawn(96, 100), "half": drawn(50, 60, seed=1).half(), "scale": 1 + 0.01 * drawn(77, seed=2)}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    path = tmp_path_factory.mktemp("intact") / "model.safetensors"
    save_file(TENSORS, path)
    return protect(path, budget=0.05, tiers=("digest", "parity"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A damaged model, alone in its folder; the damage is within the parity."""
    folder = tmp_path / "box"
    folder.mkdir()
    broken = {name: tensor.clone() for name, tensor in TENSORS.items()}
    broken["wide"][5, :9] = 7
    save_file(broken, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "model.safetensors"
    save_file(TENSORS, path)
    return path.read_bytes()


def tree(folder: Path) -> dict[str, object]:
    """All that a folder holds, with contents and times, links as links."""
    return {
        str(path.relative_to(folder)): (
            path.readlink()
            if path.is_symlink()
            else (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        )
        for path in folder.rglob("*")
        if not (path.is_dir() and not path.is_symlink())
    }


@pytest.fixture
def untouched(path: Path) -> Iterator[None]:
    """The test leaves the folder of the damaged model as it was: the model, and nothing else."""
    before = tree(path.parent)
    yield
    assert tree(path.parent) == before and path.name in before


# --- Writes that fail ------------------------------------------------------------------------------------------------


def failing(real: Callable[..., object], number: int, code: int = errno.ENOSPC) -> Callable[..., object]:
    """The function, whose `number`-th call fails as on a full disk."""
    calls = 0

    def call(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return call


def refusal(action: Callable[[], object]) -> str | None:
    try:
        action()
    except OutputFailed as error:
        return str(error)
    return None


WRITES = ["tempfile.mkdtemp", "shutil.copyfile", "os.pwrite", "os.fsync", "os.replace", "shutil.copymode"]


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_disk_that_fails_at_any_write_leaves_the_model_and_nothing_else(
    name: str, in_place: bool, path: Path, guard: Guard, untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, function = name.split(".")
    monkeypatch.setattr(name, failing(getattr(sys.modules[module], function), 1))
    with pytest.raises(OutputFailed, match="No space left on device") as caught:
        guard.repair(path, None if in_place else path.with_name("out.safetensors"), in_place=in_place)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["shutil.copyfile", "os.pwrite", "os.fsync", "os.rename"])
def test_a_disk_that_fails_at_any_shard_leaves_no_new_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of(tmp_path / "shards", TENSORS)
    guard = protect(shards, budget=0.2, tiers=("digest", "parity"))
    broken = {name: tensor.clone() for name, tensor in TENSORS.items()}
    broken["half"][0, 0] = 9
    save_file({"half": broken["half"]}, shards / "part-1.safetensors")
    before = tree(tmp_path)
    module, function = name.split(".")
    real, number = getattr(sys.modules[module], function), 1
    while True:  # the next call fails each time, until all succeed
        with monkeypatch.context() as patch:
            patch.setattr(name, failing(real, number))
            message = refusal(lambda: guard.repair(shards, tmp_path / "out"))
        if message is None:
            break
        if message.startswith(f"{tmp_path / 'out'} is written"):  # all but the last flush succeeded
            shutil.rmtree(tmp_path / "out")
        assert tree(tmp_path) == before
        number += 1
    assert number > 1
    assert same_bits(load_file(tmp_path / "out" / "part-1.safetensors")["half"], TENSORS["half"])
    assert {path.name for path in tmp_path.iterdir()} == {"shards", "out"}
    assert (tmp_path / "out" / "config.json").read_text() == "{}"


LIMITED = """
import resource, sys
from planaria.errors import OutputFailed
from planaria.guard import Guard
folder = sys.argv[1]
guard = Guard.load(folder + "/guard")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for model in sys.argv[2:]:
    try:
        guard.repair(model, in_place=True)
    except OutputFailed as error:
        print("failed:", error)
"""


def test_a_real_limit_of_file_sizes_leaves_the_models_and_nothing_else(path: Path, guard: Guard) -> None:
    guard.save(path.parent / "guard")
    archive = path.with_name("model.pt")
    torch.save(load_file(path), archive)
    before = tree(path.parent)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path.parent, path, archive], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.count("failed: "), done.stderr) == (0, 2, "")
    assert len(done.stdout.splitlines()) == 2
    assert tree(path.parent) == before


def test_a_folder_that_is_read_only_gets_no_repair(
    path: Path, guard: Guard, untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.chmod(0o555)
    if os.access(path.parent, os.W_OK):  # permissions do not bind the superuser
        monkeypatch.setattr(tempfile, "mkdtemp", failing(tempfile.mkdtemp, 1, errno.EACCES))
    try:
        with pytest.raises(OutputFailed, match="Permission denied"):
            guard.repair(path, in_place=True)
    finally:
        path.parent.chmod(0o755)


def test_an_interrupt_at_any_moment_leaves_the_model_and_nothing_else(
    path: Path, guard: Guard, untouched: None
) -> None:
    calls: list[str] = []
    guard.repair(load_file(path), progress=lambda done, total, what: calls.append(what))
    for number in range(len(calls)):
        with pytest.raises(KeyboardInterrupt):
            guard.repair(path, progress=progress_at(number), in_place=True)
    assert len(calls) > 3


def progress_at(number: int) -> Callable[[int, int, str], None]:
    """Interrupts at its `number`-th call."""
    calls = iter(range(number))

    def progress(done: int, total: int, what: str) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_repair_in_memory_changes_nothing(path: Path, guard: Guard) -> None:
    model = load_file(path)
    for number in range(4):
        with pytest.raises(KeyboardInterrupt):
            guard.repair(model, progress=progress_at(number), in_place=True)
    assert all(same_bits(tensor, model[name]) for name, tensor in load_file(path).items())


# --- Kills and neighbours --------------------------------------------------------------------------------------------

# Forks a child for each repair, in a process of one thread that has everything loaded: `repair(k)` is killed before or
# after its k-th call that changes a file, `repair(seconds)` after that long. Prints how each ended and what it left.
KILLED = """
import os, shutil, signal, sys, time
from pathlib import Path
import torch
from safetensors.torch import load_file
from planaria.errors import OutputFailed
from planaria.guard import Guard

torch.set_num_threads(1)
folder = Path(sys.argv[1])
model, output = folder / "model.safetensors", folder / "out.safetensors"
guard = Guard.load(folder / "guard")
guard.repair(load_file(model), threads=1)
old, new = model.read_bytes(), (folder / "intact").read_bytes()
names = {"model.safetensors", "out.safetensors", "guard", "intact"}


def start(target=None, moment=None):
    child = os.fork()
    if child:
        return child
    calls = 0

    def killing(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = real(*args, **kwargs)
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        return call

    for name in ("fsync", "replace", "rename", "pwrite", "ftruncate", "unlink", "rmdir"):
        setattr(os, name, killing(getattr(os, name)))
    shutil.copyfile = killing(shutil.copyfile)
    shutil.copymode = killing(shutil.copymode)
    try:
        guard.repair(model, target, in_place=target is None, threads=1)
    except OutputFailed:
        os._exit(6)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(path):
    content = path.read_bytes() if path.exists() else None
    return {old: "old", new: "new", None: "none"}.get(content, "broken")


def leftovers():
    found = [path for path in folder.iterdir() if path.name not in names]
    for path in found:
        shutil.rmtree(path)
    return len(found)


def reset():
    output.unlink(missing_ok=True)
    model.write_bytes(old)


began = time.monotonic()
end(start())
whole = time.monotonic() - began
print("finished", 0, state(model), leftovers())
for target in (None, output):
    moment, code = 0, -9
    while code == -9:
        moment += 1
        reset()
        code = end(start(target, moment))
        print("moment", code, state(model), state(output), leftovers())
for delay in torch.rand(15, generator=torch.Generator().manual_seed(0)).tolist():
    reset()
    child = start()
    time.sleep(1.2 * whole * delay)
    os.kill(child, signal.SIGKILL)
    print("delay", end(child), state(model), state(output), leftovers())
for target in (None, output):
    for _ in range(4):
        reset()
        codes = [end(child) for child in [start(target), start(target)]]
        print("two", *codes, state(model), state(output), leftovers())
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """How killed and simultaneous repairs of a model of 1 MB ended."""
    folder = tmp_path_factory.mktemp("killed")
    tensors = {"wide": drawn(300, 300)}
    save_file(tensors, folder / "intact")
    protect(tensors, budget=0.02, tiers=("digest", "parity")).save(folder / "guard")
    tensors["wide"][100, :5] = 5
    save_file(tensors, folder / "model.safetensors")
    done = subprocess.run([sys.executable, "-c", KILLED, folder], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def test_a_repair_killed_before_or_after_any_write_leaves_the_old_file_or_the_new_one(killed: list[list[str]]) -> None:
    ends = [tuple(line[1:4]) for line in killed if line[0] == "moment"]
    assert ends.count(("0", "new", "none")) == ends.count(("0", "old", "new")) == 1
    assert set(ends) == {
        ("-9", "old", "none"),
        ("-9", "new", "none"),
        ("-9", "old", "new"),
        ("0", "new", "none"),
        ("0", "old", "new"),
    }
    assert len(ends) > 20


def test_a_repair_killed_after_any_time_leaves_the_old_file_or_the_new_one(killed: list[list[str]]) -> None:
    ends = [line[1:4] for line in killed if line[0] == "delay"]
    assert len(ends) == 15
    assert all(model in ("old", "new") and output == "none" for _, model, output in ends)
    assert any(code == "-9" for code, _, _ in ends)


def test_two_repairs_at_once_end_with_a_whole_and_right_file(killed: list[list[str]]) -> None:
    ends = [line[1:] for line in killed if line[0] == "two"]
    assert len(ends) == 8
    for number, (one, other, model, output, leftovers) in enumerate(ends):
        # The second to finish may find the model changed, and then leaves it.
        assert {one, other} <= {"0", "6"} and "0" in (one, other)
        assert (model, output) == (("new", "none") if number < 4 else ("old", "new"))
        assert leftovers == "0"


def test_only_a_kill_leaves_a_temporary_file_behind(killed: list[list[str]]) -> None:
    assert all(line[-1] == "0" for line in killed if "-9" not in line)
    assert any(line[-1] == "1" for line in killed if "-9" in line)
    assert all(line[-1] in ("0", "1") for line in killed)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_model_that_changes_under_a_repair_is_left_alone(in_place: bool, path: Path, guard: Guard) -> None:
    changed = path.read_bytes()[:-1] + b"\0"

    def write(done: int, total: int, what: str) -> None:
        path.write_bytes(changed)

    with pytest.raises(OutputFailed, match="changed while"):
        guard.repair(path, None if in_place else path.with_name("out.safetensors"), progress=write, in_place=in_place)
    assert path.read_bytes() == changed
    assert list(path.parent.iterdir()) == [path]


def test_a_model_that_goes_away_under_a_repair_stays_away(path: Path, guard: Guard) -> None:
    with pytest.raises(OutputFailed, match="changed while"):
        guard.repair(path, progress=lambda *_: path.unlink(missing_ok=True), in_place=True)
    assert list(path.parent.iterdir()) == []


# --- Links, pipes, folders -------------------------------------------------------------------------------------------


def test_a_pipe_in_the_outputs_place_is_replaced_and_nobody_waits_for_it(
    path: Path, guard: Guard, intact: bytes
) -> None:
    pipe = path.with_name("out.safetensors")
    os.mkfifo(pipe)
    guard.repair(path, pipe)
    assert pipe.is_file() and pipe.read_bytes() == intact


@pytest.mark.parametrize("place", ["folder", "missing/out.safetensors"])
def test_an_output_that_cannot_be_a_file_is_refused(place: str, path: Path, guard: Guard) -> None:
    (path.parent / "folder").mkdir()
    before = tree(path.parent)
    with pytest.raises((InvalidInput, OutputFailed), match=r"is a folder|No such file"):
        guard.repair(path, path.parent / place)
    assert tree(path.parent) == before


def test_an_output_folder_that_exists_is_refused_even_as_a_link_to_nowhere(tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "shards", TENSORS)
    guard = protect(shards, budget=0.2, tiers=("digest", "parity"))
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for name in ("there", "link"):
        with pytest.raises(InvalidInput, match="exists"):
            guard.repair(shards, tmp_path / name)
    assert tree(tmp_path) == before and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "shard"])
def test_a_model_that_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path, guard: Guard) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")  # endless
    elif kind == "folder":
        (path / INDEX).mkdir(parents=True)
    else:
        path = shards_of(tmp_path / "shards", TENSORS)
        guard = protect(path, budget=0.2, tiers=("digest", "parity"))
        (path / "part-1.safetensors").unlink()
        os.mkfifo(path / "part-1.safetensors")
    before, output = sorted(tmp_path.rglob("*")), tmp_path / "out.safetensors"
    for use in (guard.check, partial(guard.repair, in_place=True), partial(guard.repair, output=output), protect):
        with pytest.raises((PlanariaError, FileNotFoundError), match=r"not a regular file|There is no file"):
            use(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_model_is_named_as_the_user_named_it(tmp_path: Path, guard: Guard) -> None:
    for use in (guard.check, partial(guard.repair, in_place=True)):
        with pytest.raises(FileNotFoundError, match=str(tmp_path / "gone.safetensors")):
            use(tmp_path / "gone.safetensors")
    shards = shards_of(tmp_path / "shards", TENSORS)
    of_shards = protect(shards, budget=0.2, tiers=("digest", "parity"))
    for number in range(3):
        (shards / f"part-{number}.safetensors").unlink()
    for use in (of_shards.check, partial(of_shards.repair, in_place=True)):
        with pytest.raises(FileNotFoundError, match=str(shards / "part-0.safetensors")):
            use(shards)
    assert {path.name for path in tmp_path.iterdir()} == {"shards"}


def test_a_guard_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "guard")
    with pytest.raises((InvalidFile, FileNotFoundError)):
        Guard.load(tmp_path / "guard")


# --- Models that are not the guard's ---------------------------------------------------------------------------------


def test_other_shapes_names_or_types_are_refused_and_nothing_is_written(
    path: Path, guard: Guard, untouched: None, tmp_path: Path
) -> None:
    others = [
        {**TENSORS, "wide": drawn(100, 96)},
        {**TENSORS, "more": drawn(3)},
        {"wide": TENSORS["wide"]},
        {**TENSORS, "half": TENSORS["half"].bfloat16()},
        {name + "s": tensor for name, tensor in TENSORS.items()},
        {"empty": torch.zeros(0)},
        {},
    ]
    for other in others:
        save_file(other, tmp_path / "other.safetensors")
        before = (tmp_path / "other.safetensors").read_bytes()
        for model in (other, tmp_path / "other.safetensors"):
            for use in (guard.check, partial(guard.repair, in_place=True)):
                with pytest.raises(OtherModel):
                    use(model)
        assert (tmp_path / "other.safetensors").read_bytes() == before


def test_a_model_without_weights_has_no_guard(tmp_path: Path) -> None:
    for empty in ({}, {"nothing": torch.zeros(0)}, {"one": torch.zeros(0, 3), "other": torch.zeros(2, 0, 5)}):
        save_file(empty, tmp_path / "empty.safetensors")
        for model in (empty, tmp_path / "empty.safetensors"):
            with pytest.raises(InvalidInput, match="nothing to protect"):
                protect(model)


def test_tensors_of_no_weights_come_through_a_repair(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(0), "wide": drawn(90, 90), "b": torch.zeros(2, 0, 5).half(), "c": torch.tensor(1.5)}
    save_file(tensors, tmp_path / "model.safetensors")
    guard = protect(tmp_path / "model.safetensors", budget=0.1, tiers=("digest", "parity"))
    intact = (tmp_path / "model.safetensors").read_bytes()
    save_file({**tensors, "c": torch.tensor(2.5)}, tmp_path / "model.safetensors")
    assert guard.repair(tmp_path / "model.safetensors", in_place=True).verdict == "exact"
    assert (tmp_path / "model.safetensors").read_bytes() == intact


def test_a_newer_guard_says_that_a_newer_planaria_is_needed(guard: Guard) -> None:
    newer = replace(guard.manifest, version=VERSION + 1)
    content = replace(guard, arrays={**guard.arrays, "manifest": newer.encode()}).to_bytes()
    with pytest.raises(InvalidGuard, match=r"format .*Install a newer"):
        Guard.from_bytes(content)


# --- Lengths, and what a check leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [b"", b"junk", bytes(1000)])
def test_a_file_of_another_length_is_damaged_and_gets_its_length_back(change: bytes, tmp_path: Path) -> None:
    tensors = {"wide": drawn(90, 90), "zeros": torch.zeros(900)}  # what is cut off was zero, and reads as zero
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.1, tiers=("digest", "parity"))
    intact = path.read_bytes()
    path.write_bytes(intact + change if change else intact[:-100])
    report = guard.check(path)
    assert (report.header_damaged, report.verdict, report.exit_code) == (True, "exact", 1)
    guard.repair(path, in_place=True)
    assert path.read_bytes() == intact


def test_a_file_saved_again_with_other_metadata_loses_nothing_in_a_repair(path: Path, guard: Guard) -> None:
    save_file({**TENSORS, "wide": load_file(path)["wide"]}, path, metadata={"by": "x" * 3000})
    length = path.stat().st_size
    assert guard.repair(path, in_place=True).verdict == "exact"
    assert path.stat().st_size == length
    assert all(same_bits(tensor, TENSORS[name]) for name, tensor in load_file(path).items())


@pytest.mark.parametrize("sharded", [False, True])
def test_a_check_of_what_may_only_be_read_changes_nothing_and_writes_nothing(
    sharded: bool, path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = path
    if sharded:
        model = shards_of(path.parent / "shards", TENSORS)
        guard = protect(model, budget=0.2, tiers=("digest", "parity"))
        (model / INDEX).write_text("broken")
        np.memmap(model / "part-0.safetensors", np.uint8, "r+")[-9:] = 255
    for file in path.parent.rglob("*"):
        file.chmod(0o555 if file.is_dir() else 0o444)
    before = tree(path.parent)
    for name in ("os.pwrite", "os.replace", "os.rename", "os.ftruncate", "os.truncate", "tempfile.mkdtemp"):
        monkeypatch.setattr(name, failing(os.pwrite, 1, errno.EROFS))
    assert guard.check(model).verdict == "exact"
    assert tree(path.parent) == before


def test_a_repair_of_an_intact_file_in_place_does_not_touch_it(path: Path, guard: Guard, intact: bytes) -> None:
    path.write_bytes(intact)
    before = tree(path.parent)
    inode = path.stat().st_ino
    assert guard.repair(path, in_place=True).verdict == "intact"
    assert tree(path.parent) == before and path.stat().st_ino == inode


def test_a_repaired_file_keeps_its_permissions(path: Path, guard: Guard) -> None:
    path.chmod(0o640)
    guard.repair(path, in_place=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_guard_that_cannot_be_saved_leaves_the_old_one(
    path: Path, guard: Guard, untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.save(path.with_name("guard"))
    before = path.with_name("guard").read_bytes()
    for name in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(name, failing(getattr(os, name[3:]), 1))
            with pytest.raises(OutputFailed):
                write_atomically(path.with_name("guard"), b"other")
    assert path.with_name("guard").read_bytes() == before
    path.with_name("guard").unlink()
