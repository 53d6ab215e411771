"""Headers that another tool wrote, and then a bit of them flipped: no model is lost by that."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import drawn, same_bits
from models import crowd, random_bits
from safetensors import safe_open
from safetensors.torch import save_file
from shard_folders import shards_of
from torch import Tensor

from planaria.checkpoints import StateDict
from planaria.errors import OtherModel
from planaria.guard import Guard, protect

PLAIN = ("digest", "parity")


@dataclass(frozen=True)
class Writing:
    """How a tool writes headers."""

    metadata: dict[str, str] | None
    padding: int = 0  # spaces more than alignment takes
    escaped: bool = False  # names in ASCII alone
    separators: tuple[str, str] = (",", ":")


def rewritten(tensors: dict[str, Tensor], names: Sequence[str], writing: Writing) -> tuple[bytes, bytes]:
    """The header and the data of a file of these tensors in this order."""
    table: dict[str, object] = {"__metadata__": writing.metadata} if writing.metadata else {}
    data = b""
    with StateDict(tensors) as checkpoint:
        for name in names:
            entry, content = checkpoint.entries[name], checkpoint.read(name).tobytes()
            offsets = [len(data), len(data) + len(content)]
            table[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
            data += content
    text = json.dumps(table, separators=writing.separators, ensure_ascii=writing.escaped).encode()
    text += b" " * (-len(text) % 8 + writing.padding)
    return len(text).to_bytes(8, "little") + text, data


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    return found.keys() == tensors.keys() and all(same_bits(found[name], tensors[name]) for name in found)


CASES: dict[str, tuple[dict[str, Tensor], Writing]] = {
    "types": (
        {
            "wide": drawn(40, 40),
            "half": drawn(30, 60, seed=1).half(),
            "codes": random_bits(torch.int8, 7, 9),
            "nothing": torch.zeros(0, 3),
            "one": torch.tensor(3.5),
        },
        Writing({"format": "pt", "by": "another tool, " * 6}),
    ),
    "layers": (
        {f"layer.{index}.w": drawn(30, 30, seed=index) for index in range(8)},
        Writing({"format": "np"}, padding=72, separators=(", ", ": ")),
    ),
    "letters": (
        {f"blöck/{index}": drawn(33, 20 + index, seed=index).bfloat16() for index in range(5)},
        Writing(None, padding=8, escaped=True),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Tensor], Writing, Guard]:
    tensors, writing = CASES[request.param]
    return tensors, writing, protect(tensors, budget=0.25, tiers=PLAIN)


@pytest.mark.parametrize("first", range(4))
def test_whatever_bit_of_another_tools_header_flips_all_weights_come_back(
    first: int, case: tuple[dict[str, Tensor], Writing, Guard], tmp_path: Path
) -> None:
    tensors, writing, of_memory = case
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = of_memory if first == 0 else protect(path, budget=0.25, tiers=PLAIN)
    header, data = rewritten(tensors, list(tensors)[::-1], writing)
    path.write_bytes(header + data)
    assert guard.check(path).verdict == "intact"
    everywhere = [*range(first, 64, 4), *range(64 + 29 * first, 8 * len(header), 4 * 29)]
    for bit in everywhere:
        path.write_bytes(flipped(header, bit) + data)
        assert guard.check(path).exit_code in (0, 1), bit  # 0 where a value of the metadata alone is another
        assert guard.repair(path, in_place=True).exit_code == 0, bit
        assert holds(path, tensors), bit
        assert path.stat().st_size == len(header) + len(data), bit


def test_metadata_are_kept_where_they_can_be_read(
    case: tuple[dict[str, Tensor], Writing, Guard], tmp_path: Path
) -> None:
    tensors, writing, guard = case
    path = tmp_path / "model.safetensors"
    header, data = rewritten(tensors, list(tensors)[::-1], writing)
    first = next(iter(tensors))
    for what in (json.dumps(first, ensure_ascii=writing.escaped).encode(), b'"data_offsets"', b'"dtype"'):
        path.write_bytes(flipped(header, 8 * header.rindex(what) + 1) + data)
        guard.repair(path, in_place=True)
        with safe_open(path, "pt") as file:
            assert file.metadata() == writing.metadata


def test_weights_and_header_may_be_damaged_together(
    case: tuple[dict[str, Tensor], Writing, Guard], tmp_path: Path
) -> None:
    tensors, writing, guard = case
    path = tmp_path / "model.safetensors"
    header, data = rewritten(tensors, list(tensors)[::-1], writing)
    for place in (0, len(data) // 2, len(data) - 9):
        path.write_bytes(flipped(header, 8 * (len(header) // 2)) + data[:place] + bytes(8) + data[place + 8 :])
        assert guard.repair(path, in_place=True).verdict == "exact"
        assert holds(path, tensors)


def test_a_header_that_is_gone_is_laid_where_the_weights_are(tmp_path: Path) -> None:
    tensors, writing = CASES["layers"]
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.1, tiers=PLAIN)
    header, data = rewritten(tensors, list(tensors), writing)
    for gone in (bytes(len(header)), b"\xff" * len(header), header[:8] + bytes(len(header) - 8)):
        path.write_bytes(gone + data)
        assert guard.repair(path, in_place=True).verdict == "exact"
        assert holds(path, tensors)


def test_tensors_of_one_digest_and_shards_are_found_again(tmp_path: Path) -> None:
    tensors = crowd()
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.06, tiers=PLAIN)
    header, data = rewritten(tensors, sorted(tensors), Writing({"by": "x" * 200}))
    for bit in range(3, 8 * len(header), 2999):
        path.write_bytes(flipped(header, bit) + data)
        assert guard.repair(path, in_place=True).exit_code == 0, bit
        assert holds(path, tensors), bit
    shapes = {"a": drawn(40, 40), "b": drawn(30, 60).half(), "c": random_bits(torch.int8, 70, 70)}
    folder = shards_of(tmp_path / "shards", shapes)
    guard = protect(folder, budget=0.1, tiers=PLAIN)
    for number, (name, tensor) in enumerate(shapes.items()):
        shard = folder / f"part-{number}.safetensors"
        header, data = rewritten({name: tensor}, [name], Writing({"by": "y" * 300}))
        for bit in (3, 70, 8 * (len(header) - 20), 8 * (len(header) - 40) + 6):
            shard.write_bytes(flipped(header, bit) + data)
            assert guard.repair(folder, in_place=True).exit_code == 0
            assert holds(shard, {name: tensor})


def test_two_tensors_of_one_shape_written_in_the_other_order_are_intact(tmp_path: Path) -> None:
    tensors = {"layer.a": drawn(40, 40), "layer.c": drawn(40, 40, seed=1)}  # names that are one bit apart
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.1, tiers=PLAIN)
    header, data = rewritten(tensors, ["layer.c", "layer.a"], Writing(None))
    path.write_bytes(header + data)
    assert guard.check(path).verdict == "intact"
    assert guard.repair(path, in_place=True).verdict == "intact"
    assert path.read_bytes() == header + data


def test_names_that_somebody_changed_are_still_another_model(tmp_path: Path) -> None:
    tensors = {f"layer.{index}": drawn(30, 30, seed=index) for index in range(4)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    guard = protect(path, budget=0.1, tiers=PLAIN)
    save_file({name.replace("layer", "block"): tensor for name, tensor in tensors.items()}, path)
    for use in (guard.check, partial(guard.repair, in_place=True)):
        with pytest.raises(OtherModel, match="is missing"):
            use(path)
