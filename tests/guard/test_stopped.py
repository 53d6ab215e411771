"""Commands that are asked to stop, what killed ones left, and models that somebody writes meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import drawn
from models import random_bits
from safetensors.torch import save_file
from shard_folders import shards_of
from torch import Tensor

from planaria.checkpoints import write_state_dict
from planaria.errors import InvalidFile, OutputFailed
from planaria.files import temporary_folder, write_atomically
from planaria.guard import Guard, protect

PLAIN = ("digest", "parity")
MODELS: dict[str, dict[str, Tensor]] = {
    "float32": {"wide": drawn(60, 60), "small": drawn(20, 20)},
    "bfloat16": {"wide": drawn(90, 60).bfloat16(), "small": drawn(30, 33).bfloat16()},
    "int8": {"wide": random_bits(torch.int8, 100, 90), "odd": random_bits(torch.int8, 30, 77)},
}

# For each model and its guard, forks a child for each signal and moment, in a process of one thread that has everything
# loaded. Prints how each ended and what it left.
ASKED = """
import os, shutil, signal, sys, time
from pathlib import Path
import torch
from planaria import command_line
from planaria.guard import Guard
from planaria.guard import copies, guard as guarded

torch.set_num_threads(1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
given = [Path(path) for path in sys.argv[1:]]


def run(command, *options):
    sys.argv = ["planaria", command, str(model), "--guard", str(guard), *options]
    try:
        command_line.main()
    except SystemExit as stopped:
        sys.stdout.flush()
        os._exit(stopped.code)  # a child's threads are not there to be waited for


def stopping(where, name, number):
    real = getattr(where, name)

    def call(*arguments, **settings):
        setattr(where, name, real)
        os.kill(os.getpid(), number)
        time.sleep(60)

    setattr(where, name, call)


MOMENTS = ((shutil, "copyfile"), (guarded, "diagnose"), (copies.Copy, "publish"), (os, "fsync"))
for model, guard in zip(given[::2], given[1::2]):
    before = {path.name: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()}
    Guard.load(guard).check(model)
    for number in (signal.SIGTERM, signal.SIGHUP):
        for where, name in MOMENTS:
            child = os.fork()
            if not child:
                stopping(where, name, number)
                run("repair", "--in-place")
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            after = {path.name: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()}
            print(number.name, name, code, before == after)
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGHUP)
    run("check")
print("ignored", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_command_that_is_asked_to_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    paths = []
    for kind, sharded in (("float32", False), ("bfloat16", True), ("int8", False)):
        tensors = MODELS[kind]
        (tmp_path / kind).mkdir()
        folder = shards_of(tmp_path / kind / "box", tensors)
        guard = protect(folder if sharded else tensors, budget=0.2, tiers=PLAIN)
        guard.save(tmp_path / kind / "guard")
        model = folder
        if not sharded:
            model = folder / "model.safetensors"
            save_file(tensors, model)
        file = folder / "part-0.safetensors" if sharded else model
        content = file.read_bytes()
        file.write_bytes(content[:-60] + bytes(20) + content[-40:])
        paths += [model, tmp_path / kind / "guard"]
    done = subprocess.run([sys.executable, "-c", ASKED, *paths], capture_output=True, text=True, timeout=300)
    *asked, ignored = [line.split() for line in done.stdout.splitlines() if line.startswith(("SIG", "ignored"))]
    assert len(asked) == 3 * 8, done.stderr
    codes = {"SIGTERM": "143", "SIGHUP": "129"}
    assert all(line[2:] == [codes[line[0]], "True"] for line in asked), asked
    assert ignored == ["ignored", "1"]
    assert "Traceback" not in done.stderr and done.stderr.count("planaria: stopped by SIGTERM\n") == 3 * 4


WRITES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: write_atomically(path, b"new"),
    "tensors": lambda path: write_state_dict(path, {"w": drawn(3)}),
    "repair": lambda path: protect(MODELS["int8"], budget=0.2, tiers=PLAIN).repair(path, in_place=True),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("name", ["model.safetensors", "m" * 200 + ".safetensors", "mödel-ß.safetensors"])
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(what: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file({**MODELS["int8"], "odd": MODELS["int8"]["odd"] + 1}, path)
    killed = (
        "import os, sys; from pathlib import Path; from planaria.files import temporary_folder\n"
        "with temporary_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'part').write_bytes(bytes(999)); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, path], timeout=100, check=False)
    (left,) = [one for one in tmp_path.iterdir() if one != path]
    assert left.name.startswith(".") and ".planaria-" in left.name and (left / "part").is_file()
    with temporary_folder(path) as used, temporary_folder(tmp_path / "other") as others:
        (used / "part").write_bytes(b"mine")
        assert not left.exists()
        (tmp_path / (used.name + "-x")).write_bytes(b"a file and no folder")
        WRITES[what](path)
        assert (used / "part").read_bytes() == b"mine" and others.is_dir()
    assert {one.name for one in tmp_path.iterdir()} == {name, used.name + "-x"}


def test_threads_that_write_one_output_never_take_one_anothers_folder(tmp_path: Path) -> None:
    path, failed = tmp_path / "out", []

    def write(number: int) -> None:
        try:
            for _ in range(40):
                write_atomically(path, bytes([number]) * 1000)
        except OutputFailed as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set(path.read_bytes())) == 1 and [one.name for one in tmp_path.iterdir()] == ["out"]


# --- Models that somebody writes meanwhile ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("form", ["safetensors", "shards", "truncated", "pt"])
def test_a_check_of_a_model_that_is_being_written_says_to_check_again(
    form: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = MODELS[kind]
    path = tmp_path / f"model.{form}"
    if form == "shards":
        path = shards_of(tmp_path / "model", tensors)
        file = path / "part-0.safetensors"
    elif form == "pt":
        file = path
        torch.save(tensors, path)
    else:
        path = file = tmp_path / "model.safetensors"
        save_file(tensors, path)
    guard = protect(path, budget=0.2, tiers=PLAIN)
    whole = file.read_bytes()
    middle = len(whole) // 2
    broken = whole[:middle] + (b"" if form in ("truncated", "pt") else bytes(99) + whole[middle + 99 :])
    file.write_bytes(broken)

    def write(*arguments: object) -> None:
        file.write_bytes(broken)

    def load(*arguments: object, **settings: object) -> None:
        write()
        raise RuntimeError("half of an archive")

    if form == "pt":  # it is not looked at after it was loaded
        monkeypatch.setattr(torch, "load", load)
        with pytest.raises(InvalidFile, match="changed while it was read: check it again"):
            guard.check(path)
    else:
        with pytest.raises(InvalidFile, match=r"changed while it was read: check it again"):
            guard.check(path, progress=write)
    monkeypatch.undo()
    file.write_bytes(whole)
    assert guard.check(path).verdict == "intact"


def test_an_intact_model_that_is_only_touched_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(MODELS["float32"], path)
    guard: Guard = protect(path, budget=0.2, tiers=PLAIN)
    assert guard.check(path, progress=lambda *_: path.touch()).verdict == "intact"


def test_a_pt_file_that_is_written_during_its_repair_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({**MODELS["float32"], "small": drawn(20, 20, seed=1)}, path)
    guard = protect(MODELS["float32"], budget=0.5, tiers=PLAIN)
    with pytest.raises(OutputFailed, match="changed while"):
        guard.repair(path, progress=lambda *_: path.write_bytes(b"somebody's"), in_place=True)
    assert path.read_bytes() == b"somebody's"
