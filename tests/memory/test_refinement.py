"""The refinement: what it proves is true, it finds what it is strong enough for, and it is near the limit."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from helpers import drawn, examples, mask
from hypothesis import given
from hypothesis import strategies as st

from planaria.errors import InvalidInput
from planaria.memory import refinement as refinement_module
from planaria.memory.quantiser import FINEST, SIGN, thresholds
from planaria.memory.refinement import Bounds, Refinement
from planaria_lab.bounds import erasure_distortion

Matrix = np.ndarray[Any, Any]

SHAPES = [(40, 50), (100, 30), (1, 64)]


def matrices(seed: int = 0) -> list[Matrix]:
    """Of different scales."""
    return [
        drawn(*shape, seed=seed, name=f"matrix {number}").double().numpy() * 3.0**number
        for number, shape in enumerate(SHAPES)
    ]


def even(depth: int, residuals: list[Matrix]) -> list[Matrix]:
    """One depth for all columns."""
    return [np.full(of.shape[1], depth, np.uint8) for of in residuals]


def masks(residuals: list[Matrix], missing: float, seed: int = 0) -> list[Matrix]:
    return [~mask(*of.shape, share=missing, seed=seed + n).numpy() for n, of in enumerate(residuals)]


def broken(residuals: list[Matrix], known: list[Matrix]) -> list[Matrix]:
    return [np.where(there, of, np.nan) for of, there in zip(residuals, known, strict=True)]


def assert_true(bounds: list[Bounds], residuals: list[Matrix], known: list[Matrix]) -> None:
    for of, there, says in zip(residuals, known, bounds, strict=True):
        weights, rounding = of[~there], 1e-12 * np.abs(of).max()
        assert len(says.low) == len(says.high) == len(says.mean) == len(weights)
        assert (says.low - rounding <= weights).all() and (weights <= says.high + rounding).all()
        assert (says.low <= says.mean).all() and (says.mean <= says.high).all() and np.isfinite(says.mean).all()
        assert not says.mean[np.isinf(says.low) & np.isinf(says.high)].any()


def assert_found(bounds: list[Bounds], residuals: list[Matrix], known: list[Matrix], depth: int) -> None:
    """Each missing weight is in its cell."""
    for of, there, says in zip(residuals, known, bounds, strict=True):
        scale = np.float32(np.sqrt(np.square(of).mean()))
        edges = np.concatenate([[-np.inf], thresholds(depth), [np.inf]]) * float(scale)
        cells = np.searchsorted(edges[1:-1], of[~there], side="right")
        np.testing.assert_allclose(says.low, edges[cells], rtol=1e-6)
        np.testing.assert_allclose(says.high, edges[cells + 1], rtol=1e-6)


def equal(one: tuple[list[Bounds], int], other: tuple[list[Bounds], int]) -> bool:
    return one[1] == other[1] and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one[0], other[0], strict=True)
        for name in ("low", "high", "mean")
    )


# --- What comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [SIGN, 3, 9, FINEST])
@pytest.mark.parametrize("damage", ["scattered", "rows", "a tensor"])
def test_below_its_strength_every_missing_weight_is_found(depth: int, damage: str) -> None:
    residuals = matrices()
    if damage == "scattered":
        known = masks(residuals, 0.3)
    else:
        known = [np.ones(of.shape, bool) for of in residuals]
        if damage == "rows":
            known[0][3:15] = known[1][:20] = False
        else:
            known[0][:] = False  # 2,000 of 5,064 weights
    refinement = Refinement.of(residuals, [even(depth, residuals)], [0.45])
    bounds, contradictions = refinement.decode(broken(residuals, known), known)
    assert contradictions == 0
    assert_true(bounds, residuals, known)
    assert_found(bounds, residuals, known, depth)


@given(
    missing=st.sampled_from([0.05, 0.3, 0.6, 0.95, 1.0]),
    strength=st.sampled_from([0.02, 0.3, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
@examples(10)
def test_what_it_says_is_true_at_any_damage_whatever_the_depths(missing: float, strength: float, seed: int) -> None:
    residuals = matrices(seed)
    draws = np.random.default_rng(seed)
    coarse = [draws.choice([0, SIGN, 8, 11], of.shape[1]).astype(np.uint8) for of in residuals]
    fine = [np.where(of >= 8, of + 8, np.where(of == SIGN, 14, of)).astype(np.uint8) for of in coarse]
    refinement = Refinement.of(residuals, [coarse, fine], [strength, 0.5 * strength])
    known = masks(residuals, missing, seed)
    bounds, contradictions = refinement.decode(broken(residuals, known), known)
    assert contradictions == 0
    assert_true(bounds, residuals, known)


def test_heavy_damage_leaves_the_first_stage_and_light_damage_both() -> None:
    residuals = matrices()
    refinement = Refinement.of(residuals, [even(SIGN, residuals), even(12, residuals)], [0.8, 0.2])
    for missing, depth in ((0.15, 12), (0.7, SIGN)):
        known = masks(residuals, missing)
        bounds, contradictions = refinement.decode(broken(residuals, known), known)
        assert contradictions == 0
        assert_true(bounds, residuals, known)
        if depth == SIGN:
            for of, there, says in zip(residuals, known, bounds, strict=True):
                assert ((says.mean > 0) == (of[~there] >= 0)).all()
        else:
            assert_found(bounds, residuals, known, depth)


def test_two_stages_say_what_one_of_the_finer_depths_says() -> None:
    residuals = matrices()
    known = masks(residuals, 0.2)
    one, two = (
        Refinement.of(residuals, [even(depth, residuals) for depth in depths], [0.4] * len(depths))
        for depths in ([16], [8, 16])
    )
    for a, b in zip(*(refinement.decode(broken(residuals, known), known)[0] for refinement in (one, two)), strict=True):
        assert np.array_equal(a.low, b.low) and np.array_equal(a.high, b.high)
        np.testing.assert_allclose(a.mean, b.mean, rtol=1e-9)


def test_a_wrong_known_weight_is_noticed() -> None:
    residuals = matrices()
    refinement = Refinement.of(residuals, [even(12, residuals)], [0.3])
    known = masks(residuals, 0.1)
    wrong = broken(residuals, known)
    place = tuple(np.argwhere(known[1])[0])
    wrong[1][place] = -wrong[1][place]
    assert refinement.decode(wrong, known)[1] > 0
    wrong[1][place] = np.nan
    assert refinement.decode(wrong, known)[1] > 0


def test_the_result_does_not_depend_on_threads() -> None:
    residuals = [drawn(300, 500).double().numpy()]  # segments of the code, so that threads have something to share
    refinements = [Refinement.of(residuals, [even(3, residuals)], [0.9], threads=threads) for threads in (1, 3)]
    assert np.array_equal(*(refinement.to_bytes() for refinement in refinements))
    for missing in (0.5, 0.97):
        known = masks(residuals, missing)
        assert equal(*(refinements[0].decode(broken(residuals, known), known, threads=threads) for threads in (1, 3)))


def test_weights_beyond_a_segment_are_coded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement_module, "SEGMENT", 1000)
    residuals = matrices()
    depths = even(SIGN, residuals)
    depths[2][0] = FINEST  # one long code, so that segments have different numbers of planes
    refinement = Refinement.of(residuals, [depths], [0.5])
    assert len({len(segment) for segment in refinement.stages[0].planes}) == 2 and len(refinement.stages[0].planes) == 6
    read = Refinement.from_bytes(refinement.to_bytes(), SHAPES)
    known = masks(residuals, 0.3)
    found = read.decode(broken(residuals, known), known)
    assert found[1] == 0 and equal(found, refinement.decode(broken(residuals, known), known))
    assert_true(found[0], residuals, known)
    assert all(np.isfinite(says.mean).all() and says.mean.all() for says in found[0])


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e38])
def test_tiny_and_huge_weights_are_found_like_others(scale: float) -> None:
    residuals = [drawn(40, 50).double().numpy() * scale]
    known = masks(residuals, 0.2)
    refinement = Refinement.of(residuals, [even(12, residuals)], [0.4])
    bounds, contradictions = Refinement.from_bytes(refinement.to_bytes(), [(40, 50)]).decode(
        broken(residuals, known), known
    )
    assert contradictions == 0
    assert_true(bounds, residuals, known)
    error = (bounds[0].mean - residuals[0][~known[0]]) / scale
    assert np.square(error).mean() < 0.02


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
def test_a_constant_tensor_is_found(value: float) -> None:
    residuals = [np.full((20, 30), value)]
    known = masks(residuals, 0.2)
    bounds, contradictions = Refinement.of(residuals, [even(20, residuals)], [0.5]).decode(
        broken(residuals, known), known
    )
    assert contradictions == 0
    assert_true(bounds, residuals, known)
    np.testing.assert_allclose(bounds[0].mean, value, atol=0.1 * abs(value) + 0.1 * (value == 0))


def test_without_missing_weights_there_is_nothing_to_say() -> None:
    residuals = matrices()
    known = [np.ones(of.shape, bool) for of in residuals]
    bounds, contradictions = Refinement.of(residuals, [even(3, residuals)], [0.5]).decode(residuals, known)
    assert contradictions == 0 and all(len(says.mean) == 0 for says in bounds)


# --- How near the limit ----------------------------------------------------------------------------------------------


def distance(depth: int, missing: float) -> float:
    """Decibels above D = 2^(-2 r / p) for 2^20 Gaussian weights, all bytes counted."""
    residuals = [drawn(1024, 1024).double().numpy()]
    known = masks(residuals, missing)
    refinement = Refinement.of(residuals, [even(depth, residuals)], [missing])
    bounds, _ = refinement.decode(broken(residuals, known), known)
    error = np.square(bounds[0].mean - residuals[0][~known[0]]).mean()
    rate = 8 * refinement.to_bytes().nbytes / 2**20
    return float(10 * np.log10(error / erasure_distortion(rate, missing)))


@pytest.mark.parametrize(("depth", "missing"), [(4, 0.1), (2, 0.5), pytest.param(SIGN, 0.9, marks=pytest.mark.long)])
def test_independent_weights_are_restored_within_two_decibels_of_the_limit(depth: int, missing: float) -> None:
    assert 0 < distance(depth, missing) <= 2


@pytest.mark.long
@pytest.mark.parametrize("missing", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_at_any_share_of_losses_the_mean_distance_is_at_most_two_decibels(missing: float) -> None:
    # Signs, the fixed depths, and of the even ones those on the lower convex hull.
    distances = [distance(depth, missing) for depth in (SIGN, 2, 3, 4, 5, 6, 7, 11, 15)]
    # How many weights are lost varies, by a share of its mean that is the larger the fewer they are.
    assert np.mean(distances) <= (2 if missing >= 0.1 else 2.1) and max(distances) <= 2.4


# --- As bytes --------------------------------------------------------------------------------------------------------


def two_stages() -> Refinement:
    residuals = matrices()
    fine = [np.where(np.arange(of.shape[1]) % 3, 9, SIGN).astype(np.uint8) for of in residuals]
    return Refinement.of(residuals, [even(SIGN, residuals), fine], [0.5, 0.1])


def test_bytes_come_back_as_the_same_refinement() -> None:
    refinement, residuals = two_stages(), matrices()
    content = refinement.to_bytes()
    read = Refinement.from_bytes(content, SHAPES)
    assert np.array_equal(read.to_bytes(), content) and np.array_equal(read.scales, refinement.scales)
    for missing in (0.05, 0.4, 0.8):
        known = masks(residuals, missing)
        damaged = broken(residuals, known)
        assert equal(read.decode(damaged, known), refinement.decode(damaged, known))


def test_bytes_that_are_cut_off_or_too_many_are_refused() -> None:
    content = two_stages().to_bytes()
    for length in (0, 4, 5, 16, 17, 21, 40, len(content) // 2, len(content) - 1):
        with pytest.raises(InvalidInput, match=r"cut off|unpacked|one depth for each"):
            Refinement.from_bytes(content[:length], SHAPES)
    with pytest.raises(InvalidInput, match="1 bytes too many"):
        Refinement.from_bytes(np.append(content, np.uint8(0)), SHAPES)


def test_bytes_of_other_tensors_are_refused() -> None:
    content = two_stages().to_bytes()
    with pytest.raises(InvalidInput, match="for 3 tensors; there are 2"):
        Refinement.from_bytes(content, SHAPES[:2])
    with pytest.raises(InvalidInput, match="not one depth for each column"):
        Refinement.from_bytes(content, [(40, 51), *SHAPES[1:]])


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_none_are_refused(scale: float) -> None:
    content = two_stages().to_bytes().copy()
    content[5:9] = np.array([scale], "<f4").view(np.uint8)
    with pytest.raises(InvalidInput, match="scales of the refinement are not all positive"):
        Refinement.from_bytes(content, SHAPES)


@pytest.mark.parametrize("stages", [0, 9, 255])
def test_no_stages_and_too_many_are_refused(stages: int) -> None:
    content = two_stages().to_bytes().copy()
    content[0] = stages
    with pytest.raises(InvalidInput, match=f"has {stages} stages"):
        Refinement.from_bytes(content, SHAPES)


def stored(depths: list[list[int]], windows: int = 8) -> Matrix:
    """A refinement of one tensor, with a plane of 8 check bits a stage."""
    parts = [struct.pack("<BIf", len(depths), 1, 1.0)]
    for stage in depths:
        packed = zlib.compress(bytes(stage))
        parts += [struct.pack("<I", len(packed)), packed, struct.pack("<BIH", 1, 8, windows), b"?"]
    return np.frombuffer(b"".join(parts), np.uint8)


def test_depths_that_do_not_exist_or_do_not_refine_are_refused() -> None:
    assert len(Refinement.from_bytes(stored([[8, 1], [12, 11]]), [(20, 2)]).stages) == 2
    for depths in ([[FINEST + 1, 1]], [[8, 255]], [[8, 1], [11, 11]], [[8, 1], [12, 0]], [[1, 1], [1, 2]]):
        with pytest.raises(InvalidInput, match="do not refine"):
            Refinement.from_bytes(stored(depths), [(20, 2)])


@pytest.mark.parametrize("windows", [0, 2**14 + 1, 2**16 - 1])
def test_windows_that_no_code_has_are_refused(windows: int) -> None:
    with pytest.raises(InvalidInput, match="windows of the refinement are not all 1 to 16384 words"):
        Refinement.from_bytes(stored([[5, 1]], windows), [(20, 2)])


@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
@examples(25)
def test_any_changed_byte_is_refused_or_read_without_harm(place: int, value: int) -> None:
    residuals = matrices()
    known = masks(residuals, 0.3)
    content = two_stages().to_bytes().copy()
    content[place % len(content) if place % 2 else place % 120] ^= value
    try:
        bounds, _ = Refinement.from_bytes(content, SHAPES).decode(broken(residuals, known), known)
    except InvalidInput:
        return
    for says in bounds:
        assert np.isfinite(says.mean).all() and (says.low <= says.high).all()


@pytest.mark.parametrize("strengths", [[0.0], [1.1], [-0.5], [0.2, 0.5], [], [0.5] * 9, [float("nan")]], ids=str)
def test_strengths_that_are_none_or_increase_are_refused(strengths: list[float]) -> None:
    residuals = matrices()
    with pytest.raises(InvalidInput, match=r"trengths of a refinement|1 to 8 stages"):
        Refinement.of(residuals, [even(SIGN, residuals) for _ in strengths], strengths)


def test_stages_that_do_not_refine_are_refused() -> None:
    residuals = matrices()
    with pytest.raises(InvalidInput, match="Rung 6 does not refine depth 5"):
        Refinement.of(residuals, [even(5, residuals), even(6, residuals)], [0.5, 0.2])
