"""What a campaign compares, read from a TOML file."""

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

from planaria import damages
from planaria.damages import Damage
from planaria.errors import InvalidFile, InvalidInput
from planaria_lab import attacks
from planaria_lab.attacks import Attack, Objective
from planaria_lab.bench.guard_subjects import MINILM
from planaria_lab.campaigns import adaptive, defences, tampering
from planaria_lab.campaigns.defences import Defence
from planaria_lab.campaigns.subjects import MOST_SENTENCES, SUBJECTS
from planaria_lab.campaigns.tampering import NoTampering, Tampering
from planaria_lab.toml_files import read_toml

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Threat:
    """What befalls a model.

    Attributes:
        broken: the name of what breaks the weights. Threats that share it meet the same faults.
        damage: what that is.
        tampering: what befalls the files that defences keep.
    """

    broken: str
    damage: Damage | Attack
    tampering: Tampering


@dataclass(frozen=True, kw_only=True)
class CampaignSettings:
    """Damages by models by defences.

    Attributes:
        models: by name, see `planaria_lab.campaigns.subjects`.
        damages: tables with a `kind`, a class of `planaria.damages`, `planaria_lab.attacks` or
            `planaria_lab.campaigns.adaptive`, and its arguments; an `objective` is a table of those of `Objective`.
            `each` names arguments of which every value in a list is one damage. A `tampering` is a class of
            `planaria_lab.campaigns.tampering`, by its name or as a table of `kind` and arguments. `names` are
            patterns of the tensors that are struck, see `planaria.damages.OnTensors`.
        defences: tables with a `kind`, a class of `planaria_lab.campaigns.defences`, and its arguments; `name` is
            optional.
        seed: of the damages.
        runs: of each damage, at least.
        most_runs: at most.
        interval: runs go on until half the 95 % interval of the mean accuracy, in percent, is no larger for any
            defence.
        images: that models are asked about; of a model of sentences, how many of these.
    """

    models: Sequence[str]
    damages: Sequence[Table]
    defences: Sequence[Table]
    seed: int = 0
    runs: int = 40
    most_runs: int = 200
    interval: float = 1.0
    images: int = 10_000

    def __post_init__(self) -> None:
        if not (self.models and self.damages and self.defences):
            raise InvalidInput("A campaign has at least one model, one damage and one defence.")
        for name in self.models:
            if name not in SUBJECTS:
                raise InvalidInput(f"Unknown model {name!r}. Models are: {', '.join(SUBJECTS)}.")
        if not 1 <= self.runs <= self.most_runs or not self.interval > 0 or not 1 <= self.images <= 10_000:
            raise InvalidInput(
                f"A campaign has 1 run or more, at most `most_runs`, an interval above 0 and 1 to 10,000 images; not "
                f"{self.runs}, {self.most_runs}, {self.interval} and {self.images}."
            )
        if MINILM in self.models and self.images > MOST_SENTENCES:
            raise InvalidInput(f"{MINILM} is asked about at most {MOST_SENTENCES} sentences, not {self.images} images.")
        attacks_named = [name for name, threat in self.all_damages() if isinstance(threat.damage, Attack)]
        if MINILM in self.models and attacks_named:
            raise InvalidInput(
                f"{attacks_named[0]!r} is an attack, which needs labelled inputs; {MINILM} has none. Leave one out."
            )
        for names in ([name for name, _ in self.all_damages()], [name for name, _ in self.all_defences()]):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise InvalidInput(f"{doubled[0]!r} comes twice in the campaign. Name each once.")

    def all_damages(self) -> Iterator[tuple[str, Threat]]:
        """Every damage or attack by its name, with its tampering."""
        for table in self.damages:
            each = table.get("each", {})
            if not isinstance(each, Mapping) or not all(isinstance(values, list) for values in each.values()):
                raise InvalidInput(f"`each` is a table of lists, such as each.rate = [0.001, 0.01]; not {each!r}.")
            fixed = {name: value for name, value in table.items() if name not in ("kind", "each")}
            for values in product(*each.values()):
                arguments = fixed | dict(zip(each, values, strict=True))
                tampered, meddling = _tampering(arguments.pop("tampering", "NoTampering"))
                broken = _named(str(table["kind"]), arguments)
                yield broken + tampered, Threat(broken, _damage(table.get("kind"), arguments), meddling)

    def all_defences(self) -> Iterator[tuple[str, Defence]]:
        """Every defence by its name."""
        for table in self.defences:
            arguments = {name: value for name, value in table.items() if name not in ("kind", "name")}
            made = _made(table.get("kind"), arguments, (defences,), (Defence,))
            yield table.get("name") or _named(str(table["kind"]), arguments), made

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CampaignSettings":
        """Reads a TOML file. Raises `InvalidFile` unless it is one with the attributes above, `InvalidInput` on values
        that are out of range."""
        table = read_toml(path, "campaign")
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(table.keys() - known.keys()):
            raise InvalidFile(f"The campaign {path} has {unknown[0]!r}; possible are: {', '.join(known)}.")
        kinds = {"models": list, "damages": list, "defences": list, "interval": (int, float)}
        for name in ("models", "damages", "defences"):
            if name not in table:
                raise InvalidFile(f"The campaign {path} has no {name!r}.")
        for name, value in table.items():
            if isinstance(value, bool) or not isinstance(value, kinds.get(name, int)):  # type: ignore[arg-type]
                raise InvalidFile(f"{name!r} of the campaign {path} cannot be {value!r}.")
        if not all(isinstance(one, Mapping) for name in ("damages", "defences") for one in table[name]):
            raise InvalidFile(f"Damages and defences of the campaign {path} are tables: [[damages]], [[defences]].")
        return cls(**table)


def _tampering(table: Any) -> tuple[str, Tampering]:
    """A tampering, and what it adds to a damage's name. Raises `InvalidInput`."""
    table = {"kind": table} if isinstance(table, str) else table
    if not isinstance(table, Mapping):
        raise InvalidInput(f'A tampering is a kind or a table with one, such as "NewGuard"; not {table!r}.')
    arguments = {name: value for name, value in table.items() if name != "kind"}
    made = _made(table.get("kind"), arguments, (tampering,), (Tampering,))
    return "" if isinstance(made, NoTampering) else f"; {_named(str(table['kind']), arguments)}", made


def _damage(kind: Any, arguments: Mapping[str, Any]) -> Damage | Attack:
    """The damage or attack of these arguments. Attacks choose among names themselves."""
    if isinstance(arguments.get("objective"), Mapping):
        arguments = {**arguments, "objective": _made_of(Objective, arguments["objective"])}
    if "names" in arguments and kind in vars(damages):
        others = {name: value for name, value in arguments.items() if name != "names"}
        return damages.OnTensors(_damage(kind, others), names=arguments["names"])  # type: ignore[arg-type]
    return _made(kind, arguments, (damages, attacks, adaptive), (Damage, Attack))


def _made(kind: Any, arguments: Mapping[str, Any], packages: Sequence[Any], bases: tuple[type, ...]) -> Any:
    """An object of the class `kind` in one of the packages. Raises `InvalidInput` on other names or arguments."""
    classes = {
        name: one
        for package in packages
        for name, one in vars(package).items()
        if inspect.isclass(one) and issubclass(one, bases) and not inspect.isabstract(one)
    }
    if kind not in classes:
        raise InvalidInput(f"Unknown kind {kind!r}. Kinds are: {', '.join(sorted(classes))}.")
    return _made_of(classes[kind], arguments)


def _made_of(one: type, arguments: Mapping[str, Any]) -> Any:
    """An object of a class. Raises `InvalidInput` on arguments that it does not have or take."""
    try:
        inspect.signature(one).bind(**arguments)
    except TypeError as error:
        raise InvalidInput(f"{one.__name__} cannot be made of {dict(arguments)}: {error}.") from error
    try:
        return one(**arguments)
    except TypeError as error:
        raise InvalidInput(f"{one.__name__} cannot be made of {dict(arguments)}: {error}. Mend the value.") from error


def _named(kind: str, arguments: Mapping[str, Any]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    return ", ".join(
        [words, *(f"{'on' if name == 'names' else name} {_said(value)}" for name, value in arguments.items())]
    )


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_said, value))
    if isinstance(value, Mapping):
        return "+".join(f"{name} {_said(one)}" for name, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
