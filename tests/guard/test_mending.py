"""A guard that broke is written anew as it was; and a guard that is not the key's is not trusted."""

import stat
from pathlib import Path

import numpy as np
import pytest
from models import KEY, PLAIN, crowd, gaussian, scattered, smooth, struck

from planaria.errors import InvalidGuard, InvalidInput, UntrustedGuard
from planaria.guard import Guard, container, protect

OTHER = bytes(range(1, 33))
MADE = [(gaussian, None), (crowd, None), (smooth, KEY)]
CONTENTS: dict[str, bytes] = {}


@pytest.fixture(params=MADE, ids=lambda made: f"{made[0].__name__} {'keyed' if made[1] else 'unkeyed'}")
def made(request: pytest.FixtureRequest) -> tuple[bytes, bytes | None]:
    """A guard's file and its key."""
    model, key = request.param
    if model.__name__ not in CONTENTS:
        CONTENTS[model.__name__] = protect(model(), budget=0.1, tiers=PLAIN, key=key).to_bytes()
    return CONTENTS[model.__name__], key


def width_of(content: bytes) -> int:
    return container.geometry(len(content))[0]


@pytest.mark.parametrize("share", [0.0005, 0.003, 0.008])
def test_loading_and_saving_mends_to_the_byte(made: tuple[bytes, bytes | None], share: float, tmp_path: Path) -> None:
    content, key = made
    (tmp_path / "guard").write_bytes(struck(content, scattered(max(1, int(share * len(content))), len(content))))
    guard = Guard.load(tmp_path / "guard", key=key)
    assert guard.mended > 0
    guard.save(tmp_path / "guard")
    assert (tmp_path / "guard").read_bytes() == content
    assert Guard.load(tmp_path / "guard", key=key).mended == 0


def test_what_is_lost_is_not_written_away(made: tuple[bytes, bytes | None], tmp_path: Path) -> None:
    content, key = made
    tiers = container.unpack(content, key=key).arrays
    at = content.index(tiers["parity"].tobytes())
    broken = struck(content, slice(at, at + tiers["parity"].nbytes))
    guard = Guard.from_bytes(broken, key=key)
    assert guard.lost == ("parity",)
    (tmp_path / "guard").write_bytes(broken)
    with pytest.raises(InvalidGuard, match="parity"):
        guard.save(tmp_path / "guard")
    with pytest.raises(InvalidGuard, match="Use another copy"):
        guard.to_bytes()
    assert (tmp_path / "guard").read_bytes() == broken and [path.name for path in tmp_path.iterdir()] == ["guard"]


def test_a_guards_own_parity_that_is_gone_is_told_and_made_anew(made: tuple[bytes, bytes | None]) -> None:
    """All that it protects is proven whole, and the next broken byte would have stayed."""
    content, key = made
    width, check = container.geometry(len(content))
    guard = Guard.from_bytes(struck(content, slice(len(content) - 2 * width * check, None)), key=key)
    assert guard.mended > 0 and guard.lost == ()
    assert guard.to_bytes() == content


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_guard_keeps_its_permissions_and_its_link(
    made: tuple[bytes, bytes | None], mode: int, tmp_path: Path
) -> None:
    content, key = made
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real", tmp_path / "guard"
    real.write_bytes(struck(content, np.array([len(content) // 2])))
    real.chmod(mode)
    link.symlink_to(real)
    Guard.load(link, key=key).save(link)
    assert link.is_symlink() and real.read_bytes() == content
    assert stat.S_IMODE(real.stat().st_mode) == mode


@pytest.mark.parametrize("given", [OTHER, bytes(32), b"\xff" * 32])
def test_a_guard_that_is_not_the_keys_is_not_trusted(
    made: tuple[bytes, bytes | None], given: bytes, tmp_path: Path
) -> None:
    content, key = made
    (tmp_path / "guard").write_bytes(content)
    told = "with another key" if key else "without a key"
    for load in (lambda: Guard.from_bytes(content, key=given), lambda: Guard.load(tmp_path / "guard", key=given)):
        with pytest.raises(UntrustedGuard, match=f"made {told}.* may have been put in the place"):
            load()
    if key:
        with pytest.raises(InvalidInput, match="key=KEY"):
            Guard.from_bytes(content)
