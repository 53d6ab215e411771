"""Damage of what holds a .pt file together, which no guard mends: told in one line, and the file left as it is."""

import sys
from pathlib import Path

import pytest
import torch
from helpers import drawn
from torch import Tensor

from planaria import command_line
from planaria.guard import protect

MODELS: dict[str, dict[str, Tensor]] = {
    "float32": {"wide": drawn(60, 60), "small": drawn(20, 20)},
    "float16": {"wide": drawn(90, 60).half(), "scale": drawn(30)},
    "int8": {"codes": (40 * drawn(100, 90)).to(torch.int8)},
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_flipped_bit_of_directory_or_pickle_is_one_line_or_no_harm(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, guard = tmp_path / "model.pt", tmp_path / "guard"
    torch.save(MODELS[kind], path)
    protect(MODELS[kind], budget=0.2, tiers=("digest", "parity")).save(guard)
    whole = path.read_bytes()
    pickle, directory = whole.index(b"data.pkl"), whole.rindex(b"PK\x01\x02")
    places = [pickle + 64, pickle + 70, pickle + 95, pickle + 120, directory, directory + 20, directory + 44]
    codes, refusals = [], []
    for place in [*places, len(whole) - 2, len(whole) - 18, None]:
        broken = bytearray(whole)
        if place is None:
            del broken[len(whole) // 2 :]
        else:
            broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        for command in (["check", str(path)], ["repair", str(path), "-o", str(tmp_path / "out.pt")]):
            monkeypatch.setattr(sys, "argv", ["planaria", *command, "--guard", str(guard)])
            with pytest.raises(SystemExit) as stopped:
                command_line.main()
            said = capsys.readouterr()
            codes.append(stopped.value.code)
            assert path.read_bytes() == broken and "Traceback" not in said.err
            if stopped.value.code in (0, 1, 2):  # torch never looks at all of it
                continue
            assert said.out == "" and said.err.count("\n") == 1
            assert not (tmp_path / "out.pt").exists()
            if stopped.value.code == 6:
                refusals.append(said.err)
        (tmp_path / "out.pt").unlink(missing_ok=True)
    assert set(codes) <= {0, 1, 2, 5, 6}
    assert len(refusals) > 5
    assert all("is not guarded: fetch it again, and convert it to safetensors" in refusal for refusal in refusals)
