"""How much the bench of populations measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planaria.errors import InvalidInput
from planaria_lab.toml_files import packaged_toml


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Whole networks that lose weights anywhere.

    Attributes:
        count: networks of the zoo that is learned from, its tests among them.
        others: networks of each of the other zoos, and of each architecture in them.
        shared: networks of the zoo that starts from the same numbers.
        variety: what the zoo's recipes are drawn from, as of `planaria_lab.zoo.Variety`.
        unseen: the same, of the networks with other settings.
        image_epochs: of networks of MNIST and Fashion-MNIST images.
        tested: networks of each test set, at most.
        images: test images of each data set, at most.
        sizes: of the populations learned from, beside the whole.
        curve: shares of scattered weights at which populations of these sizes are compared.
        shares: of weights or neurons lost, by kind of damage.
        remembered: networks of the memorisation test, at most.
        remembered_share: of scattered weights lost in it.
        fewer: by row, the sizes that it is measured at where not at all; of the shared initialisation it is not.
    """

    count: int
    others: int
    shared: int
    variety: Mapping[str, Sequence[Any]]
    unseen: Mapping[str, Sequence[Any]]
    image_epochs: float
    tested: int
    images: int
    sizes: Sequence[int]
    curve: Sequence[float]
    shares: Mapping[str, Sequence[float]]
    remembered: int
    remembered_share: float
    fewer: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = (self.count, self.others, self.shared, self.tested, self.images, self.remembered, *self.sizes)
        if min(counts) < 1:
            raise InvalidInput(f"Networks and images are counted from 1, not {min(counts)}.")
        _require_shares([*self.curve, self.remembered_share, *(share for of in self.shares.values() for share in of)])


@dataclass(frozen=True, kw_only=True)
class SheetSettings:
    """First layers over images, which alone lose weights.

    Attributes:
        seed: of the networks.
        networks: of each width, data set and initialisation.
        widths: of the hidden layer.
        scales: of the initialisation, by the name it is told by.
        epochs: of training.
        data: names of data sets.
        shipped: networks that come with the package.
        rates: shares of the weights lost.
        masks: at each rate.
    """

    seed: int
    networks: int
    widths: Sequence[int]
    scales: Mapping[str, float]
    epochs: float
    data: Sequence[str]
    shipped: Sequence[str]
    rates: Sequence[float]
    masks: int

    def __post_init__(self) -> None:
        if self.networks < 1 or self.masks < 1 or not self.widths:
            raise InvalidInput(
                f"Sheets take a network, a mask and a width or more, "
                f"not {self.networks}, {self.masks} and {len(self.widths)}."
            )
        _require_shares(self.rates)


@dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """Of both parts.

    Attributes:
        seed: of zoos, masks and learning.
    """

    seed: int
    networks: NetworkSettings
    sheets: SheetSettings

    @classmethod
    def packaged(cls) -> "PopulationSettings":
        """Those that come with the package."""
        told = packaged_toml("population")
        networks, sheets = NetworkSettings(**told.pop("networks")), SheetSettings(**told.pop("sheets"))
        return cls(networks=networks, sheets=sheets, **told)


def _require_shares(shares: Sequence[float]) -> None:
    for share in shares:
        if not 0 < share <= 1:
            raise InvalidInput(f"Shares of what is lost lie in (0, 1]; {share} does not.")
