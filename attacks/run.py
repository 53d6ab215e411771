"""Makes hostile files of every kind and says what became of each: `python attacks/run.py [files of each kind]`.

One line a file: `refused` with the message that a user sees, `harmless` with what the repair said, or `NOT STOPPED`,
for what README.md says that nothing stops. Exit code 1 if anything else happens.
"""

import resource
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hostile_guards as hostile
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from planaria.guard import Guard, protect

ROOM = 2 * 2**30  # bytes of addresses that all attacks together may take beyond those of the libraries
KEY, OTHER_KEY = bytes(range(32)), bytes(32)


def main() -> None:
    """Runs all attacks."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    torch.set_num_threads(1)
    plain, ruled = hostile.good_guard(), hostile.good_guard(rule=True)
    hostile.outcome(ruled.to_bytes(), hostile.damaged(2))  # what is compiled or loaded on first use is no attack's
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, -1))
    bad = 0
    for seed in range(count):
        guard, victim = (ruled, plain)[seed % 2], hostile.damaged(seed % 3)
        files = [(name, make(guard.to_bytes(), np.random.default_rng(seed))) for name, make in hostile.RAW.items()]
        files += [
            (name, hostile.forge(ruled if "rule" in name else guard, make, seed))
            for name, make in hostile.FORGED.items()
        ]
        bad += sum(_tell(name, partial(hostile.outcome, content, victim)) for name, content in files)
    with tempfile.TemporaryDirectory() as folder:
        bad += _on_disk(Path(folder), count) + _keys(Path(folder))
    print(f"{bad} misbehaved")
    sys.exit(bad > 0)


def _tell(name: str, attack: Callable[[], str]) -> int:
    """Prints what came of it; 1 if it should not have."""
    try:
        print(f"{name}: {' '.join(attack().split())}"[:300])
    except hostile.Misbehaved as error:
        print(f"{name}: MISBEHAVED: {error}")
        return 1
    return 0


def _on_disk(folder: Path, count: int) -> int:
    """Models with hostile headers against an honest guard, and guards whose names of files lead out of the folder."""
    bad = 0
    path, output = folder / "model.safetensors", folder / "repaired.safetensors"
    save_file(hostile.model(), path)
    content, guard = path.read_bytes(), hostile.good_guard(path)
    for seed in range(count):
        path.write_bytes(hostile.rewrite_the_header(content, np.random.default_rng(seed)))
        bad += _tell("a model with a hostile header", partial(hostile.outcome_on_disk, guard, path, output))
    shards = hostile.write_shards(folder / "in" / "shards")
    guard = hostile.good_guard(shards)
    (folder / "secret").write_text("not yours")
    (folder / "out").mkdir()
    for name in hostile.OUTSIDE:

        def attack(name: str = name) -> str:
            try:
                forged = hostile.with_a_shard_called(guard, name)
            except hostile.PlanariaError as error:
                return f"refused: {hostile.one_line(error)}"
            return hostile.outcome_on_disk(forged, shards, folder / "out" / "repaired")

        bad += _tell(f"a shard called {name[:40]!r}", attack)
    return bad


def _keys(folder: Path) -> int:
    """What a key stops and what nothing stops, told apart by whether a repair puts the attacker's weights in place."""
    evil = hostile.model()
    evil["matrix"][0, 0] = 9.0
    fingerprint = hostile.good_guard(key=KEY).manifest.key  # stands in the victim's guard for all to read
    attempts = {
        "a guard of other weights where there is no key": (_guard_of(evil), None),
        "a guard without a key where there is one": (_guard_of(evil), KEY),
        "a guard with another key": (_guard_of(evil, key=bytes(32)), KEY),
        "a guard without a key that says it has the victim's": (_guard_of(evil, fingerprint=fingerprint), KEY),
        "a guard with the stolen key": (_guard_of(evil, key=KEY), KEY),
    }
    bad = 0
    for name, (content, key) in attempts.items():

        def attack(content: bytes = content, key: bytes | None = key) -> str:
            answer = hostile.outcome(content, hostile.model(), key=key)
            if answer.startswith("refused"):
                return answer
            save_file(hostile.model(), folder / "victim.safetensors")
            Guard.from_bytes(content, key=key).repair(folder / "victim.safetensors", in_place=True)
            planted = torch.equal(load_file(folder / "victim.safetensors")["matrix"], evil["matrix"])
            return f"{'NOT STOPPED' if planted else 'harmless'}: {answer}"

        bad += _tell(name, attack)
    return bad


def _guard_of(weights: dict[str, torch.Tensor], *, key: bytes | None = None, fingerprint: str = "") -> bytes:
    """A guard as anyone can make it of weights of their own; without a key it can claim any fingerprint."""
    guard = protect(weights, budget=0.2, tiers=("digest", "parity"), key=key)
    return hostile.forge(guard, lambda tiers, fields, draw: fields.update(key=fingerprint or guard.manifest.key))


if __name__ == "__main__":
    main()
