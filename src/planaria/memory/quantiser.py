"""The depths of the refinement: scalar quantisers from one bit upwards, each with a prefix code for its cells.

All numbers are in units of a tensor's scale, and the same on every machine but for the means (FORMAT.md, section 10).
"""

import heapq
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int32, Int64
from scipy.special import ndtr

from planaria.errors import InvalidInput

# Thresholds and code lengths that make distortion least at their rate for Gaussian weights: entropy-constrained
# quantisers (Chou, Lookabaugh, Gray 1989, algorithm of section III) with the lengths of a Huffman code in the
# place of the entropies, and the lower convex hull of what came out.
OPTIMISED: tuple[tuple[tuple[float, ...], tuple[int, ...]], ...] = (
    ((), (0,)),
    ((0.0,), (1, 1)),
    ((-0.7909, 0.7909), (2, 1, 2)),
    ((-1.6463, -0.4481, 0.8789, 1.8261), (4, 2, 1, 3, 4)),
    ((-2.7592, -2.1113, -1.3604, -0.5015, 0.2351, 1.0233, 1.8291, 2.6082), (7, 6, 4, 2, 2, 2, 3, 5, 7)),
    (
        (-3.4989, -2.9031, -2.3222, -1.7098, -1.0437, -0.5128, 0.1201, 0.7709, 1.3761, 2.012, 2.6015, 3.1542, 3.657),
        (11, 9, 7, 5, 3, 3, 2, 2, 3, 4, 6, 8, 10, 11),
    ),
    (
        (
            -3.6988,
            -3.1858,
            -2.7125,
            -2.2287,
            -1.7197,
            -1.2448,
            -0.7587,
            -0.328,
            0.1893,
            0.6079,
            1.0676,
            1.4774,
            2.0004,
            2.4919,
            2.9598,
            3.4106,
            3.8568,
        ),
        (13, 11, 9, 7, 5, 4, 3, 3, 2, 3, 3, 4, 4, 6, 8, 10, 12, 13),
    ),
    (
        (
            -3.6376,
            -3.1497,
            -2.7174,
            -2.284,
            -1.8335,
            -1.485,
            -1.1038,
            -0.6897,
            -0.3134,
            0.0476,
            0.4102,
            0.7916,
            1.2168,
            1.624,
            2.0304,
            2.4708,
            2.8938,
            3.309,
            3.7472,
        ),
        (13, 11, 9, 7, 5, 5, 4, 3, 3, 3, 3, 3, 3, 4, 5, 6, 8, 10, 12, 13),
    ),
)
NOTHING, SIGN = 0, 1
FIRST_UNIFORM = len(OPTIMISED)
FIRST_STEP = 3  # the first uniform depth's step is 2^(-3/4), and a quarter of an octave finer every further depth
QUARTERS = (1.0, 0.8408964152537145, 0.7071067811865476, 0.5946035575013605)  # 2^(-k/4), the same on every machine
SUPPORT = 5.0  # the even thresholds of uniform depths end here
TAIL = np.arange(1, 241) / 16 + SUPPORT  # and these follow, the same for all; the outermost cells are unbounded
FLOOR = 256  # a cell counts as at least this fraction of the likeliest, so that codes stay short
FLOOR_OF_TAIL = 64  # and one of the tail as this fraction of that
DEPTHS = FIRST_UNIFORM + 40
FINEST = DEPTHS - 1


@dataclass(frozen=True)
class Tree:
    """Codes of a fine depth's cells, given the cells of a coarse one: a binary tree for each coarse cell.

    Attributes:
        child: for each node its two successors; -1 for leaves.
        roots: node at which each coarse cell begins.
        leaves: node at which each fine cell ends.
        codes, lengths: of each fine cell, the first bit as the most significant.
        low, high, mean: of the weights that reach a node; the mean is that of a Gaussian of deviation 1.
    """

    child: Int32[np.ndarray, "nodes 2"]
    roots: Int32[np.ndarray, " coarse"]
    leaves: Int32[np.ndarray, " fine"]
    codes: Int64[np.ndarray, " fine"]
    lengths: Int64[np.ndarray, " fine"]
    low: Float64[np.ndarray, " nodes"]
    high: Float64[np.ndarray, " nodes"]
    mean: Float64[np.ndarray, " nodes"]


@cache
def thresholds(depth: int) -> Float64[np.ndarray, " thresholds"]:
    """Where cells meet, ascending. A weight on a threshold belongs to the cell above it."""
    if not 0 <= depth < DEPTHS:
        raise InvalidInput(f"There are depths 0 to {FINEST}, not {depth}.")
    if depth < FIRST_UNIFORM:
        return np.array(OPTIMISED[depth][0])
    step = _step(depth)
    count = int(SUPPORT / step)
    return np.concatenate([-TAIL[::-1], np.arange(-count, count + 1) * step, TAIL])


def refines(fine: int, coarse: int) -> bool:
    """Whether every cell of the fine depth lies in one of the coarse depth."""
    if fine == coarse or coarse == NOTHING:
        return True
    if fine < FIRST_UNIFORM or fine < coarse:
        return False
    return coarse == SIGN or (coarse >= FIRST_UNIFORM and (fine - coarse) % len(QUARTERS) == 0)


@cache
def tree(coarse: int, fine: int) -> Tree:
    """The codes of a depth's cells, given those of a coarser one. Raises `InvalidInput` unless it refines that."""
    if not refines(fine, coarse):
        raise InvalidInput(f"Rung {fine} does not refine depth {coarse}.")
    inner = thresholds(fine)
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    parents = np.searchsorted(thresholds(coarse), edges[:-1], side="right")
    counts = np.bincount(parents, minlength=len(thresholds(coarse)) + 1)
    starts = np.concatenate([[0], counts.cumsum()])
    lengths = np.zeros(len(parents), np.int64)
    codes = np.zeros(len(parents), np.int64)
    child: list[list[int]] = []
    leaves = np.zeros(len(parents), np.int32)
    roots = np.zeros(len(counts), np.int32)
    fixed = OPTIMISED[fine][1] if fine < FIRST_UNIFORM and coarse == NOTHING else None
    weights = [1] * len(parents) if fine < FIRST_UNIFORM else _likelihoods(fine)
    for parent, (start, stop) in enumerate(pairwise(starts)):
        roots[parent] = len(child)
        child.append([-1, -1])
        if fine == coarse:
            leaves[start] = roots[parent]
            continue
        code_lengths = list(fixed[start:stop]) if fixed is not None else _huffman(weights[start:stop])
        lengths[start:stop] = code_lengths
        codes[start:stop] = _canonical(code_lengths)
        for cell in range(start, stop):
            node = int(roots[parent])
            for depth in range(lengths[cell] - 1, -1, -1):
                bit = int(codes[cell] >> depth) & 1
                if child[node][bit] < 0:
                    child[node][bit] = len(child)
                    child.append([-1, -1])
                node = child[node][bit]
            leaves[cell] = node
    low, high, mean = _spans(np.array(child, np.int32), leaves, edges)
    return Tree(np.array(child, np.int32), roots, leaves, codes, lengths, low, high, mean)


def _step(depth: int) -> float:
    octaves, quarter = divmod(depth - FIRST_UNIFORM + FIRST_STEP, len(QUARTERS))
    return QUARTERS[quarter] * 2.0**-octaves


def _likelihoods(depth: int) -> list[int]:
    """About how likely each cell is, as integers that are the same on every machine: decimal `exp` rounds correctly."""
    context = Context(prec=20)
    step = Decimal(_step(depth))
    count = int(SUPPORT / _step(depth))
    half = []
    for cell in range(count + 1):
        centre = context.multiply(step, Decimal(cell) + Decimal("0.5"))
        density = context.exp(context.multiply(context.multiply(centre, centre), Decimal("-0.5")))
        half.append(int(density.scaleb(9)))
    least = half[0] // FLOOR
    half = [max(likelihood, least) for likelihood in half] + [least // FLOOR_OF_TAIL] * len(TAIL)
    return half[::-1] + half


def _huffman(weights: list[int]) -> list[int]:
    """Code lengths (Huffman 1952); ties go to what was there first."""
    lengths = [0] * len(weights)
    heap = [(weight, index, [index]) for index, weight in enumerate(weights)]
    heapq.heapify(heap)
    order = len(weights)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        for member in members:
            lengths[member] += 1
        heapq.heappush(heap, (first[0] + second[0], order, members))
        order += 1
    return lengths


def _canonical(lengths: list[int]) -> list[int]:
    """Codes of these lengths: shorter ones first, among equals in the order of the cells."""
    codes = [0] * len(lengths)
    code = previous = 0
    for cell in sorted(range(len(lengths)), key=lambda cell: (lengths[cell], cell)):
        code <<= lengths[cell] - previous
        codes[cell], previous = code, lengths[cell]
        code += 1
    return codes


def _spans(
    child: Int32[np.ndarray, "nodes 2"], leaves: Int32[np.ndarray, " fine"], edges: Float64[np.ndarray, " edges"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest weight, and the mean one, of each node."""
    nodes = len(child)
    low, high = np.full(nodes, np.inf), np.full(nodes, -np.inf)
    mass, moment = np.zeros(nodes), np.zeros(nodes)
    probabilities = np.diff(ndtr(edges))
    densities = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
    for cell, leaf in enumerate(leaves):
        low[leaf], high[leaf] = edges[cell], edges[cell + 1]
        mass[leaf], moment[leaf] = probabilities[cell], densities[cell] - densities[cell + 1]
    for node in range(nodes - 1, -1, -1):  # children follow their parents
        for successor in child[node]:
            if successor >= 0:
                low[node], high[node] = min(low[node], low[successor]), max(high[node], high[successor])
                mass[node] += mass[successor]
                moment[node] += moment[successor]
    mean = np.divide(moment, mass, out=np.zeros(nodes), where=mass > 0)
    # Weights with tails are no Gaussians there.
    tail = np.minimum(np.abs(low), np.abs(high)) >= SUPPORT
    bounded = tail & np.isfinite(low) & np.isfinite(high)
    mean[bounded] = (low[bounded] + high[bounded]) / 2
    mean[np.isinf(low) & np.isinf(high)] = 0.0
    return low, high, np.clip(mean, low, high)
