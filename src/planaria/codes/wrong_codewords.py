"""How likely a Reed-Solomon decoder takes damage beyond its strength for another codeword."""

from math import log, log2

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

BITS = 16  # of a symbol


def wrong_codeword_log2(
    check: int,
    *,
    erasures: Int64[np.ndarray, " words"],
    errors: Int64[np.ndarray, " words"],
    places: Int64[np.ndarray, " words"],
    equal: Bool[np.ndarray, " words"],
) -> Float64[np.ndarray, " words"]:
    """Base-2 logarithm of the probability that damage beyond the code's strength decodes to such a word; at most 0.

    Of damage that is random, each of q^(check - erasures) syndromes is as likely, with q = 65536, and sum over j <=
    errors of C(places, j) (q - 1)^j of them lead to a word of so many corrections (McEliece and Swanson 1986). Where no
    more places are admissible than there are check symbols, no two words fit: the probability is 0.

    Damage may also strike all symbols with the same value v, as flipped signs do. Over {0, v} the code is a BCH code:
    S_2k = S_k^2 / v, so that only the ceil(check / 2) odd syndromes are free, and every wrong word of at most check / 2
    corrections has nothing but v as well. Then C(places, errors) of q^ceil(check / 2) syndromes lead to one, and twice
    as many for each erasure, of which the damage may or may not have v.

    Args:
        check: check symbols of the word.
        erasures: symbols whose places were told to the decoder.
        errors: corrections at other places.
        places: symbols in which an error is admissible, erasures included.
        equal: whether all corrections have the same value; taken as true where there are erasures or no errors.
    """
    erasures, errors, places = (np.asarray(part, np.float64) for part in (erasures, errors, places))
    choices = _log2_choose(np.maximum(places, errors), errors)
    # Each term of the sum is at most errors / (q - 1) of the next.
    sums = choices + errors * log2(2**BITS - 1) - np.log2(1 - np.minimum(errors / (2**BITS - 1), 0.5))
    random = sums - BITS * (check - erasures)
    alike = equal | (erasures > 0) | (errors == 0)
    same = np.where(alike, choices + erasures - BITS * ((check + 1) // 2), -np.inf)
    result = np.minimum(np.logaddexp2(random, same), 0.0)
    return np.where(places <= check, -np.inf, result)


def _log2_choose(
    among: Float64[np.ndarray, " words"], chosen: Float64[np.ndarray, " words"]
) -> Float64[np.ndarray, " words"]:
    gammas = [torch.lgamma(torch.from_numpy(part + 1)).numpy() for part in (among, chosen, among - chosen)]
    return (gammas[0] - gammas[1] - gammas[2]) / log(2)
