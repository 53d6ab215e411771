"""The parity tier: Reed-Solomon check symbols with what the other tiers leave. Specified in FORMAT.md, section 5."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planaria.errors import InvalidGuard
from planaria.guard import parity
from planaria.guard.byte_layout import SYMBOL, ByteLayout
from planaria.guard.codewords import SPARE
from planaria.guard.gate import writable_bits
from planaria.guard.manifest import ParityShape
from planaria.guard.pieces import pieces_holding, weights_of
from planaria.guard.tiers.base import Tier, require_array

if TYPE_CHECKING:
    from planaria.guard.file import GuardFile
    from planaria.guard.making import Making
    from planaria.guard.restoring import Restoring


class ParityTier(Tier):
    """Check symbols over the whole model: any damage within their strength is restored bit for bit."""

    name = "parity"

    def plan(self, making: "Making") -> None:
        shape = making.parity_shape(making.allowed)
        making.say(_explanation(shape, making.layout))
        if shape is not None:
            making.add(replace(making.manifest, parity=shape), {"parity": parity.nothing_of(shape, making.layout)})

    def make(self, making: "Making") -> None:
        """One pass."""
        total, done, shape = making.layout.nbytes, 0, making.manifest.parity

        def more(count: int) -> None:
            nonlocal done
            done += count
            making.progress(min(done, total), total, "parity")

        if shape is not None:
            making.arrays["parity"] = parity.encode(
                making.checkpoint, making.layout, shape, threads=making.threads, progress=more
            )

    def validate(self, guard: "GuardFile") -> None:
        shape, layout = guard.manifest.parity, guard.layout
        if shape is None:
            return
        segments = -(-layout.symbols // shape.segment)
        require_array(guard, "parity", np.uint16, (segments, shape.check, shape.width))
        if shape.width * segments > layout.symbols + segments * 65535:
            raise InvalidGuard("The guard's parity is wider than its model.")

    def restore(self, restoring: "Restoring") -> None:
        guard, unproven = restoring.guard, restoring.unproven
        shape = guard.manifest.parity
        if shape is None or "parity" not in guard.arrays or not unproven.any():
            return
        restoring.unsolved = parity.correct(
            restoring.overlay,
            guard.layout,
            shape,
            guard.arrays["parity"].astype(np.uint16, copy=False),
            unproven,
            lost=_lost_symbols(restoring),
            suspects=lambda tiles: _broken_symbols(restoring, tiles),
            proven=restoring.proven,
            writable=lambda symbols: writable_bits(guard.layout, symbols, restoring.known),
            threads=restoring.threads,
            progress=restoring.progress,
        )

    def describe(self, guard: "GuardFile") -> dict[str, Any]:
        """What it corrects for certain, or None without it. A lost run is found by tiles, whole."""
        shape = guard.manifest.parity
        if shape is None or "parity" in guard.lost:
            return {"parity": None}
        known = shape.check - min(SPARE, shape.check // 2)
        symbols = shape.width * SYMBOL  # bytes of one symbol in each codeword
        strength = {
            "codewords": -(-guard.layout.symbols // shape.segment) * shape.width,
            "symbols": -(-shape.segment // shape.width) + shape.check,
            "check": shape.check,
            "unknown": known // 2,
            "known": known,
            "run_bytes": max(known // 2 * symbols - 1, known * symbols - 2 * guard.manifest.tile, 0),
        }
        return {"parity": strength}

    def promises(self, guard: "GuardFile") -> Iterator[str]:
        strength = self.describe(guard)["parity"]
        if strength is None:
            yield "There is no parity: what is damaged is found, and not restored bit for bit."
            return
        run = "; a lost run of up to {run_bytes:,} bytes" if strength["run_bytes"] else ""
        yield (
            "Parity corrects {unknown:,} unknown or {known:,} known wrong symbols of {symbols:,} in each of "
            "{codewords:,} codewords" + run + "."
        ).format(**strength)


def _explanation(shape: ParityShape | None, layout: ByteLayout) -> str:
    if shape is None:
        return "parity: none, no bytes are left"
    rows = -(-shape.segment // shape.width)
    nbytes = SYMBOL * shape.check * shape.width * -(-layout.symbols // shape.segment)
    known = shape.check / (rows + shape.check)
    return (
        f"parity: {nbytes:,} bytes: restores bit for bit up to {shape.check // 2:,} wrong 16-bit symbols of each "
        f"{rows:,}, or where it is known which, {known:.3%} of all"
        + (", where a digest then matches" if shape.check < parity.PROVABLE else "")
    )


def _lost_symbols(restoring: "Restoring") -> NDArray[np.float64] | None:
    """By tile, how many of its symbols, at least, are wrong since the file ends before it; None if it is whole.

    What is not there reads as zeros, which some weights may have been: as many as the statistics say.
    """
    guard, cut = restoring.guard, restoring.checkpoint.truncated()
    layout = guard.layout
    lost = np.zeros(layout.tiles)
    for name, (present, nbytes) in cut.items():
        index, bounds = layout.index[name], layout.tiles_of_tensor(layout.index[name])
        first, statistics = -(-present // layout.tile), guard.statistics(index)
        weights = layout.tile * prod(guard.entries[index].shape) / nbytes
        lost[bounds.start + first : bounds.stop] = 1.0 if statistics is None else weights * (1 - statistics.zeros)
    return lost if cut else None


def _broken_symbols(restoring: "Restoring", tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Symbols of these tiles that a hardware test, or their plain impossibility, shows to be broken; ascending."""
    guard, known = restoring.guard, restoring.known
    layout, found = guard.layout, [np.empty(0, np.int64)]
    for index, piece in pieces_holding(layout, tiles):
        if known is not None and piece.name not in known:
            continue
        if known is not None:
            whole = known[piece.name].flatten()
            nbytes, count = guard.entries[index].nbytes, whole.numel()
            broken = ~whole[piece.start * count // nbytes : (piece.start + piece.nbytes) * count // nbytes]
        elif (statistics := guard.statistics(index)) is not None:
            content = restoring.overlay.read(piece.name, piece.start, piece.start + piece.nbytes)
            broken = statistics.broken(weights_of(content, piece)).flatten()
        else:
            continue
        weights = broken.numpy().nonzero()[0]
        bits = piece.nbytes * 8 // len(broken)  # some types have fewer than 8, and weights that share a symbol
        begins, ends = weights * bits // (8 * SYMBOL), ((weights + 1) * bits - 1) // (8 * SYMBOL)
        reach = np.arange(int((ends - begins).max(initial=0)) + 1)
        symbols = np.minimum(begins[:, None] + reach, ends[:, None]).ravel()
        new = np.diff(symbols, prepend=-1) > 0  # they ascend
        found.append(layout.starts[index] + piece.start // SYMBOL + symbols[new])
    symbols = np.concatenate(found)
    asked = np.zeros(layout.tiles, bool)
    asked[tiles] = True
    return symbols[asked[layout.tiles_of(symbols)]]
