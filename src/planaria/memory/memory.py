"""What is kept of tensors beside them: sketches of what they look like, and the check bits of the refinement."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.memory.refinement import Bounds, Refinement
from planaria.records import Record
from planaria.repairers import SpectralKriging
from planaria.sketches import FirstBits, LowFrequency, LowRankSketch, Sketch

BANDS = 24
PRIOR_BYTES = 4 + BANDS
ZLIB_FRAME = 6  # bytes around what zlib packs: a guard packs all that describes it at once
CODECS = ("low frequency", "low rank", "first bits")


@dataclass(frozen=True, kw_only=True)
class EncodedTensor:
    """What is kept of one tensor.

    Attributes:
        name, shape: of the tensor, float; the first axis by all others make the matrix that codecs see.
        codec: of its sketch; None without one.
        space: spatial axes that its columns end with, for what needs them.
        content: the sketch as stored.
        prior: the covariance of what the sketch leaves, as stored; empty without one.
        refined: whether the refinement covers it.
    """

    name: str
    shape: tuple[int, ...]
    codec: str | None = None
    space: tuple[int, ...] = ()
    content: UInt8[np.ndarray, " bytes"]
    prior: UInt8[np.ndarray, " prior_bytes"] = field(default_factory=lambda: np.zeros(0, np.uint8))
    refined: bool = False

    @property
    def matrix(self) -> tuple[int, int]:
        """Its rows and columns."""
        return matrix_shape(self.shape)

    @cached_property
    def sketch(self) -> Float[Tensor, "rows columns"]:
        """As `decode`, kept for the next time."""
        return self.decode()

    def decode(self) -> Float[Tensor, "rows columns"]:
        """The sketch, the same bits on every machine; zeros without one.

        Raises `InvalidInput` if its content is not sound.
        """
        if self.codec is None:
            return torch.zeros(self.matrix)
        return codec(self.codec, self.space).decode(self.content, self.matrix)

    def regrown(
        self, residual: Float[Tensor, "rows columns"], known: Bool[Tensor, "rows columns"]
    ) -> Float[Tensor, "rows columns"]:
        """What the prior makes of the residual's known weights. Raises `InvalidInput` if it is not sound."""
        if self.prior.nbytes != PRIOR_BYTES:
            raise InvalidInput(f"A prior takes {PRIOR_BYTES} bytes, not {self.prior.nbytes}.")
        unit = torch.from_numpy(self.prior[:4].copy()).view(torch.float32)
        if not (unit.isfinite().all() and (unit > 0).all()):
            raise InvalidInput("The unit of a prior is not a positive number.")
        record = Record({"variances": torch.from_numpy(self.prior[4:].copy()), "unit": unit})
        return SpectralKriging(self.space, bands=BANDS).restore(residual, known, record)


@dataclass(frozen=True)
class DecodedTensor:
    """What the memory says of a tensor's weights, in the tensor's shape, as float64.

    What it says of known weights is of no use.

    Attributes:
        value: the weight to expect; 0 where nothing is known.
        low, high: bounds that the refinement proves, to rounding in float32, if all weights that are called known are
            right; infinite elsewhere.
    """

    value: Float[Tensor, "*weight"]
    low: Float[Tensor, "*weight"]
    high: Float[Tensor, "*weight"]


@dataclass(frozen=True)
class Memory:
    """Side memory of some tensors. Made by a `Planner`.

    Attributes:
        tensors: what is kept of each.
        refinement: over those that it covers, in their order; None if it did not pay.
        strengths: of its stages: the shares of weights that may be missing.
        reasons: how it was decided, a line each, for people.
    """

    tensors: Sequence[EncodedTensor]
    refinement: Refinement | None = None
    strengths: Sequence[float] = ()
    reasons: Sequence[str] = ()

    @property
    def nbytes(self) -> int:
        """All of it: sketches, check bits and what says how to read them."""
        return sum(self.bytes_by_tier().values())

    def bytes_by_tier(self) -> dict[str, int]:
        """Bytes of sketches and priors ("sketch"), of the refinement and of the description, which is counted as packed
        JSON.
        """
        refinement = 0 if self.refinement is None else self.refinement.to_bytes().nbytes
        sketches = sum(kept.content.nbytes + kept.prior.nbytes for kept in self.tensors)
        used = [
            (number, kept.codec or "", kept.space, int(kept.refined), int(kept.prior.size > 0))
            for number, kept in enumerate(self.tensors)
            if kept.codec or kept.refined or kept.prior.size
        ]
        described = json.dumps([used, list(self.strengths)], separators=(",", ":")).encode()
        size = len(zlib.compress(described, 9)) - ZLIB_FRAME if used else 0
        return {"sketch": sketches, "refinement": refinement, "description": size}

    def decode(
        self,
        damaged: Mapping[str, Tensor],
        known: Mapping[str, Bool[Tensor, "..."]],
        *,
        spare: int = 0,
        threads: int = 1,
    ) -> tuple[dict[str, DecodedTensor], int]:
        """What is encoded of the missing weights, and the number of contradictions in the refinement.

        Contradictions say that a weight that is called known is not what it was. Known weights are not changed by this.

        Args:
            damaged: all tensors of the memory, by name; what missing weights hold is not looked at.
            known: by name, True where a weight is trusted; bool.
            spare: see `Refinement.decode`; for weights that are trusted without proof.
            threads: for the refinement; the result does not depend on them.

        Raises:
            InvalidInput: if a tensor is missing or of another shape, a mask is not bool, a weight that a prior starts
                from is known and not finite, or a sketch's content is not sound.
        """
        self._check(damaged, known)
        values = {kept.name: kept.sketch for kept in self.tensors}
        decoded = {}
        bounds: list[Bounds] = []
        contradictions = 0
        covered = [kept for kept in self.tensors if kept.refined]
        if self.refinement is not None and any(not known[kept.name].all() for kept in covered):
            present = [known[kept.name].reshape(kept.matrix).cpu().numpy() for kept in covered]
            residuals = [
                residual(damaged[kept.name], values[kept.name], mask)
                for kept, mask in zip(covered, present, strict=True)
            ]
            bounds, contradictions = self.refinement.decode(residuals, present, spare=spare, threads=threads)
        for kept, bound in zip(covered, bounds, strict=False):
            missing = ~known[kept.name].reshape(kept.matrix).cpu()
            parts = []
            for part, default in ((bound.mean, 0.0), (bound.low, -np.inf), (bound.high, np.inf)):
                full = torch.full(kept.matrix, default, dtype=torch.float64)
                full[missing] = torch.from_numpy(part)
                parts.append((full + values[kept.name]).view(kept.shape))
            decoded[kept.name] = DecodedTensor(*parts)
        for kept in self.tensors:
            if kept.name not in decoded:
                value = values[kept.name].double().view(kept.shape)
                decoded[kept.name] = DecodedTensor(
                    value, torch.full_like(value, -np.inf), torch.full_like(value, np.inf)
                )
            if kept.prior.size and not known[kept.name].all():
                decoded[kept.name] = _regrown(kept, decoded[kept.name], damaged[kept.name], known[kept.name])
        return decoded, contradictions

    def restore(self, damaged: Mapping[str, Tensor], known: Mapping[str, Bool[Tensor, "..."]]) -> dict[str, Tensor]:
        """Whole tensors: known weights bit for bit, the others as encoded. Raises as `decode` does.

        Finite where weights are missing. Tensors that the memory is not of come back as they are.
        """
        decoded, _ = self.decode(damaged, known)
        restored = dict(damaged)
        for name, says in decoded.items():
            tensor, limit = damaged[name], torch.finfo(damaged[name].dtype).max
            restored[name] = torch.where(known[name], tensor, says.value.clamp(-limit, limit).to(tensor))
        return restored

    def _check(self, damaged: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
        for kept in self.tensors:
            for what, tensors in (("weights", damaged), ("known mask", known)):
                came = tuple(tensors[kept.name].shape) if kept.name in tensors else None
                if came != kept.shape:
                    raise InvalidInput(
                        f"The memory is of {kept.name!r} of shape {kept.shape}; {what}: "
                        f"{'missing' if came is None else came}. Hand over all its tensors, as they were encoded."
                    )
            if known[kept.name].dtype != torch.bool:
                raise InvalidInput(f"The known mask of {kept.name!r} is a bool tensor, not {known[kept.name].dtype}.")


def _regrown(
    kept: EncodedTensor, decoded: DecodedTensor, damaged: Tensor, known: Bool[Tensor, "*weight"]
) -> DecodedTensor:
    """With what the prior says of weights that the refinement does not bound."""
    present = known.cpu().reshape(kept.matrix)
    open_ = (decoded.low.isinf() & decoded.high.isinf()).view(kept.matrix)
    left = torch.from_numpy(residual(damaged, kept.sketch, present.numpy()))
    value = torch.where(open_, kept.sketch + kept.regrown(left, present), decoded.value.view(kept.matrix))
    return replace(decoded, value=value.view(kept.shape))


def prior_of(residual: Float[Tensor, "rows columns"], space: tuple[int, ...]) -> UInt8[np.ndarray, " bytes"]:
    """The covariance of a residual as stored: the unit as float32, then a byte for each band."""
    record = SpectralKriging(space, bands=BANDS).prepare(residual)
    return np.concatenate([record["unit"].numpy().view(np.uint8), record["variances"].numpy()])


def codec(name: str, space: tuple[int, ...]) -> Sketch:
    """The codec of a name. Raises `InvalidInput` if there is none."""
    if name == "low frequency":
        return LowFrequency(space)
    if name == "low rank":
        return LowRankSketch()
    if name == "first bits":
        return FirstBits()
    raise InvalidInput(f"Unknown codec {name!r}. Codecs are: {', '.join(CODECS)}.")


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a tensor: its first axis by all others."""
    return (int(shape[0]), int(np.prod(shape[1:]))) if len(shape) > 1 else (1, int(np.prod(shape)))


def residual(
    weight: Tensor, sketch: Float[Tensor, "rows columns"], known: Bool[np.ndarray, "rows columns"] | None = None
) -> np.ndarray:
    """The weights less their sketch: float32, which float64 weights are rounded to, subtracted in float64.

    The same on every machine, so that a refinement finds each weight in the cell it was quantised to.
    """
    matrix = weight.detach().cpu().reshape(sketch.shape).float().double()
    if known is not None:
        matrix = torch.where(torch.from_numpy(known), matrix, 0.0)
    return (matrix - sketch.double()).numpy()
