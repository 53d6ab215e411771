"""Pages of memory, and files cut short."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from weights import DTYPES, bytes_of, far_from_even, full_weight, shapes

from planaria.damages import Page, TruncatedFile
from planaria.errors import InvalidInput
from planaria.streams import generator

models = st.lists(st.tuples(st.sampled_from(DTYPES), shapes), max_size=5).map(
    lambda parts: {f"part {number}": full_weight(dtype, *shape) for number, (dtype, shape) in enumerate(parts)}
)


def content(model: dict[str, Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0, dtype=torch.uint8), *map(bytes_of, model.values())])


@given(model=models, size=st.integers(1, 70), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_count_whole_aligned_pages_are_lost(
    model: dict[str, Tensor], size: int, share: float, seed: int
) -> None:
    pages = -(-len(content(model)) // size)
    count = int(share * pages)
    faults = Page(bytes=size, count=count, fill="zero").apply_to_model(model, generator(seed, "damage"))
    lost = content(faults.replay(model)) == 0
    whole = [bool(page.all()) for page in lost.split(size)] if len(lost) else []
    assert whole == ([bool(page.any()) for page in lost.split(size)] if len(lost) else []) and sum(whole) == count
    for name, weight in model.items():
        changed = (bytes_of(faults.replay(model)[name]) != bytes_of(weight)).view(-1, weight.element_size()).any(1)
        assert torch.equal(faults.tensors[name].index, changed.nonzero().flatten())
    with pytest.raises(InvalidInput, match=f"{pages + 1} places cannot break where there are {pages}"):
        Page(bytes=size, count=pages + 1).apply_to_model(model, generator(seed, "damage"))


@pytest.mark.parametrize("size", [16, 64, 4096, 8192])
def test_a_rate_is_the_share_of_pages(size: int) -> None:
    weight = torch.ones(500 * size, dtype=torch.uint8)
    lost = Page(0.2, bytes=size, fill="zero").apply(weight, generator(0, "damage"))[0].view(500, size) == 0
    assert torch.equal(lost.any(1), lost.all(1))
    assert abs(int(lost.any(1).sum()) - 100) < 5 * math.sqrt(500 * 0.2 * 0.8)


def test_a_random_page_is_random() -> None:
    damaged, _ = Page(1.0, bytes=64).apply(torch.zeros(50_000, dtype=torch.uint8), generator(0, "damage"))
    assert not far_from_even(damaged.long().bincount(minlength=256))


def test_every_page_is_as_likely_as_the_others() -> None:
    counts = torch.zeros(12)
    for seed in range(300):
        damaged, _ = Page(bytes=8, count=3, fill="zero").apply(torch.ones(24), generator(seed, "damage"))
        counts += damaged.view(12, 2)[:, 0] == 0
    assert int(counts.sum()) == 900 and not far_from_even(counts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.1, "bytes": 0}, "1 or more bytes, not 0"),
        ({"bytes": 16}, "either a rate or a count"),
        ({"rate": 1.5, "bytes": 16}, r"\[0, 1\], not 1\.5"),
        ({"rate": 0.1, "bytes": 16, "fill": "ones"}, "'ones'.*random, zero"),
    ],
)
def test_impossible_pages_are_refused(arguments: dict, message: str, unchecked: None) -> None:
    with pytest.raises(InvalidInput, match=message):
        Page(**arguments)


@given(model=models, kept=st.floats(0, 1))
def test_a_truncated_file_is_zero_from_a_point_on(model: dict[str, Tensor], kept: float) -> None:
    damaged = content(TruncatedFile(kept).apply_to_model(model, generator(0, "damage")).replay(model))
    start = round(kept * len(damaged))
    assert (damaged[:start] != 0).all() and not damaged[start:].any()


def test_a_file_is_cut_at_any_byte_with_equal_chances() -> None:
    model = {"one": full_weight(torch.int32, 2), "other": full_weight(torch.uint8, 3)}
    starts = torch.tensor(
        [
            int((content(TruncatedFile().apply_to_model(model, generator(seed, "damage")).replay(model)) != 0).sum())
            for seed in range(600)
        ]
    )
    assert not far_from_even(starts.bincount(minlength=12)) and starts.max() == 11


@pytest.mark.parametrize("kept", [-0.1, 1.1, math.nan])
def test_a_share_outside_its_range_is_refused(kept: float) -> None:
    with pytest.raises(InvalidInput, match=rf"\[0, 1\], not {kept}"):
        TruncatedFile(kept)
