"""Plays one draw: model, guard, damage and mask from one number, then check, repair and judgement."""

import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planaria.errors import InvalidGuard, InvalidInput, PlanariaError, VerificationFailed
from planaria.guard import Report
from referee.damage import FileDamage, draw_damage, draw_file_damage
from referee.guards import PAIR, Pair, draw_pair
from referee.judge import Calibration, Judgement, Violation, bytes_of, judge_forecast, judge_weights
from referee.masks import Mask, draw_mask
from referee.source import Source

IN_FILES = 0.25  # share of the draws with a guard of a file that are repaired on disk, which takes longer
CHECKED = 0.3  # share of the draws that are checked before, which takes as long as the repair
NEIGHBOURS = {"config.json": b"{}", "notes.txt": b"not a model"}


@dataclass(frozen=True)
class Outcome:
    """One draw and its judgement. `verdict` is the report's, or the name of the error that was raised."""

    seed: int
    pair: str
    damage: str
    mask: str
    place: str
    force: bool
    verdict: str
    violations: tuple[Violation, ...]
    calibrations: tuple[Calibration, ...]

    def __str__(self) -> str:
        lines = [f"PYTHONPATH=tests python -m referee {self.seed}", f"  {self.pair}"]
        lines += [f"  {self.damage}; {self.place}; mask {self.mask}; force {self.force}; {self.verdict}"]
        return "\n".join(lines + [f"  {violation}" for violation in self.violations])


pair_of = lru_cache(maxsize=2)(draw_pair)


def play(seed: int) -> Outcome:
    """The draw of this number, judged."""
    pair = pair_of(seed // PAIR)
    how = Source(seed, "play")
    force, on_disk, checked = how.chance(0.5), how.chance(IN_FILES) and pair.on_disk, how.chance(CHECKED)
    words, damaged = draw_damage(Source(seed, "damage"), pair.intact)
    mask = draw_mask(Source(seed, "mask"), pair.intact, damaged)
    judgement = Judgement()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if on_disk:
            of_file = draw_file_damage(Source(seed, "file"), pair.intact, damaged)
            aside = how.chance(0.5)
            verdict = _on_disk(pair, of_file, mask, force, judgement, checked=checked, aside=aside)
            place = f"file, {of_file.words}, {'to an output' if aside else 'in place'}"
        else:
            tensors = {name: tensor.clone() for name, tensor in damaged.items()}
            before = bytes_of(damaged)
            verdict = _judged(
                pair, tensors, mask, force, judgement, checked=checked, before=before, found=lambda: bytes_of(tensors),
            )  # fmt: skip
            place = "memory"
    judgement.add("warning", "", len(warned), "; ".join({str(one.message) for one in warned})[:200])
    return Outcome(
        seed, str(pair), words, mask.kind, place, force, verdict,
        tuple(judgement.violations), tuple(judgement.calibrations),
    )  # fmt: skip


def _judged(
    pair: Pair,
    model: object,
    mask: Mask,
    force: bool,
    judgement: Judgement,
    *,
    checked: bool,
    before: dict[str, NDArray[np.uint8]],
    found: Callable[[], dict[str, NDArray[np.uint8]]],
    output: Path | None = None,
) -> str:
    """Checks and repairs a model in any form; judges its weights. `found` answers with what it holds now."""
    guard, given, forecast = pair.guard, mask.given(), None
    if checked:
        forecast = _attempt(lambda: guard.check(model, known=given, force=force, threads=1))  # type: ignore[arg-type]
        for name, content in found().items() if output is None else ():
            judgement.add("check changed the model", name, (content != before[name]).sum())
    done = _attempt(lambda: guard.repair(model, output, in_place=output is None, known=given, force=force, threads=1))  # type: ignore[arg-type]
    intact = bytes_of(pair.intact)
    if isinstance(done, Exception):
        words = f"{type(done).__name__}: {done}"[:200]
        if not isinstance(done, PlanariaError) or isinstance(done, (VerificationFailed, InvalidGuard)):
            judgement.add("unexpected error", "", 1, words)
        if isinstance(done, InvalidInput) and mask.kind in ("none", "right", "some tensors"):
            judgement.add("refused a sound request", "", 1, words)
        if output is None:
            for name, content in found().items():
                judgement.add("refused, and yet changed", name, (content != before[name]).sum())
        if forecast is not None and type(forecast) is not type(done):
            judgement.add("check tells otherwise", "", 1, f"{forecast!r} and {done!r}"[:200])
        return type(done).__name__
    judge_weights(pair.guard, intact, before, found(), done, mask, judgement)
    if isinstance(forecast, Exception):
        judgement.add("check tells otherwise", "", 1, f"{forecast!r}"[:200])
    elif forecast is not None:
        judge_forecast(forecast, done, judgement)
    return done.verdict


def _attempt(act: Callable[[], Report]) -> Report | Exception:
    try:
        return act()
    except Exception as error:
        return error


def _on_disk(
    pair: Pair, of_file: FileDamage, mask: Mask, force: bool, judgement: Judgement, *, checked: bool, aside: bool
) -> str:
    """A repair of a file in a folder with others."""
    header = 8 + int.from_bytes(of_file.intact[:8], "little")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for other, content in NEIGHBOURS.items():
            (folder / other).write_bytes(content)
        model = folder / "model.safetensors"
        model.write_bytes(of_file.damaged)
        output = folder / "repaired.safetensors" if aside else None
        result = output or model

        def found() -> dict[str, NDArray[np.uint8]]:
            return _contents(pair, result.read_bytes()[header:] if result.exists() else b"")

        verdict = _judged(
            pair, model, mask, force, judgement, checked=checked,
            before=_contents(pair, of_file.damaged[header:]), found=found, output=output,
        )  # fmt: skip
        expected = {*NEIGHBOURS, model.name}
        raised = verdict[0].isupper()
        if output is not None and not raised:
            expected.add(output.name)
        there = {path.name for path in folder.iterdir()}
        judgement.add("files left behind or gone", "", len(there ^ expected), ", ".join(sorted(there ^ expected)))
        for other, content in NEIGHBOURS.items():
            with suppress(FileNotFoundError):
                judgement.add("another file changed", other, (folder / other).read_bytes() != content)
        if (output is not None or raised) and model.read_bytes() != of_file.damaged:
            judgement.add("input touched", model.name, 1)
        if not raised:
            after = result.read_bytes()
            sound = after[:header] in (of_file.intact[:header], of_file.damaged[:header])
            judgement.add("header is neither the intact nor the found one", result.name, not sound)
            if verdict in ("intact", "exact"):
                judgement.add("verdict exact, file is not", result.name, after != of_file.intact)
    return verdict


def _contents(pair: Pair, data: bytes) -> dict[str, NDArray[np.uint8]]:
    """By tensor, the bytes where the intact file has them; zeros past the end."""
    padded = np.zeros(sum(entry.nbytes for entry in pair.guard.entries), np.uint8)
    held = np.frombuffer(data, np.uint8)[: len(padded)]
    padded[: len(held)] = held
    contents, start = {}, 0
    for entry in pair.guard.entries:
        contents[entry.name] = padded[start : start + entry.nbytes]
        start += entry.nbytes
    return contents
