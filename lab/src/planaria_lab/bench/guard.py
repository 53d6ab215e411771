"""What the guard shows on real models: campaigns of damage, beside par2 at equal bytes; false alarms; what it costs.

Every point of the result can be measured by itself, says how and when it was, and replaces its own earlier self.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from planaria import streams
from planaria.errors import InvalidFile, InvalidInput
from planaria.guard import Guard, protect
from planaria_lab.bench import guard_memory, guard_speed
from planaria_lab.bench.guard_campaign import campaign, false_alarms
from planaria_lab.bench.guard_subjects import MINILM, Tell, drawn, load_subject
from planaria_lab.bench.par2 import par2_rule
from planaria_lab.bench.provenance import provenance
from planaria_lab.toml_files import packaged_toml


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
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
    def packaged(cls) -> "GuardSettings":
        """Those that come with the package."""
        return cls(**packaged_toml("guard"))


def points(settings: GuardSettings) -> dict[str, Callable[[Tell], dict[str, Any]]]:
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
    settings: GuardSettings,
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
