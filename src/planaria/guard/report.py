"""What was found and done: per tensor and region, and as an exit code."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["intact", "exact", "bounded", "estimated", "lost", "changed", "damaged"]
VERDICTS: tuple[Verdict, ...] = ("intact", "exact", "bounded", "estimated", "lost", "changed", "damaged")
"""From best to worst. Intact and exact are proven by the digest; bounded is proven by the parity, up to the bound.

Changed looks trained rather than damaged, and is left as found unless forced. Damaged is said by a quick check alone,
which does not ask what a repair would make of it.
"""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Neighbouring tiles of one verdict: bytes `[start, stop)` of a tensor."""

    start: int
    stop: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """What became of one tensor.

    Attributes:
        name, dtype, shape, nbytes: of the tensor.
        tiles: how many it has.
        regions: the damaged ones, ascending; all else is intact.
        kept: weights of regions without proof that look right and stay as they were found.
        estimated: weights that were (or, in a check, would be) filled in from others.
        bound: largest error that a bounded weight can have, or None if there is none.
        expected_error: root mean squared error to expect of the estimated weights, in the weights' own unit, measured
            on held-out masks when the model was protected; None if nothing was estimated.
        method: what filled them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    tiles: int
    regions: tuple[Region, ...] = ()
    kept: int = 0
    estimated: int = 0
    bound: float | None = None
    expected_error: float | None = None
    method: str | None = None

    def count(self, verdict: Verdict, *, tile: int) -> int:
        """Tiles of a verdict."""
        damaged = dict.fromkeys(VERDICTS, 0)
        for region in self.regions:
            damaged[region.verdict] += -(-(region.stop - region.start) // tile)
        damaged["intact"] = self.tiles - sum(damaged.values())
        return damaged[verdict]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check found, or what a repair did.

    Attributes:
        action: "check" or "repair".
        tensors: one for each tensor of the guard, in its order.
        tile: bytes of a tile.
        header_damaged: whether a file's own header or its length was wrong, and is restored from the guard.
        keyed: whether a key proves it, against attackers too; without one, digests only detect accidents.
        guard_mended: bytes of the guard itself that were broken and restored.
        guard_lost: tiers of the guard beyond its own repair, which were not used.
        notes: what else a person should know, a sentence each.
        seconds: wall time.
    """

    action: Literal["check", "repair"]
    tensors: Sequence[TensorReport]
    tile: int
    header_damaged: bool = False
    keyed: bool = False
    guard_mended: int = 0
    guard_lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The worst of all regions."""
        found = [VERDICTS.index(region.verdict) for _, region in self.regions()]
        return VERDICTS[max([int(self.header_damaged), *found])]

    @property
    def exit_code(self) -> int:
        """As the command line answers: 0 intact or fully restored, 1 exactly repairable, 2 only approximately, 5 if
        something looks trained rather than damaged.
        """
        if self.verdict == "intact":
            return 0
        if self.verdict == "exact":
            return 0 if self.action == "repair" else 1
        return 5 if self.count("changed") else 2

    def regions(self) -> Iterator[tuple[TensorReport, Region]]:
        """Every damaged region with its tensor."""
        for tensor in self.tensors:
            for region in tensor.regions:
                yield tensor, region

    def count(self, verdict: Verdict) -> int:
        """Tiles of a verdict in all tensors."""
        return sum(tensor.count(verdict, tile=self.tile) for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """As plain values for `json.dumps`; tensors without damage are left out."""
        return {
            **{name: value for name, value in asdict(self).items() if name != "tensors"},
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "tiles": {verdict: self.count(verdict) for verdict in VERDICTS},
            "tensors": [asdict(tensor) for tensor in self.tensors if tensor.regions],
        }

    def __str__(self) -> str:
        done = "restored" if self.action == "repair" else "can be restored"
        counts = {verdict: self.count(verdict) for verdict in VERDICTS}
        damaged = sum(counts.values()) - counts["intact"]
        lines = ["all weights intact" if self.header_damaged else "intact"]
        if damaged:
            lines = [f"{damaged} of {sum(counts.values())} tiles damaged"]
        meaning = {
            "exact": f"{done} bit for bit, proven by the digest",
            "bounded": f"{done} up to the bound, proven by the parity",
            "estimated": "regrown or filled in" if self.action == "repair" else "can only be estimated",
            "lost": "lost: floating-point weights are set to zero, others left as found",
            "changed": "look trained rather than damaged, and are left as found unless forced",
            "damaged": "not examined further",
        }
        lines += [f"{counts[verdict]} {text}" for verdict, text in meaning.items() if counts[verdict]]  # type: ignore[index]
        if self.header_damaged:
            can = "was" if self.action == "repair" else "can be"
            lines.append(f"the file's header or length {can} restored from the guard")
        if self.guard_mended:
            lines.append(f"the guard mended {self.guard_mended} bytes of its own")
        if self.guard_lost:
            lines.append(f"tiers of the guard beyond its own repair: {', '.join(self.guard_lost)}")
        return "; ".join([*lines, *self.notes])
