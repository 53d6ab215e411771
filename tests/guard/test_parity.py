"""The parity tier: its size, its making in pieces, and how much damage it takes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from models import random_bytes, scattered
from numpy.typing import NDArray

from planaria.checkpoints import StateDict
from planaria.codes import ReedSolomon
from planaria.guard import parity
from planaria.guard.byte_layout import ByteLayout
from planaria.guard.manifest import ParityShape
from planaria.guard.overlay import Overlay
from planaria.guard.parity import correct, encode, shape_for
from planaria.guard.unsolved import Unsolved
from planaria.streams import generator

TILE = 64
seeds = st.integers(0, 9999)


def silent(count: int) -> None:
    """No progress."""


def size(shape: ParityShape, symbols: int) -> int:
    """Bytes of the tier."""
    return 2 * -(-symbols // shape.segment) * shape.check * shape.width


@given(symbols=st.integers(1, 2**31) | st.integers(1, 10**5), share=st.floats(0, 1))
def test_parity_never_takes_more_bytes_than_it_is_given(symbols: int, share: float) -> None:
    nbytes = int(share * 2 * symbols)
    shape = shape_for(symbols, nbytes)
    if shape is not None:
        assert size(shape, symbols) <= nbytes
        assert shape.check >= 2 and -(-shape.segment // shape.width) + shape.check <= 65535


@given(symbols=st.integers(50_000, 2**31), share=st.floats(0.002, 0.5))
def test_parity_uses_nine_tenths_of_its_bytes_for_all_but_tiny_models(symbols: int, share: float) -> None:
    nbytes = int(share * 2 * symbols)
    shape = shape_for(symbols, nbytes)
    assert shape is not None and size(shape, symbols) >= 0.9 * nbytes


def test_there_is_no_parity_without_room_or_without_symbols() -> None:
    assert shape_for(0, 1000) is None and shape_for(100, 3) is None and shape_for(10**6, 0) is None


@dataclass
class Coded:
    """A small model of uneven tensors with its parity, and an overlay of a damaged copy."""

    shape: ParityShape
    sizes: tuple[int, ...] = (1300, 1, 0, 777, 2048, 64)
    checkpoint: StateDict = field(init=False)

    def __post_init__(self) -> None:
        parts = {str(index): random_bytes(size, seed=index) for index, size in enumerate(self.sizes)}
        tensors = {name: torch.from_numpy(content) for name, content in parts.items()}
        self.checkpoint = StateDict(tensors, writable=True)
        self.layout = ByteLayout(tuple(self.checkpoint.entries.values()), tile=TILE)
        self.intact = self.layout.read(self.checkpoint, 0, self.layout.symbols).copy()
        self.stored = encode(self.checkpoint, self.layout, self.shape, threads=1, progress=silent)
        self.overlay = Overlay(self.checkpoint, self.layout)

    @property
    def now(self) -> NDArray[np.uint16]:
        return self.layout.read(self.overlay, 0, self.layout.symbols)

    @property
    def codewords(self) -> NDArray[np.int64]:
        """The codeword of every symbol."""
        segment, within = np.divmod(np.arange(self.layout.symbols), self.shape.segment)
        return np.asarray(segment * self.shape.width + within % self.shape.width)

    def strike(self, symbols: NDArray[np.int64], *, seed: int) -> None:
        """Other numbers in these symbols; the padding of odd tensors stays."""
        padded = [start + size // 2 for start, size in zip(self.layout.starts, self.sizes, strict=False) if size % 2]
        values = 1 + random_bytes(2 * len(symbols), seed=seed).view(np.uint16) % 65535
        values = np.where(np.isin(symbols, padded), 1 + values % 255, values).astype(np.uint16)
        self.overlay.xor(symbols, values)
        self.overlay.commit()

    def correct(
        self,
        damaged: NDArray[np.bool_],
        *,
        suspects: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda tiles: np.empty(0, np.int64),
        writable: Callable[[NDArray[np.int64]], NDArray[np.uint16]] = lambda at: np.full(len(at), 65535, np.uint16),
    ) -> Unsolved:
        return correct(
            self.overlay, self.layout, self.shape, self.stored, damaged,
            suspects=suspects, proven=self.proven, writable=writable, threads=1, progress=silent,
        )  # fmt: skip

    def proven(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        begins, ends = self.layout.tile_bounds(tiles)
        now = self.now
        right = [(now[b:e] == self.intact[b:e]).all() for b, e in zip(begins, ends, strict=True)]
        return tiles[np.array(right, bool)]

    def marked(self, symbols: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The tiles of these symbols."""
        damaged = np.zeros(self.layout.tiles, bool)
        damaged[self.layout.tiles_of(symbols)] = True
        return damaged


shapes = st.builds(
    ParityShape, segment=st.sampled_from([500, 1000, 2095, 4000]), width=st.integers(1, 30), check=st.integers(2, 40)
)
coded = st.builds(Coded, shapes)


@examples(20)
@given(model=coded, chunk=st.integers(200, 3000), threads=st.integers(1, 3))
def test_parity_made_in_pieces_is_that_of_each_segment_as_a_whole(model: Coded, chunk: int, threads: int) -> None:
    shape, symbols = model.shape, model.intact
    whole = []
    for start in range(0, len(symbols), shape.segment):
        part = symbols[start : start + shape.segment]
        padded = np.concatenate([part, np.zeros(-len(part) % shape.width, np.uint16)])
        whole.append(ReedSolomon(shape.check).feed(padded.reshape(-1, shape.width)))
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "CHUNK", chunk)
        made = encode(model.checkpoint, model.layout, shape, threads=threads, progress=told.append)
    assert np.array_equal(made, np.stack(whole))
    assert sum(told) >= 2 * len(symbols) - 2 * shape.segment


def worst(model: Coded, most: int, *, seed: int) -> NDArray[np.int64]:
    """Symbols at random, as many in every codeword as `most`, or all of them."""
    order = torch.randperm(model.layout.symbols, generator=generator(seed, "test symbols")).numpy()
    chosen = [order[model.codewords[order] == codeword][:most] for codeword in np.unique(model.codewords)]
    return np.sort(np.concatenate(chosen))


@given(model=coded, seed=seeds)
def test_half_the_strength_in_every_codeword_at_unknown_places_is_corrected(model: Coded, seed: int) -> None:
    symbols = worst(model, model.shape.check // 2, seed=seed)
    damaged = model.marked(symbols)
    model.strike(symbols, seed=seed)
    assert not np.array_equal(model.now, model.intact)
    unsolved = model.correct(damaged)
    assert np.array_equal(model.now, model.intact)
    assert not damaged.any() and not unsolved.failed.any() and not unsolved.scattered


@given(model=coded, seed=seeds)
def test_the_whole_strength_in_known_tiles_is_corrected(model: Coded, seed: int) -> None:
    damaged = np.zeros(model.layout.tiles, bool)
    for tile in scattered(model.layout.tiles, model.layout.tiles, seed=seed)[::-1]:
        damaged[tile] = True
        symbols = model.layout.symbols_of(damaged.nonzero()[0], 0, model.layout.symbols)
        if np.bincount(model.codewords[symbols]).max() > model.shape.check:
            damaged[tile] = False
    symbols = model.layout.symbols_of(damaged.nonzero()[0], 0, model.layout.symbols)
    if symbols.size:
        model.strike(symbols, seed=seed)
    assert not model.correct(damaged).failed.any()
    assert np.array_equal(model.now, model.intact) and not damaged.any()


@given(model=coded, seed=seeds)
def test_suspects_stretch_the_strength_past_half(model: Coded, seed: int) -> None:
    symbols = worst(model, model.shape.check - 2, seed=seed)
    damaged = model.marked(symbols)
    model.strike(symbols, seed=seed)
    unsolved = model.correct(damaged, suspects=lambda tiles: symbols)
    assert np.array_equal(model.now, model.intact) and not unsolved.failed.any()


@given(model=coded, seed=seeds, share=st.floats(0, 1))
def test_past_the_strength_only_failed_codewords_of_damaged_tiles_are_in_doubt(
    model: Coded, seed: int, share: float
) -> None:
    symbols = scattered(round(share * model.layout.symbols), model.layout.symbols, seed=seed)
    struck = model.marked(symbols)
    damaged = struck.copy()
    model.strike(symbols, seed=seed)
    unsolved = model.correct(damaged)
    wrong = (model.now != model.intact).nonzero()[0]
    assert struck[model.layout.tiles_of(wrong)].all()  # a proven tile is never touched
    assert damaged[model.layout.tiles_of(wrong)].all()  # and what is called proven is right
    assert 0 <= unsolved.density <= 1
    if model.shape.check >= 8:  # a weaker code may take chance for a codeword
        assert unsolved.doubtful(0, model.layout.symbols, model.shape)[wrong].all()


# --- Beyond the strength ---------------------------------------------------------------------------------------------


def beyond(model: Coded, *, kind: str, lanes: float, seed: int) -> NDArray[np.int64]:
    """Damages symbols of a share of the codewords, more in each than can be corrected; answers which were wrong."""
    draws = np.random.default_rng(seed)
    hit = draws.random(model.codewords.max() + 1) < lanes
    among = hit[model.codewords].nonzero()[0]
    symbols = np.sort(draws.permutation(among)[: max(len(among) // 4, 1)])
    padded = [start + size // 2 for start, size in zip(model.layout.starts, model.sizes, strict=False) if size % 2]
    symbols = symbols[~np.isin(symbols, padded)]
    values = {
        "random": draws.integers(1, 65536, len(symbols)),
        "signs": np.full(len(symbols), 0x8000),
        "bits": 1 << draws.integers(0, 16, len(symbols)),
    }[kind]
    model.overlay.xor(symbols, values.astype(np.uint16))
    model.overlay.commit()
    return (model.now != model.intact).nonzero()[0]


weak = st.builds(
    Coded,
    st.builds(
        ParityShape,
        segment=st.sampled_from([500, 2095, 4000]),
        width=st.integers(1, 4),
        check=st.integers(1, 16),
    ),
)


@examples(200)
@given(
    model=weak, kind=st.sampled_from(["random", "signs", "bits"]), lanes=st.sampled_from([0.3, 1.0]), seed=seeds,
    suspected=st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_no_symbol_but_the_struck_ones_ever_changes(
    model: Coded, kind: str, lanes: float, seed: int, suspected: float
) -> None:
    struck = beyond(model, kind=kind, lanes=lanes, seed=seed)
    before = model.now
    damaged = model.marked(struck)
    told = struck[np.random.default_rng(seed).random(len(struck)) < suspected]
    unsolved = model.correct(damaged, suspects=lambda tiles: told[np.isin(model.layout.tiles_of(told), tiles)])
    changed = (model.now != before).nonzero()[0]
    assert np.isin(changed, struck).all()
    assert (model.now[changed] == model.intact[changed]).all()
    wrong = (model.now != model.intact).nonzero()[0]
    assert damaged[model.layout.tiles_of(wrong)].all()
    assert unsolved.doubtful(0, model.layout.symbols, model.shape)[wrong].all()


@pytest.mark.parametrize("kind", ["random", "signs", "bits"])
@pytest.mark.parametrize(("check", "width"), [(2, 12), (2, 40), (3, 24), (4, 24)])
def test_long_weak_codewords_never_write_to_what_was_right(kind: str, check: int, width: int) -> None:
    for seed in range(3):
        model = Coded(ParityShape(segment=2**17, width=width, check=check), sizes=(2**17,))
        struck = beyond(model, kind=kind, lanes=1.0, seed=seed)
        before = model.now
        model.correct(model.marked(struck))
        assert np.array_equal(model.now, before)


@given(nbytes=st.integers(200, 4000), symbols=st.integers(10_000, 200_000))
def test_codewords_are_longer_where_short_ones_would_prove_nothing(nbytes: int, symbols: int) -> None:
    shape = shape_for(symbols, nbytes)
    longest = -(-symbols // -(-symbols // parity.LONGEST))
    if shape is not None and shape.check < parity.PROVABLE:
        assert nbytes // 2 // -(-symbols // longest) < 2 * parity.PROVABLE


@examples(30)
@given(model=coded, seed=seeds)
def test_what_may_not_be_written_is_written_with_a_digest_alone(model: Coded, seed: int) -> None:
    struck = beyond(model, kind="random", lanes=0.3, seed=seed)
    before, damaged = model.now, model.marked(struck)
    model.correct(damaged, writable=lambda at: np.zeros(len(at), np.uint16))
    changed = (model.now != before).nonzero()[0]
    assert not damaged[model.layout.tiles_of(changed)].any()


@pytest.mark.parametrize("check", [2, 3, 4])
def test_few_wrong_codewords_in_a_tile_do_not_keep_its_right_ones_from_being_proven(check: int) -> None:
    proven = 0
    for seed in range(40):
        model = Coded(ParityShape(segment=2095, width=40, check=check))
        draws = np.random.default_rng(seed)
        crowd = (model.codewords == 3).nonzero()[0][: check + 1]  # beyond the strength, all over the model
        single = 1000 + int(draws.integers(20))
        single += model.codewords[single] == 3
        symbols = np.unique(np.append(crowd, single))
        model.strike(symbols, seed=seed)
        damaged = model.marked(symbols)
        model.correct(damaged)
        wrong = (model.now != model.intact).nonzero()[0]
        assert np.isin(wrong, crowd).all()
        proven += single not in wrong
    assert proven == 40
