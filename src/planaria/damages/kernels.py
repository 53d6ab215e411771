"""CPU kernels of damages: places drawn without replacement, and bits flipped.

Both read and write in ascending order and branch little, so that a flip costs a few nanoseconds.
"""

# What numba compiles has no annotations: its types are found by inference, on the first call. `no_type_check` keeps the
# test run from wrapping it.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, import-untyped"
# mypy: disallow-untyped-decorators=False

from typing import Any, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from planaria.splitmix import STEP, lowest, mixed

BLOCK = 2**16  # places drawn at a time: their bitmap, 8 KiB, stays in the fastest cache
_ONE = np.uint64(1)
_SIX = np.uint64(6)
_LOW = np.uint64(63)
_ALL = np.uint64(2**64 - 1)


@intrinsic
@no_type_check
def _population(typing: Any, word: Any) -> Any:
    """How many bits of a uint64 are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@njit(nogil=True, cache=True)
@no_type_check
def drawn_in_blocks(counts, size, seed, struck):
    """Fills `struck` with counts[b] places of each block b of BLOCK places, ascending; the last block may be shorter.

    Places are drawn with replacement, and what was drawn before falls out, until a block has its count: all sets of
    that size are equally likely. Of a block that is more than half struck, the places that are spared are drawn.
    """
    state = np.uint64(seed)
    bitmap = np.zeros(BLOCK >> 6, np.uint64)
    filled = np.zeros(BLOCK >> 12, np.uint64)  # which words of the bitmap are not 0
    at = 0
    for block in range(len(counts)):
        start = block * BLOCK
        places = min(BLOCK, size - start)
        spared = 2 * counts[block] > places
        missing = places - counts[block] if spared else counts[block]
        mask = _ONE
        while mask < np.uint64(places):
            mask <<= _ONE
        mask -= _ONE
        while missing > 0:
            state += STEP
            bits = mixed(state)
            for _ in range(4):  # a random number serves four places
                place = bits & mask
                bits >>= np.uint64(16)
                word, bit = place >> _SIX, _ONE << (place & _LOW)
                if place < np.uint64(places) and missing > 0:
                    old = bitmap[word]
                    missing -= (old & bit) == 0
                    bitmap[word] = old | bit
                    filled[word >> _SIX] |= _ONE << (word & _LOW)
        if spared:
            for word in range((places + 63) >> 6):
                bits = ~bitmap[word]
                bitmap[word] = 0
                if 64 * (word + 1) > places:
                    bits &= (_ONE << np.uint64(places - 64 * word)) - _ONE
                while bits:
                    struck[at] = start + 64 * word + np.int64(lowest(bits))
                    at += 1
                    bits &= bits - _ONE
            filled[:] = 0
        else:
            for group in range((places + 4095) >> 12):
                words = filled[group]
                filled[group] = 0
                while words:
                    word = 64 * group + np.int64(lowest(words))
                    words &= words - _ONE
                    bits = bitmap[word]
                    bitmap[word] = 0
                    while bits:
                        struck[at] = start + 64 * word + np.int64(lowest(bits))
                        at += 1
                        bits &= bits - _ONE
    return at


@njit(nogil=True, cache=True)
@no_type_check
def flip(words, struck, positions, index, old, new):
    """Flips bits of `words` (unsigned); answers with the number of words that it listed in index, old and new.

    Struck place p is bit positions[p % len(positions)] of word p // len(positions); places are ascending.
    """
    places = np.uint64(len(positions))
    shift = np.uint64(0)
    while _ONE << shift < places:
        shift += _ONE
    whole = _ONE << shift == places  # then no division is needed, which would cost more than all the rest
    masks = np.empty(len(positions), words.dtype)
    for at in range(len(positions)):
        masks[at] = _ONE << np.uint64(positions[at])
    last, before, flipped = -1, -1, words.dtype.type(0)
    for at in range(len(struck)):
        place = np.uint64(struck[at])
        word = place >> shift if whole else place // places
        bit = place - word * places
        here = np.int64(word)
        held = words[here]
        differs = here != before
        last += differs
        before = here
        flipped = (held if differs else flipped) ^ masks[bit]
        index[last] = here
        old[last] = held
        new[last] = flipped
    return last + 1


@njit(nogil=True, cache=True)
@no_type_check
def eligible(words, mask, start):
    """How many of the bits in `mask` hold `start`, which is 0 or 1."""
    inverse = _ALL if start == 0 else np.uint64(0)
    total = 0
    for word in words:
        total += np.int64(_population((np.uint64(word) ^ inverse) & mask))
    return total


@njit(nogil=True, cache=True)
@no_type_check
def flip_eligible(words, struck, mask, start, index, old, new):
    """`flip` where struck place p is the p-th bit of those in `mask` that hold `start`."""
    inverse = _ALL if start == 0 else np.uint64(0)
    at = listed = passed = 0
    for here in range(len(words)):
        if at == len(struck):
            break
        bits = (np.uint64(words[here]) ^ inverse) & mask
        beyond = passed + np.int64(_population(bits))
        if struck[at] < beyond:
            flips = np.uint64(0)
            while at < len(struck) and struck[at] < beyond:
                while passed < struck[at]:
                    bits &= bits - _ONE
                    passed += 1
                flips |= bits & (~bits + _ONE)
                at += 1
            index[listed], old[listed] = here, words[here]
            new[listed] = np.uint64(words[here]) ^ flips
            listed += 1
        passed = beyond
    return listed
