"""What a campaign compares, read from a TOML file."""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from planaria import attacks, damages
from planaria.attacks import Attack
from planaria.campaigns import defences
from planaria.campaigns.defences import Defence
from planaria.campaigns.subjects import SUBJECTS
from planaria.damages import Damage
from planaria.errors import InvalidFile, InvalidInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Damages by models by defences.

    Attributes:
        models: by name, see `planaria.campaigns.subjects`.
        damages: tables with a `kind`, a class of `planaria.damages` or `planaria.attacks`, and its arguments; `each`
            names arguments of which every value in a list is one damage, and `names`, of damages alone, patterns of the
            tensors that are struck, see `planaria.damages.OnTensors`.
        defences: tables with a `kind`, a class of `planaria.campaigns.defences`, and its arguments; `name` is optional.
        seed: of the damages.
        runs: of each damage, at least.
        most_runs: at most.
        interval: runs go on until half the 95 % interval of the mean accuracy, in percent, is no larger for any
            defence.
        images: that models are asked about.
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
        for names in ([name for name, _ in self.all_damages()], [name for name, _ in self.all_defences()]):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise InvalidInput(f"{doubled[0]!r} comes twice in the campaign. Name each once.")

    def all_damages(self) -> Iterator[tuple[str, Damage | Attack]]:
        """Every damage or attack by its name."""
        for table in self.damages:
            each = table.get("each", {})
            if not isinstance(each, Mapping) or not all(isinstance(values, list) for values in each.values()):
                raise InvalidInput(f"`each` is a table of lists, such as each.rate = [0.001, 0.01]; not {each!r}.")
            fixed = {name: value for name, value in table.items() if name not in ("kind", "each", "names")}
            for values in product(*each.values()):
                arguments = fixed | dict(zip(each, values, strict=True))
                made = _made(table.get("kind"), arguments, (damages, attacks), (Damage, Attack))
                name = _named(str(table["kind"]), arguments)
                if "names" in table:
                    if isinstance(made, Attack):
                        raise InvalidInput(f"{name}: `names` limits damages; an attack strikes the whole model.")
                    made, name = damages.OnTensors(made, names=table["names"]), f"{name}, on {_said(table['names'])}"
                yield name, made

    def all_defences(self) -> Iterator[tuple[str, Defence]]:
        """Every defence by its name."""
        for table in self.defences:
            arguments = {name: value for name, value in table.items() if name not in ("kind", "name")}
            made = _made(table.get("kind"), arguments, (defences,), (Defence,))
            yield table.get("name") or _named(str(table["kind"]), arguments), made

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Settings":
        """Reads a TOML file. Raises `InvalidFile` unless it is one with the attributes above, `InvalidInput` on values
        that are out of range."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidFile(f"Cannot read the campaign {path}: {error}.") from error
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
    try:
        inspect.signature(classes[kind]).bind(**arguments)
    except TypeError as error:
        raise InvalidInput(f"{kind} cannot be made of {dict(arguments)}: {error}.") from error
    try:
        return classes[kind](**arguments)
    except TypeError as error:
        raise InvalidInput(f"{kind} cannot be made of {dict(arguments)}: {error}. Mend the value.") from error


def _named(kind: str, arguments: Mapping[str, Any]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    return ", ".join([words, *(f"{name} {_said(value)}" for name, value in arguments.items())])


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_said, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
