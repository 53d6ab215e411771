"""The settings of a repair experiment, read from a committed TOML file."""

import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from planaria.errors import InvalidFile, InvalidInput
from planaria_lab.bench.tinymlp import NETWORKS
from planaria_lab.toml_files import packaged_toml, read_toml


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One damaged layer, several repairers, the same masks for all.

    Attributes:
        networks: names of shipped networks.
        rates: shares of FC1's weights that are erased, scattered.
        masks: masks a rate.
        fits: fits of each recipe.
        seed: of masks and fits, which draw from streams of their own.
    """

    networks: tuple[str, ...]
    rates: tuple[float, ...]
    masks: int
    fits: int
    seed: int

    def __post_init__(self) -> None:
        for name in self.networks:
            if name not in NETWORKS:
                raise InvalidInput(f"Unknown network {name!r}. Networks are: {', '.join(NETWORKS)}.")
        for rate in self.rates:
            if not 0 < rate <= 1:
                raise InvalidInput(f"Rates lie in (0, 1]; {rate} does not.")
        if len(set(self.networks)) < len(self.networks) or len(set(self.rates)) < len(self.rates):
            raise InvalidInput("An experiment names each network and each rate once.")
        if not self.networks or not self.rates or self.masks < 1 or self.fits < 1:
            raise InvalidInput("An experiment needs at least one network, rate, mask and fit.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Experiment":
        """Reads a TOML file. Raises `InvalidFile` if it is not TOML or has other keys than the attributes above."""
        return cls._checked(read_toml(path, "experiment"), str(path))

    @classmethod
    def packaged(cls, name: str) -> "Experiment":
        """An experiment that comes with the package, by name: "tinymlp" or "demo"."""
        return cls._checked(packaged_toml(name), name)

    @classmethod
    def _checked(cls, settings: dict[str, Any], source: str) -> "Experiment":
        wanted = {"networks": (list, str), "rates": (list, float), "masks": int, "fits": int, "seed": int}
        if settings.keys() != wanted.keys():
            raise InvalidFile(
                f"The experiment {source} has the keys {sorted(settings)}; exactly {sorted(wanted)} are needed."
            )
        for key, kind in wanted.items():
            value = settings[key]
            container, item = kind if isinstance(kind, tuple) else (None, kind)
            values = value if container is list and isinstance(value, list) else [value]
            if isinstance(value, list) != (container is list) or not all(_is(item, one) for one in values):
                raise InvalidFile(f"In the experiment {source}, {key} = {value!r} is not of the kind it must be.")
        settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        return cls(**{field.name: settings[field.name] for field in fields(cls)})


def _is(kind: type, value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
