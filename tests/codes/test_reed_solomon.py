"""The code against galois' arithmetic, and against what a bounded-distance decoder promises."""

from functools import cache
from typing import Any

import galois
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planaria.codes import Corrections, ReedSolomon
from planaria.errors import InvalidInput
from planaria.streams import generator

Matrix = np.ndarray[Any, Any]

checks = st.integers(1, 14)
lengths = st.integers(1, 40) | st.just(1)
widths = st.integers(1, 6) | st.sampled_from([127, 128, 129, 300])  # kernels work on 128 columns side by side
seeds = st.integers(0, 999)


def drawn(*shape: int, seed: int = 0, least: int = 0) -> Matrix:
    numbers = torch.randint(least, 65536, shape, generator=generator(seed, "test symbols"))
    return numbers.numpy().astype(np.uint16)


def pattern(symbols: int, width: int, wrong: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """An error (symbols, width) with `wrong` symbols a column, and their rows (wrong, width) in random order."""
    source = generator(seed, "test places")
    rows = torch.rand(symbols, width, generator=source).argsort(0)[:wrong].numpy()
    error = np.zeros((symbols, width), np.uint16)
    error[rows, np.arange(width)] = drawn(wrong, width, seed=seed + 1, least=1)
    return error, rows


def listed(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Rows (count, width) of every column, as a list of rows and one of columns."""
    return rows.flatten(), np.broadcast_to(np.arange(rows.shape[1]), rows.shape).flatten()


def received(code: ReedSolomon, error: Matrix, seed: int = 0) -> Matrix:
    """The remainder that the decoder is handed when `error` strikes random data and their check symbols."""
    length = len(error) - code.check
    data = drawn(length, error.shape[1], seed=seed)
    return code.feed(data ^ error[:length]) ^ code.feed(data) ^ error[length:]


def as_error(found: Corrections, shape: tuple[int, ...]) -> Matrix:
    error = np.zeros(shape, np.uint16)
    error[found.rows, found.columns] = found.values
    return error


def same(one: Corrections, other: Corrections) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


# --- Check symbols ---------------------------------------------------------------------------------------------------


@cache
def reference_field() -> Any:
    return galois.GF(2**16, irreducible_poly=0x1100B, primitive_element=2, verify=False, compile="python-calculate")


@pytest.mark.parametrize(
    ("check", "length", "width"), [(1, 1, 1), (2, 0, 1), (3, 1, 2), (24, 76, 5), (5, 9, 129), (60, 9, 2)]
)
def test_every_column_has_the_generators_roots_as_galois_computes_them(check: int, length: int, width: int) -> None:
    field, data = reference_field(), drawn(length, width)
    columns = np.concatenate([data, ReedSolomon(check).feed(data)])
    exponents = np.arange(1, check + 1)[:, None] * np.arange(length + check - 1, -1, -1)
    terms = (field(2) ** exponents)[:, :, None] * field(columns)
    assert not np.bitwise_xor.reduce(terms.view(np.ndarray), axis=1).any()


@given(check=checks, length=lengths, width=widths, seed=seeds)
def test_check_symbols_are_linear_in_the_data(check: int, length: int, width: int, seed: int) -> None:
    code, one, other = ReedSolomon(check), drawn(length, width, seed=seed), drawn(length, width, seed=seed + 1)
    assert np.array_equal(code.feed(one ^ other), code.feed(one) ^ code.feed(other))


@given(check=checks, width=widths, cuts=st.lists(st.integers(0, 20), min_size=1, max_size=4), seed=seeds)
def test_rows_may_be_fed_in_any_pieces(check: int, width: int, cuts: list[int], seed: int) -> None:
    code, data = ReedSolomon(check), drawn(20, width, seed=seed)
    remainder = None
    for piece in np.split(data, sorted(cuts)):
        remainder = code.feed(piece, remainder)
    assert remainder is not None and np.array_equal(remainder, code.feed(data))


@given(check=checks, width=widths, threads=st.integers(2, 5))
def test_any_number_of_threads_feeds_and_decodes_alike(check: int, width: int, threads: int) -> None:
    code, data = ReedSolomon(check), drawn(7, width)
    assert np.array_equal(code.feed(data), code.feed(data, threads=threads))
    remainder = received(code, pattern(7 + check, width, min(check, 3))[0])
    assert same(code.decode(remainder, 7), code.decode(remainder, 7, threads=threads))


@given(check=checks, width=widths, column=st.integers(0, 299))
def test_a_column_knows_nothing_of_its_neighbours(check: int, width: int, column: int) -> None:
    code, data, column = ReedSolomon(check), drawn(9, width), column % width
    own = slice(column, column + 1)
    assert np.array_equal(code.feed(data)[:, own], code.feed(data[:, own]))
    remainder = received(code, pattern(9 + check, width, check // 2 + 1)[0])
    together, alone = (
        as_error(code.decode(part, 9), (9 + check, part.shape[1])) for part in (remainder, remainder[:, own])
    )
    assert np.array_equal(together[:, own], alone)


def test_rows_may_be_views_of_any_kind() -> None:
    code, data = ReedSolomon(4), drawn(6, 5)
    expected = code.feed(data)
    unaligned = np.frombuffer(b"\0" + data.tobytes(), np.uint8)[1:].view(np.uint16).reshape(6, 5)
    for view in (unaligned, np.asfortranarray(data), np.repeat(data, 2, 1)[:, ::2], data.view("<u2")):
        assert np.array_equal(code.feed(view), expected)


def test_a_remainder_is_updated_in_place_unless_it_is_read_only() -> None:
    code, data = ReedSolomon(4), drawn(6, 5)
    remainder = code.feed(data[:3])
    frozen = remainder.copy()
    frozen.flags.writeable = False
    before = frozen.copy()
    assert code.feed(data[3:], remainder) is remainder
    assert np.array_equal(code.feed(data[3:], frozen), remainder)
    assert np.array_equal(frozen, before)


def test_no_rows_and_no_columns_are_allowed() -> None:
    code, remainder = ReedSolomon(3), drawn(3, 4)
    assert not code.feed(np.zeros((0, 4), np.uint16)).any()
    assert np.array_equal(code.feed(np.zeros((0, 4), np.uint16), remainder.copy()), remainder)
    assert code.feed(np.zeros((5, 0), np.uint16)).shape == (3, 0)
    assert len(code.decode(np.zeros((3, 0), np.uint16), 5).failed) == 0


# --- Corrections -----------------------------------------------------------------------------------------------------


@given(data=st.data(), check=checks, length=lengths, width=widths, seed=seeds, right=st.booleans())
def test_as_many_errors_and_erasures_as_promised_are_corrected_exactly(
    data: st.DataObject, check: int, length: int, width: int, seed: int, right: bool
) -> None:
    spare = data.draw(st.integers(0, check), label="spare")
    lost = data.draw(st.integers(0, check - spare), label="lost")
    wrong = data.draw(st.integers(0, min((check - spare - lost) // 2, length)), label="wrong")
    code = ReedSolomon(check)
    error, rows = pattern(length + check, width, lost + wrong, seed)
    if right and lost:  # some of what is taken for lost is there
        error[rows[0], np.arange(width)] = 0
    remainder = received(code, error, seed)
    before = remainder.copy()
    found = code.decode(remainder, length, erasures=listed(rows[:lost]), spare=spare)
    assert np.array_equal(as_error(found, error.shape), error)
    assert len(found.failed) == 0 and np.array_equal(remainder, before)
    assert found.values.all() and len(found.values) == np.count_nonzero(error)
    assert (np.diff(found.columns) >= 0).all()


@given(data=st.data(), check=checks, length=lengths, width=widths, seed=seeds)
def test_what_needs_more_than_the_unspared_symbols_is_refused(
    data: st.DataObject, check: int, length: int, width: int, seed: int
) -> None:
    wrong = data.draw(st.integers(0, min(check // 2, length)), label="wrong")
    lost = data.draw(st.integers(0 if wrong else 1, check - 2 * wrong), label="lost")
    spare = data.draw(st.integers(check - 2 * wrong - lost + 1, check), label="spare")
    error, rows = pattern(length + check, width, wrong + lost, seed)
    code = ReedSolomon(check)
    found = code.decode(received(code, error, seed), length, erasures=listed(rows[:lost]), spare=spare)
    assert np.array_equal(found.failed, np.arange(width)) and len(found.rows) == 0


@given(data=st.data(), check=checks, length=lengths, width=widths, seed=seeds)
def test_beyond_its_distance_a_column_fails_or_becomes_a_codeword_within_it(
    data: st.DataObject, check: int, length: int, width: int, seed: int
) -> None:
    spare, lost = data.draw(st.integers(0, check)), data.draw(st.integers(0, check))
    code, symbols = ReedSolomon(check), length + check
    error, rows = pattern(symbols, width, data.draw(st.integers(lost, symbols)), seed)
    found = code.decode(received(code, error, seed), length, erasures=listed(rows[:lost]), spare=spare)
    change = as_error(found, error.shape)
    remainder = received(code, error ^ change, seed)
    assert np.array_equal(np.flatnonzero(remainder.any(0)), found.failed)
    assert not change[:, found.failed].any()
    change[rows[:lost], np.arange(width)] = 0
    assert (2 * np.count_nonzero(change, 0) + lost * change.any(0) <= check - spare).all()


def test_about_as_many_columns_are_taken_for_other_codewords_as_theory_says() -> None:
    code, remainder = ReedSolomon(2), drawn(2, 10_000, least=1)
    found = code.decode(remainder, 6000)
    assert np.array_equal(np.sort(np.append(found.columns, found.failed)), np.arange(10_000))
    expected = 10_000 * 6002 / 65536  # any of 65536 symbols at one of 6002 places, among 65536^2 remainders
    assert abs(len(found.columns) - expected) < 5 * expected**0.5


@given(short=st.integers(1, 5), others=st.integers(0, 2), start=st.integers(0, 20), seed=seeds)
def test_errors_that_shorter_codes_would_not_see_are_corrected(short: int, others: int, start: int, seed: int) -> None:
    # A codeword of a shorter code makes runs of zeros in the syndromes, which random errors next to never do.
    code, unseen = ReedSolomon(2 * (short + 1 + others)), drawn(1, 4, seed=seed, least=1)
    error = pattern(30 + code.check, 4, others, seed)[0]
    error[start : start + 1 + short] ^= np.concatenate([unseen, ReedSolomon(short).feed(unseen)])
    found = code.decode(received(code, error, seed), 30)
    assert np.array_equal(as_error(found, error.shape), error)


def test_a_column_that_would_need_an_error_where_an_erasure_is_fails() -> None:
    # The syndromes 160, 432, 160 are those of an error located by (1 - x), where the erasure is: a double root.
    found = ReedSolomon(3).decode(np.array([[10], [68], [0]], np.uint16), 5, erasures=(np.array([7]), np.array([0])))
    assert np.array_equal(found.failed, [0]) and len(found.rows) == 0


def test_columns_of_the_greatest_length_are_corrected_at_both_ends() -> None:
    code = ReedSolomon(6)
    error = np.zeros((65535, 3), np.uint16)
    error[[0, 32767, 65534]] = drawn(3, 3, least=1)
    found = code.decode(received(code, error), 65529)
    assert np.array_equal(as_error(found, error.shape), error)


def test_many_check_symbols_correct_many_errors_and_erasures() -> None:
    code = ReedSolomon(900)
    error, rows = pattern(2900, 2, 600)
    found = code.decode(received(code, error), 2000, erasures=listed(rows[:300]))
    assert np.array_equal(as_error(found, error.shape), error)


def test_check_symbols_alone_are_a_column_too() -> None:
    code, error = ReedSolomon(6), pattern(6, 4, 3)[0]
    assert np.array_equal(as_error(code.decode(received(code, error), 0), error.shape), error)


def test_erasures_count_once_in_any_order_and_not_at_all_in_sound_columns() -> None:
    code, lost = ReedSolomon(4), np.array([3, 1, 6, 7])
    error = np.zeros((10, 3), np.uint16)
    error[lost, 1] = drawn(4, least=1)
    rows, columns = np.append(np.tile(lost, 2), np.arange(10)), np.append(np.full(8, 1), np.full(10, 2))
    found = code.decode(received(code, error), 6, erasures=(rows, columns))
    assert np.array_equal(as_error(found, error.shape), error) and len(found.failed) == 0


def test_more_erasures_than_check_symbols_fail() -> None:
    code, error = ReedSolomon(4), pattern(10, 2, 1)[0]
    found = code.decode(received(code, error), 6, erasures=(np.arange(5), np.zeros(5, np.int64)))
    assert np.array_equal(found.failed, [0])
    assert np.array_equal(as_error(found, error.shape)[:, 1], error[:, 1])


# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [-1, 0, 65535])
def test_a_number_of_check_symbols_outside_its_range_is_refused(check: int) -> None:
    with pytest.raises(InvalidInput, match=f"1 to 65534 check symbols, not {check}"):
        ReedSolomon(check)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 3), np.int16), np.zeros((2, 3), ">u2"), np.zeros(6, np.uint16), np.zeros((2, 3, 1), np.uint16)],
)
def test_what_is_no_matrix_of_symbols_is_refused(rows: Matrix, unchecked: None) -> None:
    for use in (ReedSolomon(2).feed, lambda remainder: ReedSolomon(2).decode(remainder, 5)):
        with pytest.raises(InvalidInput, match=r"matrix of uint16, not .*View bytes"):
            use(rows)


def test_a_remainder_of_another_shape_or_dtype_is_refused(unchecked: None) -> None:
    code, data = ReedSolomon(2), drawn(5, 3)
    for shape in ((3, 3), (2, 4), (1, 3)):
        with pytest.raises(InvalidInput, match=r"here \(2, 3\)"):
            code.feed(data, np.zeros(shape, np.uint16))
    with pytest.raises(InvalidInput, match="matrix of uint16, not int32"):
        code.feed(data, np.zeros((2, 3), np.int32))
    with pytest.raises(InvalidInput, match=r"here \(2, 3\)"):
        code.decode(np.zeros((3, 3), np.uint16), 5)


@pytest.mark.parametrize("length", [-1, 65534])
def test_a_column_that_is_too_long_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"0 to 65533 data symbols beside 2 check symbols, not {length}"):
        ReedSolomon(2).decode(np.zeros((2, 3), np.uint16), length)


@pytest.mark.parametrize("spare", [-1, 3])
def test_only_check_symbols_that_there_are_can_be_spared(spare: int) -> None:
    with pytest.raises(InvalidInput, match=f"0 to 2 check symbols can be spared, not {spare}"):
        ReedSolomon(2).decode(np.zeros((2, 3), np.uint16), 5, spare=spare)


def test_less_than_one_thread_is_refused() -> None:
    code, data = ReedSolomon(2), drawn(2, 3)
    for use in (lambda: code.feed(data, threads=0), lambda: code.decode(data, 5, threads=0)):
        with pytest.raises(InvalidInput, match="At least 1 thread has to work, not 0"):
            use()


@pytest.mark.parametrize(("row", "column"), [(-1, 0), (7, 0), (0, -1), (0, 3)])
def test_erasures_outside_the_matrix_are_refused(row: int, column: int) -> None:
    with pytest.raises(InvalidInput, match=f"1 erasures lie outside .* in row {row}, column {column}"):
        ReedSolomon(2).decode(drawn(2, 3), 5, erasures=(np.array([1, row]), np.array([1, column])))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(np.zeros(2, np.int64), np.zeros(1, np.int64)), (np.zeros(2), np.zeros(2)), (np.zeros((1, 1), np.int64),) * 2],
)
def test_erasures_are_two_equally_long_lists(rows: Matrix, columns: Matrix, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match="two equally long lists of int64"):
        ReedSolomon(2).decode(drawn(2, 3), 5, erasures=(rows, columns))
