"""Runs a campaign: every defence meets the same stored faults, as often as the intervals need.

A point is one damage of one model. Its runs are kept in a file that grows by whole runs, so that a campaign can be cut
at any moment and go on: what was measured stays, and what is drawn depends on the seed, the names and the number of the
run alone.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from planaria import __version__, streams
from planaria.damages import ModelFaults
from planaria.errors import InvalidFile, InvalidInput
from planaria.files import make_folder, write_atomically
from planaria_lab.attacks import Attack
from planaria_lab.bench.provenance import provenance
from planaria_lab.bench.statistics import proportion, summary
from planaria_lab.campaigns.defences import Defence, Protection
from planaria_lab.campaigns.measures import BETTER, measured
from planaria_lab.campaigns.settings import CampaignSettings, Threat
from planaria_lab.campaigns.subjects import Answers, Classifier, Subject, subject
from planaria_lab.campaigns.tampering import NoTampering

ATTACKED = 128  # inputs that an attacker has in a run, with the intact model's answers as labels

Progress = Callable[[int, int, str], None]
Run = dict[str, dict[str, float | None]]  # by defence


def run(settings: CampaignSettings, folder: Path, *, jobs: int = 1, progress: Progress) -> dict[str, Any]:
    """Everything that the folder lacks; ready for JSON. The result does not depend on `jobs`, but for seconds.

    Cost: for every run and defence, one repair and one pass of the inputs through the model; each process prepares the
    defences of a model once.

    Args:
        folder: holds the faults, `faults/*.safetensors`, and the runs, `points/*.json`; they are kept and gone on from.
        jobs: processes.
        progress: called with (done, total, what).

    Raises:
        InvalidInput: if `jobs` is below 1, or a damage or a defence does not fit a model.
        InvalidFile: if the folder is of another campaign, of another checkpoint or planaria, or holds something else.
        OutputFailed: if it cannot be written.
    """
    if jobs < 1:
        raise InvalidInput(f"A campaign runs in 1 process or more, not {jobs}.")
    make_folder(folder / "faults")
    make_folder(folder / "points")
    names = [(model, damage) for model in settings.models for damage, _ in settings.all_damages()]
    _require_same(folder / "campaign.json", _identity(settings))
    points = {}
    for number, (model, damage) in enumerate(names):

        def tell(done: int, number: int = number, what: str = f"{model}, {damage}") -> None:
            progress(number * settings.most_runs + done, len(names) * settings.most_runs, f"{what}: run {done}")

        points[f"{model}, {damage}"] = _point(settings, folder, model, damage, jobs=jobs, tell=tell)
    progress(1, 1, "done")
    return {"settings": settings.to_dict(), "better": BETTER, "points": points, "provenance": provenance()}


def _point(
    settings: CampaignSettings, folder: Path, model: str, damage: str, *, jobs: int, tell: Callable[[int], None]
) -> dict[str, Any]:
    """One damage of one model, run until the intervals are narrow enough."""
    file = folder / "points" / f"{_slug(f'{model} {damage}')}.json"
    runs: list[Run] = _read(file, [name for name, _ in settings.all_defences()]) if file.exists() else []
    while wanted := _more(settings, runs) - len(runs):
        numbers = range(len(runs), len(runs) + wanted)
        found = Parallel(n_jobs=jobs, return_as="generator")(
            delayed(_run)(settings, folder, model, damage, number) for number in numbers
        )
        for one in found:
            runs.append(one)
            write_atomically(file, json.dumps({"runs": runs}, allow_nan=False).encode())
            tell(len(runs))
    of = _subject(model, settings.images)
    return {
        "model": model,
        "damage": damage,
        "model_bytes": of.nbytes,
        "intact": _intact(model, settings.images).accuracy,
        "defences": {
            name: {"nbytes": protection.nbytes} | _summaries([run[name] for run in runs])
            for name, (_, protection) in _protected(settings, model).items()
        },
    }


def _more(settings: CampaignSettings, runs: Sequence[Run]) -> int:
    """How many runs there have to be: a fixed rule, so that a campaign that was cut does as one that was not.

    First `runs`, then as many again, until half the interval of the mean accuracy is small for every defence.
    """
    for count in range(settings.runs, settings.most_runs, settings.runs):
        if len(runs) < count:
            return count
        widths = [
            summary([[run[name]["accuracy"] or 0.0 for run in runs[:count]]]).interval  # one run has no interval
            for name in runs[0]
        ]
        if all(width is not None and width <= settings.interval for width in widths):
            return count
    return settings.most_runs


def _run(settings: CampaignSettings, folder: Path, model: str, damage: str, number: int) -> Run:
    """One run of all defences. What it costs to prepare is kept for the next one in this process."""
    torch.set_num_threads(1)
    of = _subject(model, settings.images)
    protected = _protected(settings, model)  # before anything is written: one may not fit
    threat = dict(settings.all_damages())[damage]
    faults = _faults(settings, folder, of, threat, number)
    damaged = faults.replay(of.tensors)
    results = {}
    for name, (defence, protection) in protected.items():
        if protection.file is not None and not isinstance(threat.tampering, NoTampering):
            draws = streams.generator(settings.seed, f"{of.name}, {damage}, run {number}, file of {name}")
            protection = protection.reading(threat.tampering.apply(protection.file, of.tensors, damaged, draws))
        began = time.perf_counter()
        restored = protection.restore(damaged, faults.known if defence.told else None)
        seconds = time.perf_counter() - began
        results[name] = measured(of, _intact(model, settings.images), faults, restored, seconds=seconds)
    return results


def _faults(settings: CampaignSettings, folder: Path, of: Subject, threat: Threat, number: int) -> ModelFaults:
    """The stored faults of a run, the same for every tampering; drawn and stored where they are not there."""
    file = folder / "faults" / f"{_slug(f'{of.name} {threat.broken}')}-{number}.safetensors"
    if file.exists():
        return ModelFaults.load(file)
    draws = streams.generator(settings.seed, f"{of.name}, {threat.broken}, run {number}")
    how = threat.damage
    if isinstance(how, Attack):
        if not isinstance(of, Classifier):
            raise InvalidInput(f"{type(how).__name__} needs labelled inputs, which {of.name} does not have.")
        seen = torch.randperm(len(of.sample), generator=draws)[:ATTACKED]
        faults = how.apply(of.module, of.sample[seen], of.sample_labels[seen], draws)
    else:
        faults = how.apply_to_model(of.tensors, draws)
    faults.save(file)
    return faults


def _summaries(runs: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Mean, interval, minimum, 5 % quantile and all runs of every measure; of yes or no, Wilson's interval."""
    found: dict[str, Any] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        numbers = [value for value in values if value is not None]
        if not numbers:
            continue
        one = summary([numbers])
        found[name] = {
            "mean": one.mean,
            "interval": one.interval,
            "minimum": one.minimum,
            "maximum": max(numbers),
            "quantile_5": float(torch.tensor(numbers, dtype=torch.float64).quantile(0.05)),
            "count": one.count,
            "runs": values,
        }
        if name == "detected":
            found[name] |= {"wilson": vars(proportion([value > 0 for value in numbers]))}
    return found


def _identity(settings: CampaignSettings) -> dict[str, Any]:
    """What results may not be mixed of."""
    checkpoints = {}
    for model in settings.models:
        digest = hashlib.sha256()
        for name, tensor in _subject(model, settings.images).tensors.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        checkpoints[model] = digest.hexdigest()
    return {"settings": settings.to_dict(), "checkpoints": checkpoints, "planaria": __version__}


def _require_same(file: Path, identity: Mapping[str, Any]) -> None:
    """Writes who the folder's results are of, or raises `InvalidFile` if they are of somebody else.

    Where a campaign left none, since it fitted no model, another one may begin.
    """
    identity = json.loads(json.dumps(identity))
    if not file.exists():
        write_atomically(file, json.dumps(identity, indent=1).encode())
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InvalidFile(f"{file} is no campaign: {error}. Choose another folder.") from error
    begun = any(next((file.parent / name).iterdir(), None) for name in ("faults", "points"))
    for path, old, new in _differences(before, identity):
        if not begun:
            write_atomically(file, json.dumps(identity, indent=1).encode())
            return
        raise InvalidFile(
            f"The results in {file.parent} are of another campaign: {path} was {old!r} and is {new!r}. "
            "Choose another folder."
        )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif old != new:
        yield path, old, new


def _read(file: Path, names: Sequence[str]) -> list[Run]:
    """Runs that were measured before. Raises `InvalidFile`."""
    try:
        runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
        sound = all(list(run) == list(names) and all("accuracy" in of for of in run.values()) for run in runs)
    except (ValueError, OSError, TypeError, KeyError, AttributeError) as error:
        raise InvalidFile(f"{file} holds no runs of a campaign: {error!r}. Delete it.") from error
    if not sound:
        raise InvalidFile(f"{file} holds runs of other defences. Delete it.")
    return list(runs)


@lru_cache(maxsize=4)
def _subject(model: str, images: int) -> Subject:
    return subject(model, images)


@lru_cache(maxsize=4)
def _intact(model: str, images: int) -> Answers:
    of = _subject(model, images)
    return of.answers(of.tensors)


_ready: dict[str, dict[str, tuple[Defence, Protection]]] = {}  # by model and settings, in this process


def _protected(settings: CampaignSettings, model: str) -> dict[str, tuple[Defence, Protection]]:
    key = json.dumps([model, settings.images, settings.to_dict()["defences"]])
    if key not in _ready:
        tensors = _subject(model, settings.images).tensors
        _ready[key] = {name: (defence, defence.prepare(tensors)) for name, defence in settings.all_defences()}
    return _ready[key]


def _slug(text: str) -> str:
    """A file's name; a digest keeps apart what looks alike."""
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{re.sub('[^a-z0-9.]+', '-', text.lower()).strip('-')[:80]}-{digest}"
