"""The depths: prefix codes over ordered cells, as good for Gaussian weights as scalar quantisers get."""

import hashlib
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from helpers import drawn

from planaria.errors import InvalidInput
from planaria.memory.quantiser import (
    DEPTHS,
    FINEST,
    FIRST_UNIFORM,
    NOTHING,
    SIGN,
    SUPPORT,
    Tree,
    refines,
    thresholds,
    tree,
)

# Every depth from nothing; some from signs, and an octave finer than another.
PAIRS = [(NOTHING, fine) for fine in range(DEPTHS)] + [(SIGN, fine) for fine in range(FIRST_UNIFORM, DEPTHS, 6)]
PAIRS += [(fine - 4, fine) for fine in range(FIRST_UNIFORM + 4, DEPTHS, 6)] + [(9, 9), (9, FINEST - 2)]


def parents(coarse: int, fine: int) -> np.ndarray:
    """The coarse cell that each fine one lies in."""
    return np.searchsorted(thresholds(coarse), np.concatenate([[-np.inf], thresholds(fine)]), side="right")


@cache
def gaussian() -> np.ndarray:
    return drawn(2**16).double().numpy()


def quantised(depth: int, weights: np.ndarray) -> tuple[Tree, np.ndarray]:
    return tree(NOTHING, depth), np.searchsorted(thresholds(depth), weights, side="right")


@pytest.mark.parametrize("depth", range(DEPTHS))
def test_cells_are_ordered_and_those_made_by_rule_are_even(depth: int) -> None:
    inner = thresholds(depth)
    assert (np.diff(inner) > 0).all() and np.isfinite(inner).all()
    if depth >= FIRST_UNIFORM:
        assert np.array_equal(inner, -inner[::-1]) and 0 in inner
        even = inner[np.abs(inner) <= SUPPORT]
        np.testing.assert_allclose(np.diff(even), 2 ** -((depth - FIRST_UNIFORM + 3) / 4), rtol=1e-9)
        assert np.array_equal(inner[inner > SUPPORT], np.arange(81, 321) / 16)


@pytest.mark.parametrize(("coarse", "fine"), PAIRS)
def test_codes_are_complete_prefix_codes_of_each_coarse_cell(coarse: int, fine: int) -> None:
    of, cells = tree(coarse, fine), parents(coarse, fine)
    assert of.lengths.max() < 32 and len(of.codes) == len(of.lengths) == len(of.leaves) == len(cells)
    assert np.array_equal(np.unique(cells), np.arange(len(thresholds(coarse)) + 1))
    # Each code as the stretch of [0, 1) of what begins with its bits, a unit further for each coarse cell: together
    # they cover all once (Kraft 1949).
    starts = np.sort(cells + of.codes * 2.0**-of.lengths)
    ends = np.sort(cells + (of.codes + 1) * 2.0**-of.lengths)
    assert starts[0] == 0 and ends[-1] == cells[-1] + 1 and np.array_equal(starts[1:], ends[:-1])


@pytest.mark.parametrize(("coarse", "fine"), PAIRS)
def test_the_tree_leads_every_code_from_its_root_to_its_leaf(coarse: int, fine: int) -> None:
    of = tree(coarse, fine)
    nodes = of.roots[parents(coarse, fine)]
    for depth in range(int(of.lengths.max())):
        walking = of.lengths > depth
        bits = of.codes[walking] >> (of.lengths[walking] - 1 - depth) & 1
        nodes[walking] = of.child[nodes[walking], bits]
    assert np.array_equal(nodes, of.leaves)
    assert (of.child[of.leaves] == -1).all() and len(np.unique(of.leaves)) == len(of.leaves)
    inside = of.child[:, 0] >= 0
    assert np.array_equal(inside, of.child[:, 1] >= 0) and (~inside).sum() == len(of.leaves)


@pytest.mark.parametrize(("coarse", "fine"), PAIRS)
def test_every_node_bounds_what_is_below_it_and_expects_a_weight_between(coarse: int, fine: int) -> None:
    of = tree(coarse, fine)
    assert (of.low <= of.mean).all() and (of.mean <= of.high).all() and np.isfinite(of.mean).all()
    edges = np.concatenate([[-np.inf], thresholds(fine), [np.inf]])
    assert np.array_equal(of.low[of.leaves], edges[:-1]) and np.array_equal(of.high[of.leaves], edges[1:])
    outer = np.concatenate([[-np.inf], thresholds(coarse), [np.inf]])
    assert np.array_equal(of.low[of.roots], outer[:-1]) and np.array_equal(of.high[of.roots], outer[1:])
    for side in (0, 1):
        node = np.flatnonzero(of.child[:, side] >= 0)
        below = of.child[node, side]
        assert (of.low[node] <= of.low[below]).all() and (of.high[below] <= of.high[node]).all()


def test_the_mean_of_a_cell_is_that_of_gaussian_weights() -> None:
    weights = drawn(2**18).double().numpy()
    for depth in (SIGN, 2, 4, FIRST_UNIFORM, FIRST_UNIFORM + 6):
        of, cells = quantised(depth, weights)
        for cell, leaf in enumerate(of.leaves):
            own = weights[cells == cell]
            if len(own) > 2000:
                assert of.mean[leaf] == pytest.approx(own.mean(), abs=5 * own.std() / len(own) ** 0.5)


def test_refinement_is_that_of_thresholds() -> None:
    for coarse in range(DEPTHS):
        for fine in range(DEPTHS):
            contained = bool(np.isin(thresholds(coarse), thresholds(fine)).all())
            if refines(fine, coarse):
                assert contained
            else:
                assert not contained or fine == NOTHING
    assert all(refines(depth, NOTHING) and refines(depth, depth) for depth in range(DEPTHS))
    assert all(refines(depth, SIGN) for depth in range(FIRST_UNIFORM, DEPTHS))


@pytest.mark.parametrize("depth", range(1, DEPTHS))
def test_rate_and_distortion_of_gaussian_weights_are_within_two_decibels_of_the_limit(depth: int) -> None:
    weights = gaussian()
    of, cells = quantised(depth, weights)
    rate = of.lengths[cells].mean()
    distortion = np.square(weights - of.mean[of.leaves[cells]]).mean()
    assert 0 < 10 * np.log10(distortion * 4**rate) <= 2.05  # a hundredth of a decibel or two are the sample's


def test_finer_depths_cost_more_bits_and_leave_less_error() -> None:
    weights, figures = gaussian(), []
    for depth in range(DEPTHS):
        of, cells = quantised(depth, weights)
        figures.append((of.lengths[cells].mean(), np.square(weights - of.mean[of.leaves[cells]]).mean()))
    for kind in (figures[:FIRST_UNIFORM], figures[FIRST_UNIFORM:]):
        for (rate, distortion), (more, less) in pairwise(kind):
            assert rate < more and distortion > less
    assert figures[SIGN][1] == pytest.approx(1 - 2 / np.pi, abs=0.01)


def test_codes_are_the_same_everywhere() -> None:
    """Whoever reads a refinement needs the very codes it was made with; a change of them is a new format."""
    told = hashlib.sha256()
    for coarse, fine in PAIRS:
        of = tree(coarse, fine)
        for part in (thresholds(fine), of.lengths, of.codes, of.leaves, of.roots, of.child):
            told.update(np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<")).tobytes())
    assert told.hexdigest() == "51039d5922a21fa030ac58d4bbc961f481af1351f3c61bb4b22c21be2fe753b3"


@pytest.mark.parametrize("depth", [-1, DEPTHS])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(InvalidInput, match=f"depths 0 to {FINEST}, not {depth}"):
        thresholds(depth)


@pytest.mark.parametrize(("coarse", "fine"), [(SIGN, 2), (8, 9), (12, 8), (5, 9), (SIGN, NOTHING)])
def test_depths_that_do_not_refine_are_refused(coarse: int, fine: int) -> None:
    with pytest.raises(InvalidInput, match=f"Rung {fine} does not refine depth {coarse}"):
        tree(coarse, fine)
