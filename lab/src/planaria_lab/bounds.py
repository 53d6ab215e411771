"""What information theory allows a guard to restore, whatever its method.

One convention holds throughout. `rate` is the guard's bits per weight, counted over all weights of the tensor, and the
guard is not damaged. `missing` is the share p of weights that are erased, each alike and independently, after the guard
was made; which ones is known when it restores. `distortion` is the mean squared error per *erased* weight, D / p where
papers divide by all weights and write D. `variance` is that of a weight about its known mean. Logarithms are binary.

The bounds hold in the limit of many weights; plain numbers and NumPy arrays broadcast, results are float64. Every
function raises `InvalidInput` on an argument outside its range.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Num
from scipy.stats import differential_entropy

from planaria.errors import InvalidInput

Numbers = int | float | Num[np.ndarray, "..."]
Result = float | Float64[np.ndarray, "..."]


# --- Independent weights ---------------------------------------------------------------------------------------------


def erasure_distortion(rate: Numbers, missing: Numbers, *, variance: Numbers = 1.0) -> Result:
    """Least error per erased weight: `variance * 2^(-2 rate / missing)`, for independent Gaussian weights.

    Survivors need no bits, though the guard cannot know which these are. Parity over weights quantised to rate /
    missing bits comes near. Of weights with another law none is harder than the Gaussian of their variance; for a lower
    bound give their `entropy_power` as the variance.

    Source: Perron, Diggavi and Telatar 2009, Lossy source coding with Gaussian or erased side-information: R(D) =
    p R_W(D / p), with Shannon's R_W (Cover and Thomas 2006, theorem 10.3.2).

    Args:
        rate: bits per weight, at least 0.
        missing: above 0, at most 1.
        variance: above 0.
    """
    rate, missing, variance = _checked(rate=rate, missing=missing, variance=variance)
    return variance * np.exp2(-2 * rate / missing)


def erasure_rate(distortion: Numbers, missing: Numbers, *, variance: Numbers = 1.0) -> Result:
    """Least bits per weight for an error: `missing / 2 * log2(variance / distortion)`, never below 0.

    The inverse of `erasure_distortion`, with its assumptions and source; infinite for a distortion of 0.
    """
    distortion, missing, variance = _checked(distortion=distortion, missing=missing, variance=variance)
    return missing * np.maximum(_bits(distortion, variance), 0.0)


def stored_copy_distortion(rate: Numbers, *, variance: Numbers = 1.0) -> Result:
    """Least error of a copy of every weight: `variance * 2^(-2 rate)`, however few weights are missing.

    What parity gains over a copy is the exponent's 1 / missing. Source: Cover and Thomas 2006, theorem 10.3.2.
    """
    return erasure_distortion(rate, 1.0, variance=variance)


def noise_distortion(rate: Numbers, noise: Numbers, *, variance: Numbers = 1.0) -> Result:
    """Least error per weight where noise was added to all: `variance noise / (variance + noise) * 2^(-2 rate)`.

    Weights and noise are Gaussian, independent of each other and from weight to weight. The guard loses nothing by not
    knowing the noise. Source: Wyner and Ziv 1976, section on the Gaussian source; Wyner 1978.

    Args:
        rate: bits per weight, at least 0.
        noise: variance of the noise, above 0.
        variance: above 0.
    """
    rate, noise, variance = _checked(rate=rate, noise=noise, variance=variance)
    return variance / (variance + noise) * noise * np.exp2(-2 * rate)


def entropy_power(samples: Float[np.ndarray, "..."]) -> float:
    """Variance of the Gaussian that is as uncertain as the samples: `2^(2 h) / (2 pi e)`, h their entropy in bits.

    Given as the variance, it makes the functions above lower bounds for independent weights of any law (the Shannon
    lower bound; Gastpar and Sula 2024 survey it). At most the variance, and equal to it for Gaussian weights only.
    h is estimated from spacings (Vasicek 1976): the result errs by some 5 % for 1,000 samples and 1 % for 20,000.

    Args:
        samples: at least 100 finite weights, of any shape.

    Raises:
        InvalidInput: if so many samples are equal that they have no density, as weights of few bits do.
    """
    values = np.asarray(samples, np.float64).ravel()
    if values.size < 100 or not np.isfinite(values).all():
        raise InvalidInput(
            f"samples are at least 100 finite weights, not {values.size} with {_odd(values)} not finite."
        )
    with np.errstate(divide="ignore"):
        entropy = float(differential_entropy(values, base=2, method="vasicek"))
    if not math.isfinite(entropy):
        raise InvalidInput(
            f"Too many of {values.size} samples are equal: they have no density. Count their bits instead and use "
            "lossless_rate_known."
        )
    return 2 ** (2 * entropy) / (2 * math.pi * math.e)


# --- Every share of missing weights at once: the area law ------------------------------------------------------------


def recovered_bits(distortion: Numbers, *, variance: Numbers = 1.0) -> Result:
    """Bits of precision B that a repair recovers of an erased weight: `log2(variance / distortion) / 2`.

    0 is the known mean in the weight's place, and below 0 worse than that; infinite for a distortion of 0. In the
    papers' D per weight of the tensor this is log2(p variance / D) / 2.

    Args:
        distortion: mean squared error per erased weight, at least 0.
        variance: above 0.
    """
    distortion, variance = _checked(distortion=distortion, variance=variance)
    return _bits(distortion, variance)


def profile_area(missing: Float[np.ndarray, " points"], bits: Float[np.ndarray, " points"]) -> float:
    """Area under a measured profile B(p) for p from 0 to 1, in bits per weight: what it costs without any redundancy.

    A repair that recovers B bits at a share p recovers as many at any smaller share: it may forget survivors. So the
    profile is taken to be at each p the largest B measured there or further right, and 0 past the last point. These
    steps are the least profile through the points, and the area is exactly what a guard needs that meets them all.

    **The area law.** For independent Gaussian weights a guard of `rate` bits reaches a profile if and only if its area
    is at most `rate`. A measured area above the guard's rate is redundancy found in the weights: with B from their
    `entropy_power`, they take at least area - rate bits per weight less than independent draws of their law would. With
    B from their variance this counts a law other than the Gaussian as redundancy too; an area of at most `rate` then
    suffices for independent weights of any law.

    Sources: reached by priority encoding (Albanese et al. 1996) of successive refinements (Equitz and Cover 1991): a
    layer k of b_k bits, protected by a share p_k of parity, takes p_k b_k. The converse is Heegard and Berger's 1985
    for degraded side information; with redundancy it is the area theorem of erasures (Ashikhmin, Kramer and ten Brink
    2004): h(W_i | survivors, guard), averaged over p from 0 to 1, is h(W | guard) per weight.

    Args:
        missing: shares of missing weights, each above 0 and at most 1, in any order.
        bits: finite `recovered_bits` at each. Where repair is exact, give the entropy of a stored weight.
    """
    missing, bits = _checked(missing=missing, bits=bits)
    if missing.ndim != 1 or missing.shape != bits.shape:
        raise InvalidInput(
            f"A profile is two lists of equal length, missing and bits, not shapes {missing.shape} and {bits.shape}."
        )
    order = np.argsort(missing)
    envelope = np.maximum.accumulate(bits[order][::-1])[::-1].clip(0)
    return float(np.diff(missing[order], prepend=0.0) @ envelope)


def is_achievable(rate: int | float, missing: Float[np.ndarray, " points"], bits: Float[np.ndarray, " points"]) -> bool:
    """Whether some guard of `rate` bits per weight meets a profile, without help from redundancy: the area law."""
    (rate,) = _checked(rate=rate)
    area = profile_area(missing, bits)
    return bool(area <= rate) or math.isclose(area, rate, rel_tol=1e-12)  # sums of p_k b_k come out a last bit apart


# --- Correlated weights ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WaterFilling:
    """The best split of bits over independent components, see `reverse_water_filling`.

    distortion: mean over components of importance times squared error.
    level: the water level theta; a component below it in importance times variance gets no bits.
    bits: of each component, in the order given; their mean is the rate.
    """

    distortion: float
    level: float
    bits: Float64[np.ndarray, " components"]


def estimated_covariance(
    samples: Float[np.ndarray, "samples weights"], *, shrinkage: int | float | None = None
) -> Float64[np.ndarray, "weights weights"]:
    """Covariance of weights over samples of them (neurons, networks), shrunk towards a multiple of the identity.

    The true covariance is not to be had, and what is computed from an estimate is an estimate and not a bound: too
    small where the samples repaired are those that it was estimated from. Use others.

    Args:
        samples: at least 2, a row each.
        shrinkage: 0 (the plain covariance) to 1 (uncorrelated, equal variances); None takes the one of Ledoit and Wolf
            2004, equation 14, which is best in the mean square for the number of samples.
    """
    from sklearn.covariance import empirical_covariance, ledoit_wolf, shrunk_covariance  # slow to import

    samples = np.asarray(samples, np.float64)
    if samples.ndim != 2 or len(samples) < 2 or not samples.size or not np.isfinite(samples).all():
        raise InvalidInput(
            f"samples are a matrix of at least 2 rows of finite weights, not of shape {samples.shape} with "
            f"{_odd(samples)} not finite."
        )
    if shrinkage is None:
        return ledoit_wolf(samples)[0]
    if not 0 <= shrinkage <= 1:
        raise InvalidInput(f"shrinkage is {shrinkage}; allowed are 0 to 1, and None for Ledoit and Wolf's.")
    return shrunk_covariance(empirical_covariance(samples), shrinkage)


def conditional_covariance(
    covariance: Float[np.ndarray, "weights weights"], known: Bool[np.ndarray, " weights"]
) -> Float64[np.ndarray, "missing missing"]:
    """Covariance of the missing weights given the known ones: `S_mm - S_mk S_kk^-1 S_km`, a Schur complement.

    Exact for jointly Gaussian weights; for any others it is that of the best linear estimate's error. Directions in
    which the known weights do not vary tell nothing. Time is cubic in the weights.

    Source: Rasmussen and Williams 2006, equation A.6.

    Args:
        covariance: symmetric and positive semidefinite.
        known: False at one weight at least.
    """
    covariance = np.asarray(covariance, np.float64)
    size = len(known)
    if covariance.shape != (size, size):
        raise InvalidInput(f"The covariance of {size} weights is {size} by {size}, not {covariance.shape}.")
    if known.all():
        raise InvalidInput(f"All {size} weights are known. Mark at least one as missing (False).")
    if not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.T, rtol=1e-6, atol=0):
        raise InvalidInput("The covariance is not finite or not symmetric. Average it with its transpose.")
    values, vectors = np.linalg.eigh(covariance[np.ix_(known, known)])
    least = size * np.finfo(np.float64).eps * np.diagonal(covariance).max()
    kept = values > least
    explained = vectors[:, kept].T @ covariance[np.ix_(known, ~known)] / np.sqrt(values[kept])[:, None]
    conditional = covariance[np.ix_(~known, ~known)] - explained.T @ explained
    if (values < -least).any() or (np.diagonal(conditional) < -math.sqrt(least * np.diagonal(covariance).max())).any():
        raise InvalidInput("The covariance has negative variances. Estimate it by estimated_covariance.")
    return conditional


def kriging_distortion(covariance: Float[np.ndarray, "weights weights"], known: Bool[np.ndarray, " weights"]) -> float:
    """Least error per missing weight without a guard, the covariance known: the mean of the conditional variances.

    Holds for jointly Gaussian weights; with others no linear repair does better. This is the rate 0 point of
    `reverse_water_filling` on the eigenvalues of `conditional_covariance`.
    """
    return float(np.diagonal(conditional_covariance(covariance, known)).mean())


def reverse_water_filling(
    eigenvalues: Float[np.ndarray, " components"],
    rate: int | float,
    *,
    importance: int | float | Float[np.ndarray, " components"] = 1.0,
) -> WaterFilling:
    """Least error of Gaussian components at `rate` bits per component on average.

    Component i gets `bits_i = max(0, log2(importance_i eigenvalue_i / level) / 2)` and is left with an importance times
    squared error of min(level, importance_i eigenvalue_i). The level is solved for exactly.

    With the eigenvalues of the `conditional_covariance` of the missing weights, and the guard's rate / missing, this
    is the least error per missing weight, jointly Gaussian weights and an encoder that knows the mask provided. A guard
    made before the damage can only do worse. For many grids with a mask each, give all their eigenvalues at once.

    Source: Cover and Thomas 2006, theorem 10.3.3.

    Args:
        eigenvalues: variances, at least 0; rounding's negative ones (1e-9 of the largest) count as 0.
        rate: bits per component, at least 0.
        importance: factor of each component's squared error, at least 0. Where errors count by a matrix H, give the
            eigenvalues of H^(1/2) S H^(1/2) instead.
    """
    (rate,) = _checked(rate=rate)
    values = np.asarray(eigenvalues, np.float64)
    factors = np.asarray(importance, np.float64)
    if values.ndim != 1 or not values.size or factors.shape not in ((), values.shape):
        raise InvalidInput(
            f"eigenvalues are a list of at least one, with a number or an equally long list as importance, not of "
            f"shapes {values.shape} and {factors.shape}."
        )
    valid = np.isfinite(values) & (values >= -1e-9 * np.abs(values).max()) & np.isfinite(factors) & (factors >= 0)
    if not valid.all():
        raise InvalidInput(
            f"{np.count_nonzero(~valid)} components have a variance or importance that is negative or not finite. "
            "Both are at least 0: take the eigenvalues of a covariance."
        )
    weighed = factors * values.clip(0)
    logs = np.full(values.shape, -np.inf)
    np.log2(weighed, out=logs, where=weighed > 0)
    falling = np.sort(logs[weighed > 0])[::-1]
    if not falling.size:  # nothing to tell of
        return WaterFilling(distortion=0.0, level=0.0, bits=np.zeros(values.shape))
    # The level that the k largest would have if they alone got the bits, for every k; these k do where the k-th is not
    # below its level, which ends once and for all as k grows.
    levels = (np.cumsum(falling) - 2 * rate * values.size) / np.arange(1, falling.size + 1)
    level = levels[int(np.count_nonzero(falling >= levels)) - 1]
    return WaterFilling(
        distortion=float(np.minimum(np.exp2(level), weighed).mean()),
        level=float(np.exp2(level)),
        bits=np.maximum((logs - level) / 2, 0.0),
    )


# --- Exact restoration -----------------------------------------------------------------------------------------------


def lossless_rate_known(missing: Numbers, bits: Numbers) -> Result:
    """Least bits per weight that restore erased weights exactly: `missing * bits`.

    Source: Slepian and Wolf 1973 (Cover and Thomas 2006, theorem 15.4.1), for independent weights.

    Args:
        missing: above 0, at most 1.
        bits: entropy of a stored weight, at least 0; at most the bits of its format.
    """
    missing, bits = _checked(missing=missing, entropy=bits)
    return missing * bits


def lossless_rate_unknown(missing: Numbers, alphabet_bits: Numbers) -> Result:
    """Least bits per weight where nobody knows which are wrong: `h2(missing) + missing * log2(2^alphabet_bits - 1)`.

    A share `missing` of the weights, each independently, was replaced by any other of the q = 2^alphabet_bits values,
    all equally likely. h2 is the binary entropy: what it takes to say where. Needed for uniform weights, enough for
    any.

    Source: Slepian and Wolf 1973; the conditional entropy of the q-ary symmetric channel.

    Args:
        missing: above 0, at most 1.
        alphabet_bits: at least 1.
    """
    missing, alphabet_bits = _checked(missing=missing, alphabet_bits=alphabet_bits)
    there = 1 - missing
    # log2(1 - p) as log1p keeps small shares exact; at p = 1 the term is 0.
    where = -missing * np.log2(missing) - there * np.log1p(-np.where(there > 0, missing, 0.0)) / math.log(2)
    what = alphabet_bits + np.log1p(-np.exp2(-alphabet_bits)) / math.log(2)
    return where + missing * what


def reed_solomon_rate(missing: Numbers, bits: Numbers, *, located: bool) -> Result:
    """Parity of a Reed-Solomon code that restores weights exactly: `missing * bits` if located, else twice that.

    Located, it meets `lossless_rate_known` for weights that fill their bits. Otherwise it spends a symbol to find and
    one to correct. For damage spread evenly over codewords of at most 2^bits symbols; chance adds a margin.

    Source: Singleton's bound, which the code meets: check symbols >= erasures + 2 errors.

    Args:
        missing: above 0, at most 1.
        bits: of a weight as it is stored, at least 1.
        located: whether a detector says which weights are wrong.
    """
    missing, bits = _checked(missing=missing, alphabet_bits=bits)
    return (1 if located else 2) * missing * bits


# --- Arguments -------------------------------------------------------------------------------------------------------

_Test = Callable[[Float64[np.ndarray, "..."]], Bool[np.ndarray, "..."]]
_ALLOWED: dict[str, tuple[_Test, str]] = {
    "rate": (lambda x: x >= 0, "bits per weight, at least 0"),
    "missing": (lambda x: (x > 0) & (x <= 1), "a share of the weights, above 0 and at most 1"),
    "distortion": (lambda x: x >= 0, "a mean squared error per erased weight, at least 0"),
    "variance": (lambda x: x > 0, "above 0; weights that do not vary need no guard"),
    "noise": (lambda x: x > 0, "the variance of the noise, above 0"),
    "bits": (np.isfinite, "recovered bits; give the entropy of a stored weight where repair is exact"),
    "entropy": (lambda x: x >= 0, "bits of a stored weight, at least 0"),
    "alphabet_bits": (lambda x: x >= 1, "bits of a stored weight, at least 1"),
}


def _checked(**arguments: Numbers) -> list[Any]:
    """The arguments as float64, each finite and in the range of its name, their shapes broadcastable."""
    checked = []
    for name, value in arguments.items():
        numbers = np.asarray(value, np.float64)
        allowed, meaning = _ALLOWED[name]
        wrong = numbers[~(np.isfinite(numbers) & allowed(numbers))]
        if wrong.size:
            raise InvalidInput(f"{name} is {wrong[0]}; it has to be finite: {meaning}.")
        checked.append(numbers)
    try:
        np.broadcast(*checked)
    except ValueError as error:
        shapes = ", ".join(f"{name} {numbers.shape}" for name, numbers in zip(arguments, checked, strict=True))
        raise InvalidInput(f"Shapes do not broadcast: {shapes}. Make them equal or 1 where they differ.") from error
    return checked


def _bits(distortion: Numbers, variance: Numbers) -> Result:
    with np.errstate(divide="ignore"):  # an error of 0 recovers infinitely many bits
        return (np.log2(variance) - np.log2(distortion)) / 2


def _odd(values: Float64[np.ndarray, "..."]) -> int:
    return int(np.count_nonzero(~np.isfinite(values)))
