"""The overlay against plain copies of the tensors."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import random_bytes
from numpy.typing import NDArray

from planaria.checkpoints import StateDict
from planaria.guard.byte_layout import ByteLayout
from planaria.guard.overlay import Overlay

TILE = 64
SIZES = {"one": 1, "nothing": 0, "even": 200, "odd": 333, "border": 128}


class Recording(StateDict):
    """Notes what is written."""

    def __init__(self) -> None:
        tensors = {name: torch.from_numpy(random_bytes(size, seed=size)) for name, size in SIZES.items()}
        super().__init__(tensors, writable=True)
        self.written: list[tuple[str, int, int]] = []

    def _write(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        self.written.append((name, start, start + len(content)))
        super()._write(name, start, content)


class Both:
    """A overlay, and what it should read as."""

    def __init__(self) -> None:
        self.checkpoint = Recording()
        self.intact = {name: self.checkpoint.read(name) for name in SIZES}
        self.layout = ByteLayout(tuple(self.checkpoint.entries.values()), tile=TILE)
        self.overlay = Overlay(self.checkpoint, self.layout)
        self.naive = {name: content.copy() for name, content in self.intact.items()}

    def xor(self, symbols: list[int], values: list[int]) -> None:
        self.overlay.xor(np.array(symbols, np.int64), np.array(values, np.uint16))
        for symbol, value in zip(symbols, values, strict=True):
            (place,) = self.layout.places(symbol, symbol + 1)
            pair = np.array([value], "<u2").view(np.uint8)
            self.naive[list(SIZES)[place.tensor]][place.start : place.stop] ^= pair[: place.stop - place.start]

    def replace(self, name: str, start: int, content: NDArray[np.uint8]) -> None:
        self.overlay.replace(name, start, content)
        self.naive[name][start : start + len(content)] = content

    @property
    def agree(self) -> bool:
        return all(np.array_equal(self.overlay.read(name), self.naive[name]) for name in SIZES)


@st.composite
def corrected(draw: st.DrawFn) -> Both:
    """A overlay after a few corrections of all kinds."""
    both = Both()
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            symbols = draw(st.lists(st.integers(0, both.layout.symbols - 1), max_size=20))
            count = len(symbols)
            both.xor(symbols, draw(st.lists(st.integers(0, 65535), min_size=count, max_size=count)))
        else:
            name = draw(st.sampled_from(list(SIZES)))
            start = 2 * draw(st.integers(0, SIZES[name] // 2))
            stop = draw(st.integers(start, SIZES[name]))
            both.replace(name, start, random_bytes(stop - start, seed=draw(st.integers(0, 99))))
    return both


def contents(checkpoint: Any) -> dict[str, bytes]:
    return {name: checkpoint.read(name).tobytes() for name in SIZES}


@given(both=corrected())
def test_a_draft_reads_as_corrected_and_its_checkpoint_as_it_was(both: Both) -> None:
    assert both.agree
    assert contents(both.checkpoint) == {name: content.tobytes() for name, content in both.intact.items()}
    assert both.checkpoint.written == []


@given(both=corrected(), name=st.sampled_from(list(SIZES)), first=st.floats(0, 1), length=st.floats(0, 1))
def test_any_part_from_an_even_byte_on_reads_as_part_of_the_whole(
    both: Both, name: str, first: float, length: float
) -> None:
    start = int(first * SIZES[name]) // 2 * 2
    stop = start + int(length * (SIZES[name] - start))
    assert np.array_equal(both.overlay.read(name, start, stop), both.naive[name][start:stop])


@given(both=corrected())
def test_a_commit_writes_the_corrections_to_their_tiles_alone(both: Both) -> None:
    touched = {
        (name, tile)
        for symbol in both.overlay.symbols.tolist()
        for name, start, _ in both.layout.bytes_of(both.layout.tiles_of(np.array([symbol])))
        for tile in [start // TILE]
    }
    both.overlay.commit()
    assert contents(both.checkpoint) == {name: content.tobytes() for name, content in both.naive.items()}
    assert {(name, start // TILE) for name, first, stop in both.checkpoint.written for start in range(first, stop)} == (
        touched
    )


@given(both=corrected(), symbols=st.lists(st.integers(0, 300), max_size=9))
def test_a_committed_draft_starts_again(both: Both, symbols: list[int]) -> None:
    both.overlay.commit()
    assert both.overlay.symbols.size == both.overlay.values.size == 0
    both.xor(symbols, [7] * len(symbols))
    assert both.agree
    both.overlay.commit()
    assert contents(both.checkpoint) == {name: content.tobytes() for name, content in both.naive.items()}


@given(both=corrected(), symbols=st.lists(st.integers(0, 300), max_size=9))
def test_the_same_correction_twice_is_none(both: Both, symbols: list[int]) -> None:
    before = contents(both.overlay)
    for _ in range(2):
        both.xor(symbols, [12345] * len(symbols))
    assert contents(both.overlay) == before
