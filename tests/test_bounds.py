"""The bounds against closed forms, simulations that must not beat them, and one another."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.codes import ReedSolomon
from planaria.errors import InvalidInput
from planaria.streams import generator
from planaria_lab import bounds
from planaria_lab.bounds import (
    conditional_covariance,
    entropy_power,
    erasure_distortion,
    erasure_rate,
    estimated_covariance,
    is_achievable,
    kriging_distortion,
    lossless_rate_known,
    lossless_rate_unknown,
    noise_distortion,
    profile_area,
    recovered_bits,
    reed_solomon_rate,
    reverse_water_filling,
    stored_copy_distortion,
)

Array = np.ndarray[Any, Any]
PAGE = Path(__file__).parent.parent / "docs" / "bounds.md"

rates = st.floats(0, 6)
shares = st.floats(0.05, 1)
variances = st.floats(1e-6, 1e6)
seeds = st.integers(0, 999)


def source(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(generator(seed, "test bounds").initial_seed())


def covariance(size: int, *, rank: int | None = None, seed: int = 0) -> Array:
    factor = source(seed).normal(size=(size, rank or size + 2))
    return factor @ factor.T


def quantised(weights: Array, step: float) -> tuple[float, float]:
    """Entropy in bits and mean squared error of a uniform scalar quantiser with centroids."""
    _, cells, counts = np.unique(np.round(weights / step), return_inverse=True, return_counts=True)
    frequencies = counts / weights.size
    centroids = np.bincount(cells, weights) / counts
    return float(-(frequencies @ np.log2(frequencies))), float(np.square(weights - centroids[cells]).mean())


# --- Independent weights ---------------------------------------------------------------------------------------------


@given(rate=rates, missing=shares, variance=variances)
def test_rate_and_error_are_inverse(rate: float, missing: float, variance: float) -> None:
    error = erasure_distortion(rate, missing, variance=variance)
    assert erasure_rate(error, missing, variance=variance) == pytest.approx(rate, abs=1e-9)
    assert recovered_bits(error, variance=variance) == pytest.approx(rate / missing, abs=1e-9)


@given(missing=shares, variance=variances)
def test_no_bits_leave_the_variance_and_many_leave_nothing(missing: float, variance: float) -> None:
    assert erasure_distortion(0, missing, variance=variance) == variance
    assert erasure_distortion(1e4, missing, variance=variance) == 0
    assert erasure_rate(0.0, missing, variance=variance) == math.inf
    assert erasure_rate(2 * variance, missing, variance=variance) == 0


@given(one=rates, other=rates, missing=shares)
def test_error_falls_with_the_rate_and_is_convex_in_it(one: float, other: float, missing: float) -> None:
    low, high = sorted((one, other))
    errors = [erasure_distortion(rate, missing) for rate in (low, (low + high) / 2, high)]
    assert errors[0] >= errors[1] >= errors[2] and errors[1] <= (errors[0] + errors[2]) / 2 * (1 + 1e-12)


@given(rate=rates, missing=shares, variance=variances)
def test_a_copy_does_not_beat_the_bound_and_meets_it_where_all_is_missing(
    rate: float, missing: float, variance: float
) -> None:
    copy = stored_copy_distortion(rate, variance=variance)
    assert copy * (1 + 1e-12) >= erasure_distortion(rate, missing, variance=variance)
    assert copy == pytest.approx(erasure_distortion(rate, 1.0, variance=variance))
    assert copy == pytest.approx(variance * 2.0 ** (-2 * rate))


def test_arguments_broadcast() -> None:
    table = erasure_distortion(np.array([[0.25], [1.0]]), np.array([0.1, 0.5, 1.0]), variance=2.0)
    assert np.shape(table) == (2, 3)
    assert np.allclose(table, 2 * np.exp2([[-5, -1, -0.5], [-20, -4, -2]]))


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("missing", [0.1, 0.7, 1.0])
def test_parity_over_a_scalar_quantiser_stays_above_the_bound_by_at_most_a_quarter_bit(
    step: float, missing: float
) -> None:
    entropy, error = quantised(source().normal(size=100_000), step)
    rate = lossless_rate_known(missing, entropy)
    least = erasure_distortion(rate, missing)
    # Gish and Pierce 1968: entropy-coded uniform quantisation costs at most log2(pi e / 6) / 2 = 0.2546 bits.
    assert 0.99 * least <= error <= 1.01 * math.pi * math.e / 6 * least


def test_a_scalar_quantiser_of_laplace_weights_stays_between_the_bounds_of_entropy_power_and_variance() -> None:
    weights = source().laplace(size=100_000)
    entropy, error = quantised(weights, 0.2)
    assert entropy_power(weights) < 0.9 * weights.var()
    assert erasure_distortion(entropy, 1.0, variance=entropy_power(weights)) <= 1.01 * error
    assert error <= erasure_distortion(entropy - 0.2546, 1.0, variance=weights.var())


@pytest.mark.parametrize(
    ("law", "share"), [("normal", 1.0), ("laplace", math.e / math.pi), ("uniform", 6 / math.pi / math.e)]
)
def test_entropy_power_is_that_of_the_law(law: str, share: float) -> None:
    weights = 3 * getattr(source(), law)(size=(200, 200)) + 5
    assert entropy_power(weights) == pytest.approx(share * weights.var(), rel=0.03)
    assert entropy_power(weights.astype(np.float32)) == pytest.approx(share * weights.var(), rel=0.03)


@given(rate=rates, noise=variances, variance=variances)
def test_added_noise_leaves_less_than_noise_or_weights_alone(rate: float, noise: float, variance: float) -> None:
    error = noise_distortion(rate, noise, variance=variance)
    assert 0 < error < min(noise, variance) * 2.0 ** (-2 * rate) * (1 + 1e-12)
    assert noise_distortion(rate, variance, variance=noise) == pytest.approx(error)
    assert noise_distortion(rate, 1e15 * variance, variance=variance) == pytest.approx(
        stored_copy_distortion(rate, variance=variance)
    )


def test_regression_on_noisy_weights_meets_the_bound_of_added_noise() -> None:
    weights, noise = 2 * source(1).normal(size=200_000), 0.7 * source(2).normal(size=200_000)
    seen = weights + noise
    error = np.square(weights - seen * (seen @ weights) / (seen @ seen)).mean()
    assert error == pytest.approx(noise_distortion(0, 0.49, variance=4.0), rel=0.01)


# --- The area law ----------------------------------------------------------------------------------------------------

layers = st.lists(st.tuples(shares, st.floats(0, 4)), min_size=1, max_size=6)


@given(layers=layers, order=st.randoms(use_true_random=False))
def test_priority_encoding_has_the_area_that_it_costs(layers: list[tuple[float, float]], order: Any) -> None:
    order.shuffle(layers)
    missing, each = np.array(layers).T
    bits = (each * (missing >= missing[:, None])).sum(1)  # layers that can still be restored
    cost = float(missing @ each)
    assert profile_area(missing, bits) == pytest.approx(cost, abs=1e-12)
    assert is_achievable(cost, missing, bits)
    assert not is_achievable(cost, missing, bits + 1e-6)


def test_a_simulated_priority_encoding_measures_its_own_cost() -> None:
    # Uniform weights, because a uniform quantiser refines them without loss: b bits leave 4^-b of the variance.
    weights = source().random(200_000)
    strengths, each = np.array([0.8, 0.5, 0.2]), np.array([1, 2, 3])
    bits = []
    for missing in (0.2, 0.5, 0.8, 0.9):
        lost = source(1).random(weights.size) < missing
        levels = 2 ** each[strengths >= missing].sum()
        filled = (np.floor(weights[lost] * levels) + 0.5) / levels
        bits.append(recovered_bits(float(np.square(filled - weights[lost]).mean()), variance=1 / 12))
    assert np.allclose(bits, [6, 3, 1, 0], atol=0.01)
    assert profile_area(np.array([0.2, 0.5, 0.8, 0.9]), np.array(bits)) == pytest.approx(strengths @ each, abs=0.01)


def test_a_profile_is_its_least_falling_envelope_in_any_order() -> None:
    missing, bits = np.array([0.5, 0.1, 0.9, 0.3]), np.array([2.0, 1.0, -3.0, 0.5])
    assert profile_area(missing, bits) == pytest.approx(0.5 * 2)
    assert profile_area(np.array([0.4, 0.4]), np.array([1.0, 3.0])) == pytest.approx(0.4 * 3)
    assert profile_area(np.array([0.4, 0.4]), np.array([3.0, 1.0])) == pytest.approx(0.4 * 3)
    assert is_achievable(0.0, np.array([0.5]), np.array([-1.0]))


@given(layers=layers, more=st.tuples(shares, st.floats(0, 4)))
def test_a_point_more_never_lowers_the_area(layers: list[tuple[float, float]], more: tuple[float, float]) -> None:
    before, after = np.array(layers).T, np.array([*layers, more]).T
    assert profile_area(*before) <= profile_area(*after) + 1e-12


@given(rate=rates, missing=shares)
def test_a_guard_for_one_share_reaches_just_the_erasure_bound(rate: float, missing: float) -> None:
    bits = float(recovered_bits(float(erasure_distortion(rate, missing))))
    assert is_achievable(rate + 1e-9, np.array([missing]), np.array([bits]))
    assert not is_achievable(rate, np.array([missing]), np.array([bits + 1e-6]))


@given(correlation=st.floats(0.01, 0.999))
def test_the_area_above_the_rate_does_not_exceed_the_redundancy_of_gaussian_pairs(correlation: float) -> None:
    missing = np.linspace(0.001, 1, 1000)
    error = 1 - (1 - missing) * correlation**2  # a weight's partner survives with 1 - missing
    area = profile_area(missing, np.asarray(recovered_bits(error)))
    assert 0 < area < -math.log2(1 - correlation**2) / 4


# --- Correlated weights ----------------------------------------------------------------------------------------------


def test_one_of_a_pair_is_known() -> None:
    pair = np.array([[4.0, 1.2], [1.2, 1.0]])
    known = np.array([False, True])
    assert np.allclose(conditional_covariance(pair, known), [[4 - 1.44]])
    assert np.allclose(conditional_covariance(pair, ~known), [[1 - 0.36]])
    assert kriging_distortion(pair, known) == pytest.approx(4 - 1.44)
    assert np.allclose(conditional_covariance(pair, np.array([False, False])), pair)


@given(seed=seeds, size=st.integers(2, 6))
def test_conditional_covariance_is_a_block_of_the_inverse_inverted(seed: int, size: int) -> None:
    whole = covariance(size, seed=seed)
    known = np.append(source(seed).random(size - 1) < 0.5, False)
    precision = np.linalg.inv(whole)
    expected = np.linalg.inv(precision[np.ix_(~known, ~known)])
    assert np.allclose(conditional_covariance(whole, known), expected, rtol=1e-5, atol=1e-8)


@given(seed=seeds, size=st.integers(2, 5))
def test_the_chain_rule_over_shares_of_survivors_gives_the_determinant(seed: int, size: int) -> None:
    # The area theorem: log variance of a weight given a random set of others, averaged over p, sums to log det.
    whole, total = covariance(size, seed=seed), 0.0
    for weight in range(size):
        others = [other for other in range(size) if other != weight]
        for count in range(size):
            chance = math.factorial(count) * math.factorial(size - 1 - count) / math.factorial(size)
            for survivors in itertools.combinations(others, count):
                part = [weight, *survivors]
                known = np.array([False] + [True] * count)
                total += chance * math.log(kriging_distortion(whole[np.ix_(part, part)], known))
    assert total == pytest.approx(np.linalg.slogdet(whole)[1], abs=1e-6)


def test_conditional_variance_is_the_error_of_regression() -> None:
    whole = covariance(6, seed=3)
    samples = source().multivariate_normal(np.zeros(6), whole, size=100_000)
    known = np.array([True, False, True, True, False, False])
    weights, *_ = np.linalg.lstsq(samples[:, known], samples[:, ~known], rcond=None)
    error = np.square(samples[:, ~known] - samples[:, known] @ weights).mean()
    assert kriging_distortion(whole, known) == pytest.approx(error, rel=0.02)


def test_known_weights_may_be_redundant_and_constant() -> None:
    whole = np.zeros((4, 4))
    whole[:3, :3] = np.array([[2.0, 2, 1], [2, 2, 1], [1, 1, 2]])  # the first two are one, the last does not vary
    known = np.array([True, True, False, True])
    assert np.allclose(conditional_covariance(whole, known), [[2 - 1 / 2]])
    assert kriging_distortion(whole, np.array([True, False, True, True])) == pytest.approx(0, abs=1e-12)


@given(seed=seeds, size=st.integers(3, 8), rank=st.integers(1, 8))
def test_a_further_survivor_never_hurts(seed: int, size: int, rank: int) -> None:
    whole = covariance(size, rank=rank, seed=seed)
    few = np.arange(size) >= size - 1
    more = np.arange(size) >= size - 2
    of_few = np.diagonal(conditional_covariance(whole, few))[:-1]
    assert (np.diagonal(conditional_covariance(whole, more)) <= of_few + 1e-9 * whole.max()).all()


eigenvalues = st.lists(st.floats(0, 10) | st.just(0.0) | st.just(1.0), min_size=1, max_size=8).map(np.array)


def test_water_filling_by_hand() -> None:
    filled = reverse_water_filling(np.array([1.0, 4.0, 0.25, 0.0]), 0.75)
    assert (filled.distortion, filled.level) == (pytest.approx(0.1875), pytest.approx(0.25))
    assert np.allclose(filled.bits, [1, 2, 0, 0])
    weighed = reverse_water_filling(np.array([1.0, 1.0]), 1.0, importance=np.array([4.0, 1.0]))
    assert np.allclose(weighed.bits, [1.5, 0.5]) and weighed.level == pytest.approx(0.5)


@given(rate=rates, variance=variances, count=st.integers(1, 9))
def test_equal_eigenvalues_get_the_error_of_independent_weights(rate: float, variance: float, count: int) -> None:
    filled = reverse_water_filling(np.full(count, variance), rate)
    assert filled.distortion == pytest.approx(stored_copy_distortion(rate, variance=variance))
    assert np.allclose(filled.bits, rate)


@given(rate=rates, missing=st.integers(1, 6))
def test_uncorrelated_weights_meet_the_erasure_bound(rate: float, missing: int) -> None:
    conditional = conditional_covariance(3 * np.eye(6), np.arange(6) >= missing)
    filled = reverse_water_filling(np.linalg.eigvalsh(conditional), rate / (missing / 6))
    assert filled.distortion == pytest.approx(erasure_distortion(rate, missing / 6, variance=3.0))


@given(values=eigenvalues, rate=rates)
def test_bits_add_up_and_levels_are_equal_where_there_are_any(values: Array, rate: float) -> None:
    filled = reverse_water_filling(values, rate)
    left = values * np.exp2(-2 * filled.bits)
    assert filled.bits.mean() == pytest.approx(rate if values.any() else 0.0, abs=1e-9)
    assert filled.distortion == pytest.approx(left.mean())
    assert np.allclose(left[filled.bits > 0], filled.level)
    assert (values[filled.bits == 0] <= filled.level * (1 + 1e-9)).all()


@given(values=eigenvalues, rate=rates, seed=seeds)
def test_no_other_split_of_the_bits_does_better(values: Array, rate: float, seed: int) -> None:
    importance = source(seed).random(values.size) * 3
    filled = reverse_water_filling(values, rate, importance=importance)
    for share in (source(seed + 1).dirichlet(np.ones(values.size)), np.full(values.size, 1 / values.size)):
        other = (importance * values * np.exp2(-2 * rate * values.size * share)).mean()
        assert filled.distortion <= other * (1 + 1e-9)


@given(values=eigenvalues, one=rates, other=rates)
def test_water_filling_falls_with_the_rate_and_is_convex_in_it(values: Array, one: float, other: float) -> None:
    low, high = sorted((one, other))
    errors = [reverse_water_filling(values, rate).distortion for rate in (low, (low + high) / 2, high)]
    slack = 1e-9 * (1 + errors[0])
    assert errors[0] + slack >= errors[1] and errors[1] + slack >= errors[2]
    assert errors[1] <= (errors[0] + errors[2]) / 2 + slack


@given(seed=seeds, size=st.integers(2, 8))
def test_kriging_is_water_filling_without_bits(seed: int, size: int) -> None:
    whole, known = covariance(size, seed=seed), np.arange(size) % 2 == 1
    filled = reverse_water_filling(np.linalg.eigvalsh(conditional_covariance(whole, known)), 0)
    assert filled.distortion == pytest.approx(kriging_distortion(whole, known))
    assert not filled.bits.any()


def test_endless_bits_leave_nothing_and_nothing_needs_no_bits() -> None:
    assert reverse_water_filling(np.array([1.0, 3.0]), 5000.0).distortion == 0
    rounded = reverse_water_filling(np.array([1.0, -1e-12]), 5000.0)
    assert rounded.distortion == 0 and rounded.bits.tolist() == [10_000, 0]
    nothing = reverse_water_filling(np.zeros(3), 1.0)
    assert (nothing.distortion, nothing.level, nothing.bits.tolist()) == (0, 0, [0, 0, 0])
    unimportant = reverse_water_filling(np.array([9.0, 1.0]), 1.0, importance=np.array([0.0, 1.0]))
    assert np.allclose(unimportant.bits, [0, 2])


def test_an_estimated_covariance_nears_the_true_one_and_is_shrunk_as_told() -> None:
    whole = covariance(5, seed=1)
    samples = source().multivariate_normal(np.arange(5), whole, size=20_000)
    plain = estimated_covariance(samples, shrinkage=0.0)
    assert np.allclose(plain, np.cov(samples.T, bias=True))
    assert np.allclose(estimated_covariance(samples), whole, atol=0.05 * whole.max())
    assert np.allclose(estimated_covariance(samples, shrinkage=1.0), np.eye(5) * np.trace(plain) / 5)


def test_shrinkage_helps_where_samples_are_few() -> None:
    whole = np.diag(np.arange(1.0, 31))
    samples = source().multivariate_normal(np.zeros(30), whole, size=20)
    off = [np.square(estimated_covariance(samples, shrinkage=amount) - whole).sum() for amount in (None, 0.0)]
    assert off[0] < off[1] / 2


# --- Exact restoration -----------------------------------------------------------------------------------------------


def test_lossless_rates_by_hand() -> None:
    assert lossless_rate_known(0.25, 8) == 2
    assert lossless_rate_unknown(0.5, 1) == pytest.approx(1)
    assert lossless_rate_unknown(0.1, 1) == pytest.approx(0.468996, abs=1e-6)
    assert lossless_rate_unknown(1.0, 2) == pytest.approx(math.log2(3))
    assert lossless_rate_unknown(0.75, 2) == pytest.approx(2)  # any of four values, whatever is read: all is lost
    assert lossless_rate_unknown(1e-12, 64) == pytest.approx(1e-12 * (64 + math.log2(math.e) - math.log2(1e-12)))


@given(bits=st.integers(1, 3), missing=shares, seed=seeds)
def test_the_unlocated_rate_is_the_entropy_of_the_weight_given_what_is_read(
    bits: int, missing: float, seed: int
) -> None:
    values = 2**bits
    channel = np.full((values, values), missing / (values - 1))
    np.fill_diagonal(channel, 1 - missing)

    def equivocation(law: Array) -> float:
        joint = law[:, None] * channel
        given = joint / joint.sum(0)
        return float(-(joint * np.log2(given, where=given > 0, out=np.zeros_like(given))).sum())

    rate = lossless_rate_unknown(missing, bits)
    assert equivocation(np.full(values, 1 / values)) == pytest.approx(rate, abs=1e-9)
    assert equivocation(source(seed).dirichlet(np.ones(values))) <= rate + 1e-9


@given(bits=st.integers(4, 32), missing=st.floats(1e-3, 0.5))
def test_a_reed_solomon_code_pays_the_bound_if_located_and_less_than_twice_its_due_if_not(
    bits: int, missing: float
) -> None:
    assert reed_solomon_rate(missing, bits, located=True) == lossless_rate_known(missing, bits)
    unlocated = reed_solomon_rate(missing, bits, located=False)
    assert unlocated == 2 * reed_solomon_rate(missing, bits, located=True)
    if missing > math.e * 2.0**-bits:  # less than that is under one symbol a codeword
        least = lossless_rate_unknown(missing, bits)
        assert unlocated / 2 <= least <= unlocated * (1 + 1e-9)


@pytest.mark.parametrize("located", [True, False])
def test_the_codes_parity_is_as_stated_and_no_smaller(located: bool) -> None:
    weights, wrong = 100, 10
    check = round(float(reed_solomon_rate(wrong / weights, 16, located=located)) * weights / 16)
    rows = np.arange(wrong, dtype=np.int64) * 7
    error = np.zeros((weights, 1), np.uint16)
    error[rows] = 1 + np.arange(wrong, dtype=np.uint16)[:, None]
    erasures = (rows, np.zeros_like(rows)) if located else None
    found = [
        ReedSolomon(symbols).decode(ReedSolomon(symbols).feed(error), weights, erasures=erasures)
        for symbols in (check, check - 1)
    ]
    assert sorted(found[0].rows.tolist()) == rows.tolist() and not found[0].failed.size
    assert found[1].failed.size


# --- Arguments and the page ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: erasure_distortion(-0.1, 0.5), r"rate is -0\.1; .*at least 0"),
        (lambda: erasure_distortion(math.inf, 0.5), "rate is inf; it has to be finite"),
        (lambda: erasure_distortion(1, np.array([0.5, 0.0])), r"missing is 0\.0; .*above 0 and at most 1"),
        (lambda: erasure_distortion(1, 1.5), r"missing is 1\.5"),
        (lambda: erasure_distortion(1, 0.5, variance=0), r"variance is 0\.0"),
        (lambda: erasure_distortion(np.ones(2), np.full(3, 0.5)), r"do not broadcast: rate \(2,\), missing \(3,\)"),
        (lambda: erasure_rate(-1.0, 0.5), r"distortion is -1\.0"),
        (lambda: stored_copy_distortion(math.nan), "rate is nan"),
        (lambda: noise_distortion(1, 0.0), r"noise is 0\.0; .*variance of the noise"),
        (lambda: recovered_bits(math.nan), "distortion is nan"),
        (lambda: entropy_power(np.ones(10)), "at least 100 finite weights, not 10 with 0 not finite"),
        (lambda: entropy_power(np.full(200, np.nan)), "200 not finite"),
        (lambda: entropy_power(np.ones(200)), "Too many of 200 samples are equal"),
        (lambda: profile_area(np.array([0.5]), np.array([np.inf])), "bits is inf; .*entropy of a stored weight"),
        (lambda: profile_area(np.array([0.0]), np.array([1.0])), r"missing is 0\.0"),
        (lambda: profile_area(np.array([0.5, 1.0]), np.array([1.0])), "two lists of equal length"),
        (lambda: is_achievable(-1.0, np.array([0.5]), np.array([1.0])), r"rate is -1\.0"),
        (lambda: estimated_covariance(np.ones((1, 3))), r"at least 2 rows .* shape \(1, 3\)"),
        (lambda: estimated_covariance(np.eye(3), shrinkage=1.5), r"shrinkage is 1\.5; allowed are 0 to 1"),
        (lambda: conditional_covariance(np.eye(3), np.array([True, False])), r"2 weights is 2 by 2, not \(3, 3\)"),
        (lambda: conditional_covariance(np.eye(2), np.array([True, True])), "All 2 weights are known"),
        (lambda: kriging_distortion(np.array([[1.0, 0.5], [0, 1]]), np.array([True, False])), "not symmetric"),
        (lambda: kriging_distortion(np.full((2, 2), np.nan), np.array([True, False])), "not finite"),
        (lambda: kriging_distortion(np.diag([-1.0, 1]), np.array([True, False])), "negative variances"),
        (lambda: kriging_distortion(np.array([[1.0, 2], [2, 1]]), np.array([True, False])), "negative variances"),
        (lambda: reverse_water_filling(np.ones(2), -1.0), r"rate is -1\.0"),
        (lambda: reverse_water_filling(np.array([1.0, -0.1]), 1.0), "1 components have a variance or importance"),
        (lambda: reverse_water_filling(np.ones(2), 1.0, importance=-1.0), "2 components have a variance"),
        (lambda: reverse_water_filling(np.ones(2), 1.0, importance=np.ones(3)), r"shapes \(2,\) and \(3,\)"),
        (lambda: reverse_water_filling(np.zeros(0), 1.0), "at least one"),
        (lambda: lossless_rate_known(0.5, -1.0), r"entropy is -1\.0"),
        (lambda: lossless_rate_unknown(0.5, 0.5), r"alphabet_bits is 0\.5"),
        (lambda: reed_solomon_rate(2.0, 8, located=True), r"missing is 2\.0"),
    ],
)
def test_arguments_out_of_range_are_refused(call: Any, message: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


@pytest.mark.skipif(not PAGE.is_file(), reason="docs/bounds.md is not there")
def test_the_page_names_every_function() -> None:
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)(?:\(\w+\))?`", page))
    own = {name for name, thing in vars(bounds).items() if getattr(thing, "__module__", "") == bounds.__name__}
    assert {name for name in own if name[0] != "_" and name[0].islower()} <= named
