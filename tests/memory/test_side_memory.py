"""A memory fills in what is missing, leaves what is known, and says how sure it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import drawn, mask, same_bits, smooth_sheets
from torch import Tensor

from planaria.errors import InvalidInput
from planaria.memory import Memory
from planaria.memory.memory import PRIOR_BYTES, EncodedTensor, codec, matrix_shape, prior_of, residual
from planaria.memory.refinement import Refinement

NOTHING = np.zeros(0, np.uint8)
WEIGHTS = {"sheets": smooth_sheets(40, 8, 8), "kernels": drawn(6, 3, 4, 4, name="kernels"), "bias": drawn(17)}
LEVELS = {"sheets": 0.3, "kernels": 0.7}


def blank(name: str, weight: Tensor) -> EncodedTensor:
    return EncodedTensor(name=name, shape=tuple(weight.shape), content=NOTHING)


def sketched(name: str, weight: Tensor, kind: str = "low rank") -> EncodedTensor:
    matrix = weight.float().reshape(matrix_shape(weight.shape))
    content = codec(kind, (8, 8)).analyse(matrix).encode(LEVELS.get(name, 0.5))
    return replace(blank(name, weight), codec=kind, space=(8, 8) if kind == "low frequency" else (), content=content)


def memory_of(weights: dict[str, Tensor], *, depth: int = 9, strength: float = 0.4) -> Memory:
    """A sketch for the sheets, and a refinement over all but the bias."""
    tensors = [
        replace(sketched(name, weight) if name == "sheets" else blank(name, weight), refined=name != "bias")
        for name, weight in weights.items()
    ]
    residuals = [residual(weights[of.name], of.sketch) for of in tensors if of.refined]
    depths = [np.full(of.shape[1], depth, np.uint8) for of in residuals]
    return Memory(tensors, Refinement.of(residuals, [depths], [strength]), [strength])


def masks(missing: float, seed: int = 0) -> dict[str, Tensor]:
    return {name: ~mask(*weight.shape, share=missing, seed=seed) for name, weight in WEIGHTS.items()}


def damaged(weights: dict[str, Tensor], known: dict[str, Tensor], rubbish: float = float("nan")) -> dict[str, Tensor]:
    return {name: torch.where(known[name], weight, rubbish) for name, weight in weights.items()}


def error(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9, 1.0])
def test_known_weights_stay_bit_for_bit_and_the_rest_is_finite(dtype: torch.dtype, missing: float) -> None:
    weights = {name: weight.to(dtype) for name, weight in WEIGHTS.items()}
    weights["bias"][:2] = torch.tensor([0.0, -0.0])
    known, memory = masks(missing), memory_of(weights)
    broken = damaged(weights, known)
    before = {name: tensor.clone() for name, tensor in broken.items()}
    restored = memory.restore(broken, known)
    decoded, contradictions = memory.decode(broken, known)
    assert contradictions == 0
    assert all(same_bits(broken[name], before[name]) for name in broken)
    for name, weight in weights.items():
        assert restored[name].dtype == dtype and restored[name].shape == weight.shape
        assert same_bits(restored[name][known[name]], weight[known[name]])
        assert restored[name].isfinite().all()
        # Told of missing weights alone.
        says, lost = decoded[name], ~known[name]
        rounding = 1e-6 * weight.double().abs().max()
        assert says.value.shape == says.low.shape == says.high.shape == weight.shape
        assert (says.low - rounding <= weight.double())[lost].all()
        assert (weight.double() <= says.high + rounding)[lost].all()
        assert ((says.low <= says.value) & (says.value <= says.high))[lost].all()
        told = says.low.isfinite() | says.high.isfinite()
        assert not told[known[name]].any()
        assert told[lost].all() if missing == 0.3 and name != "bias" else name != "bias" or not told.any()


def test_what_missing_weights_hold_does_not_matter() -> None:
    known, memory = masks(0.3), memory_of(WEIGHTS)
    one, other = (memory.restore(damaged(WEIGHTS, known, rubbish), known) for rubbish in (float("nan"), 1e30))
    assert all(same_bits(one[name], other[name]) for name in WEIGHTS)


def test_the_result_does_not_depend_on_threads() -> None:
    known, memory = masks(0.35), memory_of(WEIGHTS)
    one, other = (memory.decode(damaged(WEIGHTS, known), known, threads=threads)[0] for threads in (1, 2))
    assert all(same_bits(one[name].value, other[name].value) for name in WEIGHTS)


def test_a_wrong_known_weight_contradicts() -> None:
    known, memory = masks(0.2), memory_of(WEIGHTS)
    broken = damaged(WEIGHTS, known)
    place = tuple(known["kernels"].nonzero()[0])
    broken["kernels"][place] = 3 - broken["kernels"][place]
    assert memory.decode(broken, known)[1] > 0


def test_each_part_of_a_memory_lowers_the_error() -> None:
    weight, known = WEIGHTS["sheets"], mask(40, 64, share=0.5)
    sketch = sketched("sheets", weight, "low frequency")
    parts = {
        "nothing": blank("sheets", weight),
        "a prior": replace(blank("sheets", weight), space=(8, 8), prior=prior_of(weight, (8, 8))),
        "a sketch": sketch,
        "both": replace(sketch, prior=prior_of(weight - sketch.sketch, (8, 8))),
    }
    broken = {"sheets": torch.where(known, weight, float("nan"))}
    left = {
        name: error(Memory([of]).restore(broken, {"sheets": known})["sheets"], weight) for name, of in parts.items()
    }
    assert left["nothing"] == pytest.approx(error(torch.where(known, weight, 0.0), weight))
    assert left["a prior"] < 0.6 * left["nothing"] and left["a sketch"] < 0.6 * left["nothing"]
    assert left["both"] < 0.9 * min(left["a prior"], left["a sketch"])


def test_a_prior_fills_what_the_refinement_does_not_cover() -> None:
    weight, known = WEIGHTS["sheets"], mask(40, 64, share=0.7)
    matrix = residual(weight, torch.zeros(40, 64))
    depths = np.where(np.arange(64) < 32, 9, 0).astype(np.uint8)
    refinement = Refinement.of([matrix], [[depths]], [0.5])
    of = replace(blank("sheets", weight), refined=True)
    with_prior = replace(of, space=(8, 8), prior=prior_of(weight, (8, 8)))
    broken, masked = {"sheets": torch.where(known, weight, float("nan"))}, {"sheets": known}
    without, filled = (Memory([one], refinement, [0.5]).restore(broken, masked)["sheets"] for one in (of, with_prior))
    assert same_bits(without[:, :32], filled[:, :32])
    assert not without[:, 32:][~known[:, 32:]].any()
    assert error(filled[:, 32:], weight[:, 32:]) < 0.6 * error(without[:, 32:], weight[:, 32:])


def test_bytes_are_counted_by_tier() -> None:
    memory = memory_of(WEIGHTS)
    assert memory.refinement is not None
    tiers = memory.bytes_by_tier()
    assert tiers["sketch"] == memory.tensors[0].content.nbytes > 0
    assert tiers["refinement"] == memory.refinement.to_bytes().nbytes and tiers["description"] > 0
    assert memory.nbytes == sum(tiers.values())
    assert Memory([blank(name, weight) for name, weight in WEIGHTS.items()]).nbytes == 0


def test_tensors_that_the_memory_is_not_of_come_back_as_they_are() -> None:
    other = torch.tensor([float("nan"), 1.0])
    memory = Memory([blank("bias", WEIGHTS["bias"])])
    restored = memory.restore({"bias": WEIGHTS["bias"], "other": other}, {"bias": masks(0.5)["bias"]})
    assert restored["other"] is other


def test_half_precision_does_not_overflow() -> None:
    weight = torch.full((8, 8), 65504.0).half()
    of = replace(sketched("large", weight), content=sketched("large", weight.float() * 4).content)
    none = {"large": torch.zeros(8, 8, dtype=torch.bool)}
    assert Memory([of]).restore({"large": weight}, none)["large"].isfinite().all()


def test_other_tensors_and_masks_are_refused(unchecked: None) -> None:
    known, memory = masks(0.3), memory_of(WEIGHTS)
    broken = damaged(WEIGHTS, known)
    without = {name: tensor for name, tensor in broken.items() if name != "bias"}
    with pytest.raises(InvalidInput, match=r"'bias' of shape \(17,\); weights: missing"):
        memory.decode(without, known)
    with pytest.raises(InvalidInput, match=r"'sheets' of shape \(40, 64\); weights: \(64, 40\)"):
        memory.decode(broken | {"sheets": broken["sheets"].T}, known)
    with pytest.raises(InvalidInput, match=r"'kernels' of shape \(6, 3, 4, 4\); known mask: \(6, 48\)"):
        memory.restore(broken, known | {"kernels": known["kernels"].view(6, 48)})
    with pytest.raises(InvalidInput, match=r"'bias' is a bool tensor, not torch.uint8"):
        memory.restore(broken, known | {"bias": known["bias"].to(torch.uint8)})


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (np.zeros(5, np.uint8), f"takes {PRIOR_BYTES} bytes, not 5"),
        (np.zeros(PRIOR_BYTES, np.uint8), "unit of a prior"),
        (np.full(PRIOR_BYTES, 255, np.uint8), "unit of a prior"),
    ],
)
def test_priors_that_are_none_are_refused(prior: np.ndarray, message: str) -> None:
    known = masks(0.3)["sheets"]
    memory = Memory([replace(blank("sheets", WEIGHTS["sheets"]), space=(8, 8), prior=prior)])
    with pytest.raises(InvalidInput, match=message):
        memory.restore({"sheets": WEIGHTS["sheets"]}, {"sheets": known})


def test_sketches_that_are_none_are_refused() -> None:
    known, of = masks(0.3)["sheets"], sketched("sheets", WEIGHTS["sheets"])
    with pytest.raises(InvalidInput):
        Memory([replace(of, content=of.content[:-9])]).restore({"sheets": WEIGHTS["sheets"]}, {"sheets": known})
    with pytest.raises(InvalidInput, match="Unknown codec 'magic'"):
        Memory([replace(of, codec="magic")]).restore({"sheets": WEIGHTS["sheets"]}, {"sheets": known})


@pytest.mark.parametrize(("shape", "matrix"), [((5,), (1, 5)), ((3, 4), (3, 4)), ((2, 3, 4, 5), (2, 60)), ((), (1, 1))])
def test_a_tensor_is_a_matrix_of_its_first_axis_by_all_others(shape: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert matrix_shape(shape) == matrix
