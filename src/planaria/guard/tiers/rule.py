"""The rule tier: an automaton for each tensor in which one pays. Specified in FORMAT.md, section 6."""

from dataclasses import asdict, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from planaria.checkpoints import Checkpoint, Entry
from planaria.detectors import Residual
from planaria.errors import InvalidGuard
from planaria.guard import rules
from planaria.guard.manifest import RuleShape
from planaria.guard.pieces import weights_of
from planaria.guard.tiers.base import Arrays, Tier, require_array
from planaria.pretrained.prior import takes
from planaria.repairers import Repairer
from planaria.repairers.regrow import Precision

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making

SHARE = 0.6  # of what digests leave; a rule that takes more leaves too little parity for small damage
LARGEST = 0.1  # of the bytes for memory: there one tensor's rule takes from all others
NO_STRUCTURE = f"neighbours tell less than {rules.LEAST_VARIANCE:.0%} of a weight"
NO_ROOM = "no room in the budget"


class RuleTier(Tier):
    """Rules, pretrained or fitted, that were measured to help; all other tensors have a reason why they have none."""

    name = "rule"

    def plan(self, making: "Making") -> None:
        """A pretrained rule is tried first. Where it tells less than neighbours do, one is fitted, largest tensors
        first while the budget lasts; of the bytes for memory, if there are any, a rule takes a tenth at most.
        """
        planning = _Planning(making)
        planning.look_for_structure()
        planning.fit()
        for rule in planning.found:
            making.measure(rule.shape.tensor, Residual(rules.repairer_of(rule.shape, rule.content)))
        self._explain(making, planning.reasons)

    def omit(self, making: "Making") -> None:
        _ = making.memory_room  # settled before reasons take bytes, as where there are rules
        self._explain(making, {"not asked for": list(range(len(making.layout.entries)))})

    def _explain(self, making: "Making", reasons: dict[str, list[int]]) -> None:
        making.manifest = replace(making.manifest, reasons=reasons)
        for reason, indices in reasons.items():
            making.say(f"no rule for {len(indices)} tensors: {reason}")
        making.shorten()  # the smallest guard has no room to explain itself

    def validate(self, guard: "GuardFile") -> None:
        entries = guard.entries
        for name in filter(self.owns, guard.arrays):
            require_array(guard, name, np.uint8, (guard.arrays[name].size,))
        for rule in guard.manifest.rules:
            shape = entries[rule.tensor].shape if rule.tensor < len(entries) else ()
            columns, cells = prod(shape[1:]), prod(rule.space)
            whole = not rule.space or cells == columns
            fits = whole if rule.stored else takes(rule.space) and columns % cells == 0
            if len(shape) < 2 or not fits:
                raise InvalidGuard(f"The guard has a rule of space {list(rule.space)} for a tensor of shape {shape}.")
            if not rule.stored and f"rule.{rule.tensor}" in guard.arrays:
                raise InvalidGuard(f"The guard stores a rule of tensor {rule.tensor} that comes with planaria.")

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        names, reasons = [entry.name for entry in guard.entries], _reasons(guard)
        return {
            "rules": [asdict(rule) | {"tensor": names[rule.tensor]} for rule in guard.manifest.rules],
            "reasons": {names[index]: reason for index, reason in reasons.items()},
        }

    @staticmethod
    def rule_of(guard: "GuardFile", tensor: int) -> tuple[RuleShape | None, Repairer | None]:
        """The tensor's rule, if there is one and it is not lost."""
        shape = next((rule for rule in guard.manifest.rules if rule.tensor == tensor), None)
        content = guard.arrays.get(f"rule.{tensor}", np.zeros(0, np.uint8))
        if shape is None or (shape.stored and not content.size):
            return None, None
        return shape, rules.repairer_of(shape, content.view(np.uint8))

    @staticmethod
    def worth_of(guard: "GuardFile", tensor: int) -> str:
        """What the tensor's rule is worth, in words, or why it has none."""
        rule = next((rule for rule in guard.manifest.rules if rule.tensor == tensor), None)
        if rule is None:
            reason = _reasons(guard).get(tensor)  # a small guard has no room for them
            return f"no: {reason}" if reason else "no"
        if f"rule.{tensor}" in guard.lost:
            return "lost"
        errors = [f"{error:.3g} at {rate:.0%}" for error, rate in zip(rule.errors, rule.rates, strict=True)]
        pretrained = "" if rule.stored else f" ({rule.recipe})"
        return ", ".join([*errors, f"{rule.tile_error:.3g} in lost tiles"]) + pretrained


def _reasons(guard: "GuardFile") -> dict[int, str]:
    """Why a tensor has no rule, by its index."""
    reasons = {index: reason for reason, indices in guard.manifest.reasons.items() for index in indices}
    return {index: reasons[index] for index in range(len(guard.entries)) if index in reasons}


class _Planning:
    """The search for rules that pay."""

    def __init__(self, making: "Making"):
        self.making, self.entries = making, making.layout.entries
        self.memory = making.memory_room
        self.room = float(making.allowed - making.size() if self.memory is None else self.memory)
        self.found: list[rules.MeasuredRule] = []
        self.reasons: dict[str, list[int]] = {}
        self.candidates: list[tuple[int, tuple[int, ...]]] = []  # to be fitted, with their spaces

    def look_for_structure(self) -> None:
        """Takes the pretrained rules that serve, and lists the tensors for which one may be fitted."""
        for index, entry in enumerate(self.entries):
            self.making.progress(index, len(self.entries), f"looking for structure in {entry.name}")
            if reason := self._pretrained_or_candidate(index, entry):
                self.reasons.setdefault(reason, []).append(index)

    def _pretrained_or_candidate(self, index: int, entry: Entry) -> str | None:
        """Why there is neither, or None."""
        making = self.making
        if reason := rules.why_not(entry):
            return reason
        space, predicted = rules.choose_space(_first_rows(making.checkpoint, entry))
        structureless = predicted < rules.LEAST_VARIANCE
        if structureless and not rules.has_kernels(entry.shape):
            return NO_STRUCTURE
        weights = weights_of(making.checkpoint.read(entry.name), entry)
        if not weights.float().isfinite().all():
            return "not all finite"  # as single precision, in which rules compute
        rule = rules.pretrained_for(
            weights,
            index,
            space,
            explained=predicted,
            tile_cells=self._tile_cells(entry),
            moments=making.moments.get(entry.name),
            seed=making.seed,
        )
        if rule is not None:
            manifest = replace(making.manifest, rules=(*making.manifest.rules, rule.shape))
            if not making.fits(manifest, {}):
                return NO_ROOM
            making.manifest = manifest
            self.found.append(rule)
            making.say(f"{entry.name}: the pretrained rule {rule.shape.recipe} takes no bytes and no fit")
        elif structureless:
            return NO_STRUCTURE
        elif rules.work(entry, space, making.schedule) > rules.MOST_WORK:
            return "a fit would take more than two minutes"
        else:
            self.candidates.append((index, space))
        return None

    def fit(self) -> None:
        """Fits the listed ones, largest tensors first, and keeps those that help."""
        making = self.making
        room = SHARE * self.room
        largest = room if self.memory is None else LARGEST * self.memory
        arrays: Arrays = {}
        for index, space in sorted(self.candidates, key=lambda candidate: -self.entries[candidate[0]].nbytes):
            entry = self.entries[index]
            sizes: dict[Precision, int] = {p: rules.record_bytes(p, space) for p in ("half", "byte")}
            small = [p for p, size in sizes.items() if size <= rules.MOST_BYTES * entry.nbytes]
            affordable = [p for p in small if sizes[p] <= min(room, largest)]
            if not affordable:
                reason = NO_ROOM if small else "a rule would take more than a quarter of its bytes"
                self.reasons.setdefault(reason, []).append(index)
                continue
            rule = rules.fit_for(
                weights_of(making.checkpoint.read(entry.name), entry),
                index,
                space,
                tile_cells=self._tile_cells(entry),
                precision=affordable[0],
                schedule=making.schedule,
                moments=making.moments.get(entry.name),
                device=making.device,
                seed=making.seed,
                on_iteration=lambda done, total, loss, name=entry.name: making.progress(done, total, f"fitting {name}"),  # type: ignore[misc]
            )
            if rule.harms:
                self.reasons.setdefault("worse than zero on held-out masks", []).append(index)
                continue
            room -= rule.content.nbytes
            self.found.append(rule)
            arrays[f"rule.{index}"] = rule.content
        making.add(replace(making.manifest, rules=tuple(rule.shape for rule in self.found)), arrays)

    def _tile_cells(self, entry: Entry) -> int:
        """Weights of a tile."""
        return self.making.layout.tile * prod(entry.shape) // max(entry.nbytes, 1)


def _first_rows(checkpoint: Checkpoint, entry: Entry) -> Tensor:
    """As many rows of a tensor as are looked at for structure."""
    rows = min(entry.shape[0], rules.PROBED_ROWS)
    nbytes = entry.nbytes // entry.shape[0] * rows
    part = Entry(entry.name, entry.dtype, (rows, *entry.shape[1:]), nbytes)
    return weights_of(checkpoint.read(entry.name, 0, nbytes), part).nan_to_num(0.0, 0.0, 0.0)
