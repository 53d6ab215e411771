"""The code against plain elimination over GF(2), and against what a random code promises."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planaria.codes import Solution, WindowCode, check_for, window_for
from planaria.errors import InvalidInput
from planaria.streams import generator

Bits = np.ndarray[Any, Any]

lengths = st.integers(0, 300) | st.sampled_from([1, 63, 64, 65, 128])
checks = st.integers(0, 330)
windows = st.sampled_from([64, 128, 192, 1024])
rates = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
seeds = st.integers(0, 999)


def drawn(length: int, seed: int = 0) -> Bits:
    return torch.randint(2, (length,), generator=generator(seed, "test bits")).numpy().astype(np.uint8)


def survivors(length: int, rate: float, seed: int = 0) -> Bits:
    return (torch.rand(length, generator=generator(seed, "test erasures")) >= rate).numpy()


def matrix(code: WindowCode) -> Bits:
    """(check, length): which bits count in which check, in plain integers as the class describes them."""
    counted = np.zeros((code.check, code.length), np.uint8)
    count = max(1, -(-code.length // (1024 * code.window)))
    for s in range(count):
        first, end = code.length * s // count, code.length * (s + 1) // count
        begin, own = code.check * s // count, code.check * (s + 1) // count - code.check * s // count
        words, width = -(-(end - first) // 64), code.window // 64
        for j in range(own):
            stop = 1 + width // 4 + (2 * j + 1) * (words + width // 2) // (2 * own)
            for w in range(max(0, stop - width), min(stop, words)):
                state = (((j << 32) + w + 1) * 0x9E3779B97F4A7C15) % 2**64
                state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
                state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
                state ^= state >> 31
                for b in range(min(64, end - first - 64 * w)):
                    counted[begin + j, first + 64 * w + b] = state >> b & 1
    return counted


def reduced(system: Bits) -> tuple[Bits, list[int]]:
    """Reduced row echelon form over GF(2), and its pivots; the last column is the right side."""
    system, pivots = system.copy(), []
    for column in range(system.shape[1] - 1):
        rows = np.flatnonzero(system[len(pivots) :, column]) + len(pivots)
        if len(rows):
            system[[len(pivots), rows[0]]] = system[[rows[0], len(pivots)]]
            others = np.flatnonzero(system[:, column])
            others = others[others != len(pivots)]
            system[others] ^= system[len(pivots)]
            pivots.append(column)
    return system, pivots


def same(one: Solution, other: Solution) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


# --- Check bits ------------------------------------------------------------------------------------------------------


def test_the_first_pseudo_random_word_is_splitmix64s() -> None:
    # The published first output of the generator seeded with 0.
    word = sum(int(bit) << b for b, bit in enumerate(matrix(WindowCode(64, 1, window=64))[0]))
    assert word == 0xE220A8397B1DCDAF


@given(length=lengths, check=checks, window=windows, seed=seeds)
def test_check_bits_are_those_of_the_description(length: int, check: int, window: int, seed: int) -> None:
    code, bits = WindowCode(length, check, window=window), drawn(length, seed)
    packed = code.encode(bits)
    assert packed.shape == (-(-check // 8),)
    assert np.array_equal(np.unpackbits(packed, bitorder="little"), _filled(matrix(code) @ bits & 1))


def _filled(found: Bits) -> Bits:
    return np.pad(found, (0, -len(found) % 8)).astype(np.uint8)


def test_long_data_are_cut_in_segments_as_described() -> None:
    length = 2 * 1024 * 64 + 5  # three segments of the smallest windows
    code, bits = WindowCode(length, 40, window=64), drawn(length)
    assert np.array_equal(np.unpackbits(code.encode(bits), bitorder="little"), _filled(matrix(code) @ bits & 1))


def test_every_bit_is_in_some_window() -> None:
    for length, check, window in ((1000, 500, 64), (1001, 300, 192), (70, 30, 1024)):
        assert matrix(WindowCode(length, check, window=window)).any(0).all()


# --- Solutions -------------------------------------------------------------------------------------------------------


@given(length=lengths, check=checks, window=windows, rate=rates, seed=seeds)
def test_what_is_solved_is_right_and_was_determined(
    length: int, check: int, window: int, rate: float, seed: int
) -> None:
    code, bits, known = WindowCode(length, check, window=window), drawn(length, seed), survivors(length, rate, seed)
    damaged = np.where(known, bits, 1 - bits)
    found = code.decode(damaged, known, code.encode(bits))
    assert found.contradictions == 0
    assert np.array_equal(found.bits, bits * found.solved) and found.solved[known].all()
    system, pivots = reduced(np.column_stack([matrix(code)[:, ~known], np.zeros(check, np.uint8)]))
    determined = [column for row, column in enumerate(pivots) if system[row].sum() == 1]
    solved = np.flatnonzero(found.solved[~known])
    assert np.isin(solved, determined).all()
    if len(pivots) == np.count_nonzero(~known):  # no bit is left open, so none is missed
        assert found.solved.all()


@given(length=st.integers(0, 500), window=st.sampled_from([512, 1024]), rate=rates, seed=seeds)
def test_a_window_over_all_data_needs_few_checks_more_than_there_are_erasures(
    length: int, window: int, rate: float, seed: int
) -> None:
    bits, known = drawn(length, seed), survivors(length, rate, seed)
    code = WindowCode(length, np.count_nonzero(~known) + 20, window=window)
    found = code.decode(bits, known, code.encode(bits))
    assert found.solved.all() and np.array_equal(found.bits, bits)


@pytest.mark.parametrize(
    ("length", "rate"), [(20_000, 0.02), (60_000, 0.2), (40_000, 0.5), (20_000, 0.9), (9_000, 1.0)]
)
def test_as_many_checks_as_advised_restore_all(length: int, rate: float) -> None:
    code = WindowCode(length, check_for(length, rate), window=window_for(rate))
    for seed in range(4):
        bits, known = drawn(length, seed), survivors(length, rate, seed)
        found = code.decode(bits * known, known, code.encode(bits))
        assert found.contradictions == 0 and found.solved.all() and np.array_equal(found.bits, bits)


@pytest.mark.long
@pytest.mark.parametrize(("rate", "slack"), [(0.01, 0.015), (0.1, 0.012), (0.5, 0.008), (0.95, 0.002)])
def test_a_million_bits_need_little_more_checks_than_there_are_erasures(rate: float, slack: float) -> None:
    bits, known = drawn(10**6), survivors(10**6, rate)
    code = WindowCode(10**6, int((1 + slack) * np.count_nonzero(~known)), window=window_for(rate))
    assert code.decode(bits, known, code.encode(bits)).solved.all()


def test_advice_fails_no_more_often_than_it_says_but_not_never() -> None:
    # The usual chance is too small to see; with one half accepted, some fail and most do not.
    length, rate, trials = 3000, 0.3, 100
    code, bits = WindowCode(length, check_for(length, rate, failure=0.5), window=window_for(rate)), drawn(length)
    packed = code.encode(bits)
    solved = sum(code.decode(bits, survivors(length, rate, i), packed).solved.all() for i in range(trials))
    assert 0.35 * trials < solved < trials


def test_more_erasures_than_checks_leave_bits_unsolved_and_no_wrong_one() -> None:
    code, bits, known = WindowCode(20_000, 5000), drawn(20_000), survivors(20_000, 0.5)
    found = code.decode(bits, known, code.encode(bits))
    assert found.contradictions == 0 and not found.solved.all() and np.array_equal(found.bits, bits * found.solved)


def test_a_burst_beyond_the_strength_costs_no_bit_that_is_far_from_it() -> None:
    length = 100_000
    code, bits, known = WindowCode(length, 20_000, window=2048), drawn(length), survivors(length, 0.1)
    known[40_000:60_000] = False
    found = code.decode(bits, known, code.encode(bits))
    assert found.solved[:36_000].all() and found.solved[64_000:].all() and not found.solved[40_000:60_000].all()
    assert np.array_equal(found.bits, bits * found.solved)


def test_any_number_of_threads_encodes_and_decodes_alike() -> None:
    length = 5 * 1024 * 64 + 7
    code, bits, known = WindowCode(length, 2 * length // 3, window=64), drawn(length), survivors(length, 0.5)
    packed = code.encode(bits)
    assert np.array_equal(packed, code.encode(bits, threads=3))
    assert same(code.decode(bits, known, packed), code.decode(bits, known, packed, threads=3))


def test_arguments_stay_as_they_were() -> None:
    code, bits, known = WindowCode(500, 300), drawn(500), survivors(500, 0.5)
    packed = code.encode(bits)
    before = [array.copy() for array in (bits, known, packed)]
    for array in (bits, known, packed):
        array.flags.writeable = False
    code.decode(bits, known, packed)
    assert all(map(np.array_equal, before, (bits, known, packed)))


# --- Wrong input -----------------------------------------------------------------------------------------------------


@given(place=st.integers(0, 1999), seed=seeds)
def test_a_wrong_known_bit_is_noticed_where_checks_are_left_over(place: int, seed: int) -> None:
    code, bits, known = WindowCode(2000, 1100), drawn(2000, seed), survivors(2000, 0.4, seed)
    known[place] = True
    packed = code.encode(bits)
    bits[place] ^= 1
    found = code.decode(bits, known, packed)
    assert found.contradictions > 0
    assert np.array_equal(found.solved, known) and np.array_equal(found.bits, bits * known)


@given(place=st.integers(0, 1099))
def test_a_wrong_check_bit_is_noticed_where_checks_are_left_over(place: int) -> None:
    code, bits, known = WindowCode(2000, 1100), drawn(2000), survivors(2000, 0.4)
    packed = code.encode(bits)
    packed[place // 8] ^= 1 << place % 8
    assert code.decode(bits, known, packed).contradictions


def test_a_contradiction_costs_its_own_segment_only() -> None:
    length = 3 * 1024 * 64
    code, bits, known = WindowCode(length, length // 2, window=64), drawn(length), survivors(length, 0.1)
    packed, known[0] = code.encode(bits), True
    bits[0] ^= 1
    found = code.decode(bits, known, packed)
    assert found.contradictions and np.array_equal(found.solved[: length // 3], known[: length // 3])
    assert found.solved[length // 3 :].all() and np.array_equal(found.bits, bits * found.solved)


def test_bits_of_the_last_byte_beyond_the_checks_do_not_count() -> None:
    code, bits, known = WindowCode(50, 30), drawn(50), survivors(50, 0.3)
    packed = code.encode(bits)
    assert packed[-1] < 1 << 6
    clean = code.decode(bits, known, packed)
    packed[-1] |= 0xC0
    assert same(clean, code.decode(bits, known, packed))


# --- Sizes -----------------------------------------------------------------------------------------------------------


@given(rate=st.floats(0.001, 1.0))
def test_a_window_holds_about_512_unknown_bits(rate: float) -> None:
    assert window_for(rate) % 64 == 0 and 512 <= window_for(rate) * rate < 512 + 64
    assert min(1024, rate * 2**20) <= window_for(rate, unknowns=1024) * rate < 1024 + 64


def test_the_rarest_erasures_get_the_widest_window() -> None:
    assert window_for(1e-9) == 2**20


@given(length=st.integers(1, 10**7), rate=st.floats(0.001, 1.0), more=st.integers(1, 10**5))
def test_advice_exceeds_the_mean_and_grows_with_length_rate_and_safety(length: int, rate: float, more: int) -> None:
    window = window_for(rate)
    advised = check_for(length, rate)
    assert advised > length * rate
    if (length + more) // (1024 * window) == 0:
        assert check_for(length + more, rate) >= advised
    assert check_for(length, rate, failure=1e-6) >= advised
    assert check_for(length, min(1.0, 1.1 * rate), window=window) >= advised


def test_slack_shrinks_as_planes_grow() -> None:
    slack = [check_for(length, 0.5) / (0.5 * length) - 1 for length in (10**3, 10**4, 10**5, 10**6)]
    assert slack == sorted(slack, reverse=True) and slack[-1] < 0.01


# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "check"), [(-1, 5), (5, -1)])
def test_negative_sizes_are_refused(length: int, check: int) -> None:
    with pytest.raises(InvalidInput, match=f"0 or more data and check bits, not {length} and {check}"):
        WindowCode(length, check)


@pytest.mark.parametrize("window", [-64, 0, 63, 100, 2**20 + 64])
def test_other_windows_are_refused(window: int) -> None:
    for use in (lambda: WindowCode(5, 5, window=window), lambda: check_for(5, 0.5, window=window)):
        with pytest.raises(InvalidInput, match=f"multiple of 64 up to 1048576, not {window}"):
            use()


@pytest.mark.parametrize("unknowns", [0, 448, 520])
def test_windows_of_other_sizes_are_refused(unknowns: int) -> None:
    with pytest.raises(InvalidInput, match=f"multiple of 64 unknown bits, at least 512, not {unknowns}"):
        window_for(0.5, unknowns=unknowns)


def test_advice_for_narrow_windows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="windows below 512, such as 448"):
        check_for(5, 0.5, window=448)


@pytest.mark.parametrize("rate", [-0.1, 0.0, 1.1, float("nan")])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    for use in (lambda: window_for(rate), lambda: check_for(5, rate)):
        with pytest.raises(InvalidInput, match="above 0 and at most 1"):
            use()


@pytest.mark.parametrize(("length", "failure"), [(-1, 0.5), (5, 0.0), (5, 1.0), (5, float("nan"))])
def test_advice_for_no_plane_or_no_chance_is_refused(length: int, failure: float) -> None:
    with pytest.raises(InvalidInput, match="fails with a chance in"):
        check_for(length, 0.5, failure=failure)


@pytest.mark.parametrize("bits", [np.zeros(9, np.uint8), np.zeros(10, np.bool_), np.zeros((10, 1), np.uint8)])
def test_bits_of_another_shape_or_dtype_are_refused(bits: Bits, unchecked: None) -> None:
    code, known = WindowCode(10, 20), np.ones(10, np.bool_)
    for use in (lambda: code.encode(bits), lambda: code.decode(bits, known, np.zeros(3, np.uint8))):
        with pytest.raises(InvalidInput, match=r"bits is uint8 of shape \(10,\)"):
            use()


def test_bits_that_are_neither_0_nor_1_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 or 1, not 2"):
        WindowCode(2, 2).encode(np.array([0, 2], np.uint8))


def test_other_masks_and_checks_are_refused(unchecked: None) -> None:
    code, bits, known, packed = WindowCode(10, 20), drawn(10), np.ones(10, np.bool_), np.zeros(3, np.uint8)
    with pytest.raises(InvalidInput, match=r"known is bool of shape \(10,\)"):
        code.decode(bits, known.astype(np.uint8), packed)
    with pytest.raises(InvalidInput, match=r"checks is uint8 of shape \(3,\)"):
        code.decode(bits, known, packed[:2])


def test_less_than_one_thread_is_refused() -> None:
    code, bits = WindowCode(10, 20), drawn(10)
    for use in (
        lambda: code.encode(bits, threads=0),
        lambda: code.decode(bits, np.ones(10, np.bool_), np.zeros(3, np.uint8), threads=0),
    ):
        with pytest.raises(InvalidInput, match="At least 1 thread has to work, not 0"):
            use()
