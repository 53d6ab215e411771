"""Guards and models as an attacker would make them, and what becomes of whoever uses them.

`RAW` damages the bytes of a guard, most of which its own parity mends. `FORGED` knows the format: it changes what the
tiers say and makes seal and parity anew, as anyone can who has the key or whose victim uses none. All draw what they
need from the generator they are given, so a seed is a file.
"""

import json
import re
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from planaria.checkpoints.header import INDEX
from planaria.codes import ReedSolomon
from planaria.errors import PlanariaError
from planaria.guard import Guard, protect, rules
from planaria.guard.container import geometry, pack
from planaria.guard.headers import unpack_headers
from planaria.guard.manifest import COMPACT
from planaria.streams import generator

SPACE = (8, 8)
SECONDS = 5.0  # that no case may take
Tiers = dict[str, np.ndarray]
Fields = dict[str, Any]


class Misbehaved(Exception):
    """A hostile file did something else than to be refused, or to do no harm."""


def model() -> dict[str, Tensor]:
    """A model of 9 KB with a tensor that a rule fits, halves, whole numbers, one number and none."""
    source = generator(0, "attacked model")
    return {
        "sheets": torch.randn(10, 64, generator=source),
        "matrix": torch.randn(30, 40, generator=source),
        "halves": torch.randn(16, 33, generator=source).half(),
        "scale": 1 + 0.01 * torch.randn(33, generator=source),
        "steps": torch.arange(101, dtype=torch.int8),
        "single": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
    }


def damaged(how: int) -> dict[str, Tensor]:
    """The model, broken so that parity suffices (0), fails in places (1), or has no chance (2)."""
    broken = model()
    broken["matrix"].view(-1)[7] = 77.0
    if how > 0:
        broken["sheets"].view(-1)[:: 40 // how**2] = 77.0
        broken["halves"].view(-1)[:: 20 // how**2] = torch.nan
    if how > 1:
        broken["matrix"].zero_()
        broken["scale"][0] = torch.inf
        broken["steps"].fill_(7)
    return broken


def good_guard(path: Path | None = None, *, key: bytes | None = None, rule: bool = False) -> Guard:
    """An honest guard of the model, in memory or in a file, of 2 or 4 KB; its rule is drawn and not fitted."""
    honest = protect(path or model(), budget=0.2, tiers=("digest", "parity"), key=key)
    if not rule:
        return honest
    numbers = torch.randn(rules.record_bytes("half", SPACE) // 2 - 8, generator=generator(0, "attacker's rule"))
    normalisation = np.array([0, 1, -3, 3], np.float32).tobytes()
    content = normalisation + numbers.mul(0.05).abs().half().numpy().tobytes()
    return Guard.from_bytes(forge(honest, lambda tiers, fields, draw: _add_rule(tiers, fields, content)))


def outcome(content: bytes, victim: Mapping[str, Tensor], *, key: bytes | None = None) -> str:
    """What a guard does to someone who loads it, checks a model in memory and repairs it.

    Raises `Misbehaved` on any other error than planaria's own in one line, a check that changes the model, and after
    `SECONDS`.
    """
    mine = {name: tensor.clone() for name, tensor in victim.items()}
    try:
        with _limited():
            guard = Guard.from_bytes(content, key=key)
            json.dumps([guard.check(mine, threads=1).to_json(), guard.tier_bytes()])
            if not all(_bits(mine[name]) == _bits(tensor) for name, tensor in victim.items()):
                raise Misbehaved("a check changed the model")
            report = guard.repair(mine, threads=1)
            json.dumps(report.to_json())
    except PlanariaError as error:
        return f"refused: {one_line(error)}"
    except Misbehaved:
        raise
    except BaseException as error:
        raise Misbehaved(f"{type(error).__name__}: {error}") from error
    if any(mine[name].shape != tensor.shape or mine[name].dtype != tensor.dtype for name, tensor in victim.items()):
        raise Misbehaved("a repair changed the model's shapes")
    return f"harmless: {report}"


def outcome_on_disk(guard: Guard, path: Path, output: Path) -> str:
    """What a guard makes of a file or folder that is not what it was: it is left alone, and the output can be loaded.

    Raises `Misbehaved` as `outcome` does, and where anything but the output changed in the folders around.
    """
    box = output.parent
    before = _tree(box)
    try:
        with _limited():
            guard.check(path, threads=1)
            report = guard.repair(path, output, threads=1)
            for file in [output] if output.is_file() else output.glob("*.safetensors"):
                load_file(file)
        answer = f"harmless: {report}"
    except PlanariaError as error:
        answer = f"refused: {one_line(error)}"
    except FileNotFoundError as error:
        answer = f"refused: {error}"
    except BaseException as error:
        raise Misbehaved(f"{type(error).__name__}: {error}") from error
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)
    if _tree(box) != before:
        raise Misbehaved(f"{sorted(dict(_tree(box).items() ^ before.items()))} changed")
    return answer


def one_line(error: PlanariaError) -> str:
    """The error's message. Raises `Misbehaved` if that has more than a line."""
    message = str(error)
    if not message or len(message.splitlines()) != 1:
        raise Misbehaved(f"the message is not one line: {message!r}")
    return message


def forge(guard: Guard, change: Callable[[Tiers, Fields, np.random.Generator], bytes | None], seed: int = 0) -> bytes:
    """The guard file after a change of tiers and manifest, sealed anew. A change may answer with another manifest."""
    tiers: Tiers = {name: array.copy() for name, array in guard.arrays.items()}
    fields = json.loads(tiers["manifest"].tobytes())
    text = change(tiers, fields, np.random.default_rng(seed))
    if "manifest" in tiers and tiers["manifest"].tobytes() == guard.arrays["manifest"].tobytes():
        tiers["manifest"] = np.frombuffer(json.dumps(fields).encode() if text is None else text, np.uint8)
    return pack(tiers, key=guard.key, bound=guard.manifest.compact)


def with_new_parity(content: bytes) -> bytes:
    """The file with its last bytes made the parity of all before: nothing will be mended back."""
    width, check = geometry(len(content))
    start = len(content) - width * check * 2
    if start <= 0 or len(content) % 2:
        return content
    symbols = np.frombuffer(content[:start], "<u2")
    rows = np.zeros((-(-len(symbols) // width), width), np.uint16)
    rows.reshape(-1)[: len(symbols)] = symbols
    return content[:start] + ReedSolomon(check).feed(rows).astype("<u2").tobytes()


# --- Bytes -----------------------------------------------------------------------------------------------------------


def flip_bits(content: bytes, draw: np.random.Generator, *, most: int = 300) -> bytes:
    """Some bits, as many as half of the parity stands, or a few times that."""
    array = np.frombuffer(content, np.uint8).copy()
    places = draw.integers(0, len(array) * 8, int(np.exp(draw.uniform(0, np.log(most)))))
    np.bitwise_xor.at(array, places // 8, (1 << places % 8).astype(np.uint8))
    return array.tobytes()


def overwrite_a_run(content: bytes, draw: np.random.Generator) -> bytes:
    """Neighbouring bytes become noise, zero or 255."""
    start, size = int(draw.integers(0, len(content))), int(draw.integers(1, len(content) // 2))
    noise = draw.bytes(size), bytes(size), b"\xff" * size
    return (content[:start] + noise[draw.integers(3)] + content[start + size :])[: len(content)]


def cut_short(content: bytes, draw: np.random.Generator) -> bytes:
    """To any length, 0 included."""
    return content[: draw.integers(0, len(content))]


def append(content: bytes, draw: np.random.Generator) -> bytes:
    """Noise after the end."""
    return content + draw.bytes(int(draw.integers(1, 3000)))


def remove_or_insert(content: bytes, draw: np.random.Generator) -> bytes:
    """A few bytes, so that all after them are elsewhere."""
    start, size = int(draw.integers(0, len(content))), int(draw.integers(1, 40))
    return content[:start] + (content[start + size :] if draw.random() < 0.5 else draw.bytes(size) + content[start:])


def lie_about_the_header(content: bytes, draw: np.random.Generator) -> bytes:
    """Another length of the header, to the largest; the parity agrees."""
    sizes = [0, 1, 2**31, 2**63, 2**64 - 1, 100_000_000, len(content), len(content) - 8, int(draw.integers(0, 3000))]
    return with_new_parity(int(draw.choice(np.array(sizes, np.uint64))).to_bytes(8, "little") + content[8:])


def rewrite_the_header(content: bytes, draw: np.random.Generator) -> bytes:
    """The JSON of a safetensors file: offsets that overlap or run off, types, shapes, names and nesting."""
    length = int.from_bytes(content[:8], "little")
    table, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in table if name != "__metadata__"]
    name = names[draw.integers(len(names))]
    entry, huge = table[name], 2 ** int(draw.integers(20, 70))
    start, stop = entry["data_offsets"]
    changes: list[Callable[[], Any]] = [
        lambda: entry.update(data_offsets=[0, stop]),
        lambda: entry.update(data_offsets=[-start - 8, stop]),
        lambda: entry.update(data_offsets=[stop, start]),
        lambda: entry.update(data_offsets=[start, huge]),
        lambda: entry.update(data_offsets=[start + 0.5, stop]),
        lambda: entry.update(data_offsets=[start]),
        lambda: entry.update(shape=[huge]),
        lambda: entry.update(shape=[huge, 0]),
        lambda: entry.update(shape=[-1, -(stop - start)]),
        lambda: entry.update(shape=[1] * int(draw.integers(60, 3000)) + entry["shape"]),
        lambda: entry.update(shape="many"),
        lambda: entry.update(dtype=str(draw.choice(["F64", "BF16", "U64", "BOOL", "F4", "I8", "object", "U8", "U16"]))),
        lambda: entry.update(more=1),
        lambda: table.update({name: None}),
        lambda: table.update({"../../" + name: table.pop(name)}),
        lambda: table.update({"\ud800": table.pop(name)}),
        lambda: table.update({"a\nb\x1b[2J": {"dtype": "Z\n", "shape": [], "data_offsets": [0, 0]}}),
        lambda: table.pop(name),
        lambda: table.update(__metadata__={"a": 1}),
    ]
    changes[draw.integers(len(changes))]()
    texts = [json.dumps(table)] * 6 + [
        json.dumps(table).replace("{", '{"seal":{},"seal":{},', 1),
        "[" * int(draw.integers(1, 200_000)),
        '{"a":' * 50_000,
        "null",
        json.dumps(table).replace("[", "[" + "9" * 5000, 1),
    ]
    text = texts[draw.integers(len(texts))].encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


RAW: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "flipped bits": flip_bits,
    "a run of bytes overwritten": overwrite_a_run,
    "cut short": cut_short,
    "bytes appended": append,
    "bytes removed or inserted": remove_or_insert,
    "a wrong length of the header": lie_about_the_header,
    "a hostile header": lambda content, draw: with_new_parity(rewrite_the_header(content, draw)),
}


# --- Sealed anew -----------------------------------------------------------------------------------------------------

NUMBERS = [0, -1, 1, 3, 63, 64, 65, 2**20, 2**21, 2**32, 2**40, 2**63, 2**64, 10**400, 1.5, 1e308, -0.0]
VALUES = [*NUMBERS, float("nan"), float("inf"), True, None, "", "a\nb", "\ud800", [], {}, [[]], [1, 2], {"a": 1}]
FILES = ["../../x", "/etc/passwd", "", ".", "..", "a/b", "a\\b", "a\0b", "\ud800", "x" * 5000, "a\nb", "C:", 5, None]


def _any(draw: np.random.Generator, values: list[Any]) -> Any:
    return values[draw.integers(len(values))]


def _add_rule(tiers: Tiers, fields: Fields, content: bytes) -> None:
    fields["rules"] = [
        {
            "tensor": 0 if "files" not in fields else _index_of(tiers, fields, "sheets"),
            "recipe": "default",
            "precision": "half",
            "space": list(SPACE),
            "rates": [0.1, 0.5, 0.9],
            "errors": [0.2, 0.3, 0.6],
            "tile_error": 0.9,
        }
    ]
    tiers[f"rule.{fields['rules'][0]['tensor']}"] = np.frombuffer(content, np.uint8)


def _index_of(tiers: Tiers, fields: Fields, name: str) -> int:
    header = json.loads(zlib.decompress(tiers["headers"].tobytes())[8:])
    return [tensor for tensor in header if tensor != "__metadata__"].index(name)


def any_field(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """One value anywhere in the manifest, or a new name, or one less."""
    place: Any = fields
    while True:
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        name = _any(draw, [*names, "more" if isinstance(place, dict) else 0])
        deeper = name in names and isinstance(place[name], (dict, list)) and len(place[name])
        if deeper and draw.random() < 0.7:
            place = place[name]
            continue
        if name in names and draw.random() < 0.1:
            del place[name]
        elif isinstance(place, dict) or place:
            place[name] = _any(draw, VALUES)
        return


def other_version(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Newer ones, and what is no version."""
    fields["version"] = _any(draw, [0, 2, 3, 10**9, 10**400, -1, 1.0, "1", None, True])


def hostile_files(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Names that lead out of the folder, twice, too long or not text; sizes that are not there."""
    ((_, size),) = fields["files"]
    files = [[_any(draw, FILES), _any(draw, [size, size, *NUMBERS])] for _ in range(draw.integers(0, 4))]
    fields["files"] = files if draw.random() < 0.5 else [["", size], *files]


def other_tile(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Sizes that are no power of two, too small or too large, or other than that of the digests."""
    fields["tile"] = _any(draw, [*VALUES, 64, 128, 4096, 2**20])


def huge_parity(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """A geometry of any numbers; half of the time the tier fits it, if that can be."""
    sizes = [*NUMBERS, 2, 7, 100, 2**16 - 1]
    shape = {name: _any(draw, sizes) for name in ("segment", "width", "check")}
    fields["parity"] = shape
    if draw.random() < 0.7:
        shape["segment"], shape["width"] = int(draw.integers(1, 9000)), int(draw.integers(1, 60))
        shape["check"] = int(draw.integers(1, 3000 // shape["width"]))
        symbols = sum(-(-tensor.nbytes // 2) for tensor in model().values())
        segments = -(-symbols // shape["segment"])
        if segments * shape["check"] * shape["width"] < 20_000:
            tiers["parity"] = draw.integers(0, 2**16, (segments, shape["check"], shape["width"])).astype(np.uint16)


def hostile_rule(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Spaces of 2^60 cells, tensors that are not there, unknown names, measurements that are no numbers."""
    (rule,) = fields["rules"]
    spaces = [[2**20] * 3, [2**20, 2**20], [64], [1, 64], [4, 4, 4], [2**20], [0], [-8, -8], [8, 8, 1, 1], [], "88", {}]
    changes = {
        "space": spaces,
        "tensor": [*NUMBERS, 1, 2, 4, 5, 6],
        "recipe": ["reference", "none", "", 5, None],
        "precision": ["single", "byte", "half", "double", None, []],
        "rates": [[], [0.9, 0.5, 0.1], [float("nan")] * 3, [float("inf")] * 3, "abc", [0.5], [1e308] * 3],
        "errors": [[], [float("nan")] * 3, [-1, 0, 0], [1e308] * 3, [0, 0, 0], {}],
        "tile_error": [*NUMBERS, float("nan")],
    }
    for name in draw.choice(list(changes), draw.integers(1, 3), replace=False):
        rule[str(name)] = _any(draw, changes[name])
    if draw.random() < 0.5 and isinstance(rule["tensor"], int) and rule["precision"] in ("single", "half", "byte"):
        size = {"single": 4, "half": 2, "byte": 1}[rule["precision"]] * 1200
        tiers[f"rule.{rule['tensor']}"] = np.frombuffer(draw.bytes(size), np.uint8)
    if draw.random() < 0.1:
        fields["rules"] = [rule] * 2


def hostile_parameters(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """A rule of the right size whose numbers are zero, noise, infinite or not numbers."""
    (name,) = (name for name in tiers if name.startswith("rule."))
    size = tiers[name].nbytes
    numbers = [
        bytes(size),
        draw.bytes(size),
        np.full(size // 2, np.nan, np.float16).tobytes(),
        np.full(size // 2, np.inf, np.float16).tobytes(),
        draw.normal(0, 1e4, size // 2).astype(np.float16).tobytes(),
        draw.bytes(size // 2),
    ]
    tiers[name] = np.frombuffer(_any(draw, numbers), np.uint8)


def hostile_statistics(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Ranges upside down, infinite, not a number."""
    numbers = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e-45, 3e38, -3e38], np.float32)
    statistics = tiers["statistics"]
    chosen = draw.random(statistics.shape) < draw.choice([0.02, 0.5, 1])
    statistics[chosen] = draw.choice(numbers[draw.integers(0, 2) :], int(chosen.sum()))


def other_digests(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Digests of no model: what is right looks wrong, and what the parity restores stays unproven."""
    for name in draw.choice(["digest.tensors", "digest.tiles", "parity"], draw.integers(1, 4), replace=False):
        tier = tiers[str(name)].reshape(-1)
        chosen = draw.random(tier.shape) < draw.choice([0.01, 1])
        tier[chosen] ^= draw.integers(1, 255, int(chosen.sum())).astype(tier.dtype)


def other_tiers(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """A tier is missing, renamed, of another type or shape, or one more is there."""
    name = str(_any(draw, sorted(tiers)))
    changes: list[Callable[[], Any]] = [
        lambda: tiers.pop(name),
        lambda: tiers.update({_any(draw, ["../x", "rule.99", "parity.2", "a\nb", "e" * 900]): tiers.pop(name)}),
        lambda: tiers.update({name: tiers[name].view(np.uint8).astype(_any(draw, [np.uint16, np.float32]))}),
        lambda: tiers.update({name: tiers[name].reshape(-1)}),
        lambda: tiers.update({name: tiers[name][..., None]}),
        lambda: tiers.update({name: tiers[name][:0]}),
        lambda: tiers.update({name: tiers[name][:-1]}),
        lambda: tiers.update({name: np.concatenate([tiers[name]] * 2)}),
        lambda: tiers.update({"more": np.zeros((1,) * 30 + (5,), np.uint8)}),
    ]
    changes[draw.integers(len(changes))]()


def zip_bomb(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """Headers that expand a thousandfold, cut streams, two streams, and noise, with or without their true size."""
    content = bytes(int(draw.integers(10**5, 10**6)))
    packed = zlib.compress(content, 9)
    honest = tiers["headers"].tobytes()
    streams = [
        packed,
        packed[:-9],
        honest + packed,
        honest[:-3],
        draw.bytes(100),
        b"",
        zlib.compress(packed),
        honest * 2,
    ]
    tiers["headers"] = np.frombuffer(_any(draw, streams), np.uint8)
    fields["files"] = [["", _any(draw, [len(content), fields["files"][0][1], len(packed), 2**40, 64 * len(packed)])]]


def hostile_model_headers(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
    """The header of the model in the guard: tensors that overlap, are huge, have a thousand axes, or stand twice.

    Some leave their offsets out, which a compact guard adds again.
    """
    size = fields["files"][0][1]
    (content,) = unpack_headers(tiers["headers"].tobytes(), [size], bare=fields.get("version", 1) >= COMPACT)
    content = rewrite_the_header(content, draw) if draw.random() < 0.8 else flip_bits(content, draw)
    if draw.random() < 0.5:
        content = re.sub(rb',\s*"data_offsets":\s*\[[^\]]*\]', b"", content)
    tiers["headers"] = np.frombuffer(zlib.compress(content, 0), np.uint8)
    fields["files"] = [["", int(_any(draw, [len(content), size, 3 * len(content), 60 * len(content)]))]]


def hostile_json(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> bytes:
    """A manifest that nests deeply, says a thing twice, is no object, or no JSON."""
    text = json.dumps(fields)
    texts = [
        b"[" * 100_000,
        b'{"files":' * 100_000,
        text.replace("{", '{"version":1,"version":2,', 1).encode(),
        text.encode("utf-16"),
        text.encode()[: draw.integers(0, len(text))],
        b"",
        b"null",
        b"[]",
        b'"x"',
        draw.bytes(80),
        text.replace("1", "1" * 5000).encode(),
        b"\xef\xbb\xbf" + text.encode(),
        flip_bits(text.encode(), draw, most=4),
        text.replace("{", '{"a\\nb\\u001b[2J":1,', 1).encode(),
    ]
    return _any(draw, texts)


OUTSIDE = (*(name for name in FILES if isinstance(name, str)), "../../secret", "../../../x", "part-2.safetensors")

FORGED: dict[str, Callable[[Tiers, Fields, np.random.Generator], bytes | None]] = {
    "any value in the manifest": any_field,
    "another version": other_version,
    "files outside the folder": hostile_files,
    "another tile": other_tile,
    "a huge parity": huge_parity,
    "a rule of another shape": hostile_rule,
    "a rule of other numbers": hostile_parameters,
    "statistics that are no numbers": hostile_statistics,
    "digests and parity of no model": other_digests,
    "tiers missing, or of another type": other_tiers,
    "a zip bomb": zip_bomb,
    "a hostile record of the model": hostile_model_headers,
    "JSON that nests or repeats": hostile_json,
}


# --- Folders ---------------------------------------------------------------------------------------------------------


def write_shards(folder: Path) -> Path:
    """The model in two files and an index."""
    folder.mkdir(parents=True)
    tensors = list(model().items())
    weight_map = {}
    for number, shard in enumerate((tensors[:3], tensors[3:]), start=1):
        save_file(dict(shard), folder / f"part-{number}.safetensors")
        weight_map |= dict.fromkeys(dict(shard), f"part-{number}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def with_a_shard_called(guard: Guard, name: str) -> Guard:
    """The guard of those shards in which the first is called otherwise, in the manifest and in the index."""

    def change(tiers: Tiers, fields: Fields, draw: np.random.Generator) -> None:
        index = guard.headers[INDEX].replace(b'"part-1.safetensors"', json.dumps(name).encode())
        headers = guard.headers | {INDEX: index}
        tiers["headers"] = np.frombuffer(zlib.compress(b"".join(headers.values())), np.uint8)
        renamed = {"part-1.safetensors": name}
        fields["files"] = [[renamed.get(file, file), len(header)] for file, header in headers.items()]

    return Guard.from_bytes(forge(guard, change))


def _tree(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file, with the time of its last change."""
    return {path: (path.lstat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def _bits(tensor: Tensor) -> bytes:
    return tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Misbehaved(f"it took more than {SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
