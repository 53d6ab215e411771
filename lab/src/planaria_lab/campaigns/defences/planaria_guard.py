"""Planaria's guard, all of it or some of its tiers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from planaria.errors import InvalidGuard, InvalidInput, LooksDifferent, OtherModel, VerificationFailed
from planaria.guard import Guard, Report, TensorReport, protect
from planaria.guard.report import VERDICTS
from planaria.guard.tiers import TIERS
from planaria_lab.campaigns.defences.base import Defence, Masks, Protection, Restored, Tensors, verdict


class PlanariaGuard(Defence):
    """A guard of at most `budget`, or of at most `nbytes`, as `planaria.protect` makes it, read back from its bytes.

    Args:
        budget: share of the model's bytes, in (0, 1]; 0.02 if neither is given.
        nbytes: the same in bytes, for models of several sizes.
        tiers: those that are made, beside the digest.
        expect: share of weights that is expected to be lost; None for any.
        key: 64 hexadecimal digits, for a keyed digest; None for one without a key.
        told: whether it is told which weights are damaged.
        force: whether a model that looks retrained is repaired all the same, as by `planaria repair --force`; else the
            guard refuses it.
        seed: of fits.
    """

    def __init__(
        self,
        budget: float | None = None,
        *,
        nbytes: int | None = None,
        tiers: Sequence[str] = tuple(TIERS),
        expect: float | None = None,
        key: str | None = None,
        told: bool = False,
        force: bool = True,
        seed: int = 0,
    ):
        if budget is not None and nbytes is not None:
            raise InvalidInput(f"A guard has a budget or a number of bytes, not both: {budget} and {nbytes}.")
        self.nbytes = nbytes
        self.budget, self.tiers, self.expect, self.seed = 0.02 if budget is None else budget, tuple(tiers), expect, seed
        try:
            self.key = None if key is None else bytes.fromhex(key)
        except ValueError as error:
            raise InvalidInput(f"A key is 64 hexadecimal digits: {error}.") from error
        self.told = told  # type: ignore[misc]
        self.force = force

    def prepare(self, tensors: Tensors) -> Protection:
        budget = self.budget
        if self.nbytes is not None:
            budget = self.nbytes / max(sum(tensor.nbytes for tensor in tensors.values()), 1)
        made = protect(
            tensors, budget=budget, tiers=self.tiers, expect=self.expect, key=self.key, seed=self.seed, threads=1
        )
        return _Guarded(Guard.from_bytes(made.to_bytes(), key=self.key), force=self.force)


class _Guarded(Protection):
    def __init__(self, guard: Guard, *, force: bool):
        self.guard, self.force = guard, force

    @property
    def nbytes(self) -> int:
        return self.guard.size

    @property
    def file(self) -> bytes | None:
        return self.guard.to_bytes()

    def reading(self, file: bytes) -> Protection:
        try:
            return _Guarded(Guard.from_bytes(file, key=self.guard.key), force=self.force)
        except (InvalidGuard, InvalidInput):  # InvalidInput: another key, or none
            return _Refused(self.guard.size)

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        try:
            report = self._repaired(copies, known)
        except LooksDifferent:
            return Restored(tensors, refused=True)
        except (InvalidGuard, OtherModel, VerificationFailed):  # seen only when a tier is needed
            return _Refused(self.guard.size).restore(tensors)
        return Restored(copies, {of.name: _verdicts(of, tensors[of.name]) for of in report.tensors if of.regions})

    def _repaired(self, copies: dict[str, Tensor], known: Masks | None) -> Report:
        try:
            return self.guard.repair(copies, known=known, threads=1)
        except LooksDifferent:
            if not self.force:
                raise
            return self.guard.repair(copies, known=known, threads=1, force=True)


class _Refused(Protection):
    """A guard that cannot be used: nothing is known of any weight, and all are left as found."""

    def __init__(self, nbytes: int):
        self._nbytes = nbytes

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def restore(self, tensors: Tensors, known: Masks | None = None) -> Restored:
        everywhere = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in tensors.items()}
        return Restored(tensors, {name: verdict(mask, "lost") for name, mask in everywhere.items()})


def _verdicts(report: TensorReport, tensor: Tensor) -> Tensor:
    verdicts = torch.zeros(tensor.numel(), dtype=torch.uint8)
    size = tensor.element_size()
    for region in report.regions:
        verdicts[region.start // size : -(-region.stop // size)] = VERDICTS.index(region.verdict)
    return verdicts.view(tensor.shape)
