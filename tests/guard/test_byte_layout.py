"""The layout against a list of its symbols, one by one."""

from itertools import accumulate, pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import random_bytes

from planaria.checkpoints import StateDict
from planaria.guard.byte_layout import ByteLayout

tiles = st.sampled_from([64, 128])
models = st.lists(st.integers(0, 300) | st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 129, 256]), max_size=6)
shares = st.floats(0, 1)


class Naive:
    """Every symbol with its tensor, its tile and its bytes."""

    def __init__(self, sizes: list[int], tile: int):
        self.tensors = {str(index): random_bytes(size, seed=index) for index, size in enumerate(sizes)}
        self.checkpoint = StateDict({name: torch.from_numpy(content) for name, content in self.tensors.items()})
        self.layout = ByteLayout(tuple(self.checkpoint.entries.values()), tile=tile)
        self.symbols = []  # (tensor, byte in it, tile of all, value)
        tile_of = 0
        for tensor, content in enumerate(self.tensors.values()):
            for start in range(0, len(content), 2):
                pair = [*content[start : start + 2].tolist(), 0]
                self.symbols.append((tensor, start, tile_of + start // tile, pair[0] + 256 * pair[1]))
            tile_of += -(-len(content) // tile)
        self.tiles = tile_of


naives = st.builds(Naive, models, tiles)


@given(naive=naives)
def test_symbols_tiles_and_bytes_are_counted_right(naive: Naive) -> None:
    layout, sizes = naive.layout, [len(content) for content in naive.tensors.values()]
    assert (layout.symbols, layout.tiles, layout.nbytes) == (len(naive.symbols), naive.tiles, sum(sizes))
    starts = list(accumulate((-(-size // 2) for size in sizes), initial=0))
    assert [layout.start_of(name) for name in naive.tensors] == starts[:-1]
    for tensor in range(len(sizes)):
        mine = {tile for of, _, tile, _ in naive.symbols if of == tensor}
        assert set(np.arange(naive.tiles)[layout.tiles_of_tensor(tensor)]) == mine


@given(naive=naives, first=shares, length=shares, past=st.integers(0, 9))
def test_symbols_are_read_across_tensors_and_are_zero_past_the_end(
    naive: Naive, first: float, length: float, past: int
) -> None:
    start = int(first * naive.layout.symbols)
    stop = start + int(length * (naive.layout.symbols - start)) + past
    expected = [value for *_, value in naive.symbols[start:stop]]
    expected += [0] * (stop - start - len(expected))
    assert naive.layout.read(naive.checkpoint, start, stop).tolist() == expected


@given(naive=naives, first=shares, length=shares, past=st.integers(0, 9))
def test_places_say_where_a_run_of_symbols_lies(naive: Naive, first: float, length: float, past: int) -> None:
    start = int(first * naive.layout.symbols)
    stop = start + int(length * (naive.layout.symbols - start)) + past
    places = list(naive.layout.places(start, stop))
    listed = [
        (place.tensor, byte, place.symbol + (byte - place.start) // 2)
        for place in places
        for byte in range(place.start, place.stop, 2)
    ]
    wanted = range(start, min(stop, naive.layout.symbols))
    assert listed == [(*naive.symbols[symbol][:2], symbol) for symbol in wanted]
    contents = list(naive.tensors.values())
    assert all(0 <= place.start < place.stop <= len(contents[place.tensor]) for place in places)
    assert len({place.tensor for place in places}) == len(places)


@given(naive=naives, data=st.data())
def test_every_symbol_has_its_tile_and_every_tile_its_symbols(naive: Naive, data: st.DataObject) -> None:
    layout = naive.layout
    symbols = np.arange(layout.symbols)
    tiles = [tile for *_, tile, _ in naive.symbols]
    assert layout.tiles_of(symbols).tolist() == tiles
    assert layout.tiles_of(symbols[::-1]).tolist() == tiles[::-1]
    assert layout.tiles_of(symbols.repeat(2)[1::3]).tolist() == np.array(tiles).repeat(2)[1::3].tolist()

    chosen = sorted(data.draw(st.sets(st.integers(0, naive.tiles - 1)))) if naive.tiles else []
    picked = np.array(chosen, np.int64)
    bounds = zip(*(bound.tolist() for bound in layout.tile_bounds(picked)), strict=True)
    members = {tile: [at for at, symbol in enumerate(naive.symbols) if symbol[2] == tile] for tile in chosen}
    assert list(bounds) == [(min(members[tile]), max(members[tile]) + 1) for tile in chosen]

    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, layout.symbols)] * 2)))
    of_tiles = layout.symbols_of(picked, start, stop)
    assert of_tiles.dtype.kind == "i"
    assert of_tiles.tolist() == [at for tile in chosen for at in members[tile] if start <= at < stop]


@given(naive=naives, data=st.data())
def test_neighbouring_tiles_of_one_tensor_are_one_run_of_bytes(naive: Naive, data: st.DataObject) -> None:
    chosen = sorted(data.draw(st.sets(st.integers(0, naive.tiles - 1)))) if naive.tiles else []
    runs = list(naive.layout.bytes_of(np.array(chosen, np.int64)))
    names = list(naive.tensors)
    expected = {
        (names[tensor], byte)
        for tensor, start, tile, _ in naive.symbols
        if tile in chosen
        for byte in range(start, min(start + 2, len(naive.tensors[names[tensor]])))
    }
    listed = [(name, byte) for name, start, stop in runs for byte in range(start, stop)]
    assert set(listed) == expected and len(listed) == len(expected)
    places = [(names.index(name), start) for name, start, _ in runs]
    assert places == sorted(places)
    assert all(name != after or stop < start for (name, _, stop), (after, start, _) in pairwise(runs))
