"""Correcting the codewords of the parity tier: what is decoded counts if a digest or the odds prove it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import log2

import numpy as np
from numpy.typing import NDArray

from planaria.codes import Corrections, ReedSolomon, wrong_codeword_log2
from planaria.guard.byte_layout import SYMBOL, ByteLayout
from planaria.guard.interleaving import Interleaving
from planaria.guard.manifest import ParityShape
from planaria.guard.overlay import Overlay
from planaria.guard.unsolved import Unsolved

WRONG = 1e-9  # accepted chance that a word of corrections is a wrong one
WAYS = 4  # a codeword is decoded in: each may err as often
ACCEPTED = log2(WRONG / WAYS)
SPARE = 2  # check symbols: chance passes for a codeword once in 2^32
COMBINED = 6  # words of which a tile that matches with some of them is looked for
TRIED = 2**26  # bytes hashed in search of such tiles at a time
LISTED = 2**22  # bytes of tiles whose symbols are listed at once
UNTRIED = -1


@dataclass
class _Words:
    """Corrections of the words found so far, one an entry.

    Attributes:
        at: symbol of the layout.
        codeword: that it belongs to.
        value: to be XORed onto the symbol.
        tile: that it lies in.
        located: whether the decoder found the place, rather than being told it.
    """

    at: NDArray[np.int64]
    codeword: NDArray[np.int64]
    value: NDArray[np.uint16]
    tile: NDArray[np.int64]
    located: NDArray[np.bool_]

    @classmethod
    def none(cls) -> "_Words":
        empty = np.empty(0, np.int64)
        return cls(empty, empty, np.empty(0, np.uint16), empty, np.empty(0, bool))

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "_Words":
        return _Words(*(getattr(self, column.name)[which] for column in fields(self)))

    def __add__(self, other: "_Words") -> "_Words":
        return _Words(
            *(np.concatenate([getattr(self, column.name), getattr(other, column.name)]) for column in fields(self))
        )


class CodewordSolver:
    """Corrects codewords in an overlay, all segments together; their numbers are those of `Interleaving`.

    Each codeword is first decoded with unknown places, to half its strength; then, as proven tiles drop out, with all
    symbols of unproven tiles as erasures, to its full strength; then with the suspects alone as erasures and the rest
    unknown. A correction of a check symbol (the guard's seal proves those), past the segment's end or outside the
    unproven tiles is a wrong codeword, and refused.

    What comes out is provisional: applied to the overlay, and accepted for good once the chance of a wrong codeword is
    below `WRONG`. A tile whose digest matches proves the corrections in it, and the codewords that have no more
    than a few others; a tile that matches without a provisional word's corrections refutes the word.

    Args:
        remainders: by segment, as the decoder wants them; only of segments with unproven tiles.
        hopeless: segments with unproven tiles of which no codeword can be decoded, and none is tried.
        unproven: tiles that no digest proves; those that are proven again are cleared in it.
        suspects: answers with the symbols of these tiles that are broken on their face, ascending.
        proven: all tiles that are proven by the digests that these tiles have a part in.
    """

    def __init__(
        self,
        overlay: Overlay,
        layout: ByteLayout,
        shape: ParityShape,
        remainders: Mapping[int, NDArray[np.uint16]],
        unproven: NDArray[np.bool_],
        *,
        hopeless: Sequence[int] = (),
        suspects: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        proven: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        threads: int,
    ):
        self.overlay, self.layout, self.shape, self.unproven = overlay, layout, shape, unproven
        self._remainders, self._suspects, self._proven, self._threads = remainders, suspects, proven, threads
        self._hopeless = hopeless
        self._code = ReedSolomon(shape.check)
        self._interleaving = Interleaving(layout, shape)
        count = self._interleaving.codewords
        self.failed = np.zeros(count, bool)
        for segment, remainder in remainders.items():
            self.failed[self._interleaving.within(segment)] = remainder.any(0)
        self._words = _Words.none()
        self._has_word, self._alike = np.zeros(count, bool), np.zeros(count, bool)
        self._erased, self._chance = np.zeros(count, np.int64), np.zeros(count)
        # With how many erasures a codeword was last decoded: of all unproven symbols, of suspects, of these unspared.
        self._tried = {way: np.full(count, UNTRIED) for way in ("unknown", "whole", "spared", "suspects")}
        odd = (
            start + entry.nbytes // SYMBOL
            for start, entry in zip(layout.starts, layout.entries, strict=False)
            if entry.nbytes % SYMBOL
        )
        self._padded = np.array(list(odd), np.int64)
        self._dirty = np.zeros(layout.tiles, bool)  # tiles in which corrections changed

    def solve(self) -> None:
        """Decodes and proves until nothing changes."""
        while self.failed.any() and self._decode_some():
            self._settle()

    # --- Decoding ----------------------------------------------------------------------------------------------------

    def _decode_some(self) -> bool:
        """Decodes in the next way that was not tried yet; False if there is none."""
        places = self._places()
        few = self.failed & (places <= self.shape.check) & (places != self._tried["whole"])
        if few.any():
            self._tried["whole"][few] = places[few]
            self._decode("whole", few, self._symbols_of(few))
            return True
        chosen = self.failed & (self._tried["unknown"] == UNTRIED)
        if chosen.any():
            self._tried["unknown"][chosen] = 0
            self._decode("unknown", chosen, np.empty(0, np.int64))
            return True
        listed = self._listed_suspects()
        counts = np.bincount(self._interleaving.codewords_of(listed), minlength=len(self.failed))
        for way in ("spared", "suspects"):
            chosen = self.failed & (counts > 0) & (counts != self._tried[way])
            if chosen.any():
                self._tried[way][chosen] = counts[chosen]
                self._decode(way, chosen, listed[chosen[self._interleaving.codewords_of(listed)]])
                return True
        return False

    def _decode(self, way: str, chosen: NDArray[np.bool_], erased: NDArray[np.int64]) -> None:
        """Decodes these codewords with these symbols, ascending, as erasures, and takes in what is admissible."""
        spare = min(SPARE, self.shape.check) if way == "spared" else 0
        places = self._places()
        for segment, remainder in self._remainders.items():
            own = self._interleaving.within(segment)
            if not chosen[own].any():
                continue
            start, stop = self._interleaving.bounds(segment)
            within = erased[(erased >= start) & (erased < stop)] - start
            found = self._code.decode(
                np.where(chosen[own], remainder, 0).astype(np.uint16),
                self._interleaving.rows(segment),
                erasures=(within // self.shape.width, within % self.shape.width),
                spare=spare,
                threads=self._threads,
            )
            solved = chosen[own] & remainder.any(0)
            solved[found.failed] = False
            codewords = own.start + solved.nonzero()[0]
            words = self._admissible(segment, found, within + start)
            codewords = codewords[np.isin(codewords, words.codeword)]
            erasures = np.bincount(within % self.shape.width, minlength=self.shape.width)
            self._take(words, codewords, erasures[codewords - own.start], places)

    def _admissible(self, segment: int, found: Corrections, erased: NDArray[np.int64]) -> _Words:
        """The words of which every correction may be one."""
        start, stop = self._interleaving.bounds(segment)
        at = start + found.rows * self.shape.width + found.columns
        tile = self.layout.tiles_of(np.minimum(at, self.layout.symbols - 1))
        wrong = (found.rows >= self._interleaving.rows(segment)) | (at >= stop) | ~self.unproven[tile]
        wrong |= np.isin(at, self._padded) & (found.values > 255)  # the byte past the tensor's end is stored nowhere
        refused = np.zeros(self.shape.width, bool)
        refused[found.columns[wrong]] = True
        words = _Words(
            at, self._interleaving.within(segment).start + found.columns, found.values, tile, ~np.isin(at, erased)
        )
        return words[~refused[found.columns]]

    def _take(
        self,
        words: _Words,
        codewords: NDArray[np.int64],
        erasures: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> None:
        """Applies these words; where there is one already, only what is less likely to be wrong."""
        count = len(self.failed)
        located = np.bincount(words.codeword[words.located], minlength=count)[codewords]
        largest, least = np.zeros(count, np.int64), np.full(count, 2**16)
        np.maximum.at(largest, words.codeword, words.value)
        np.minimum.at(least, words.codeword, words.value)
        alike = (largest == least)[codewords]
        chance = self._chances(erasures, located, places[codewords], alike)
        better = ~self._has_word[codewords] | (chance < self._chance[codewords])
        codewords = codewords[better]
        taken = np.zeros(count, bool)
        taken[codewords] = True
        self._drop(taken & self._has_word)
        self._has_word[codewords] = True
        self._erased[codewords], self._alike[codewords] = erasures[better], alike[better]
        self._chance[codewords] = chance[better]
        words = words[taken[words.codeword]]
        self.overlay.xor(words.at, words.value)
        self._words += words
        self._dirty[words.tile] = True

    def _chances(
        self,
        erasures: NDArray[np.int64],
        errors: NDArray[np.int64],
        places: NDArray[np.int64],
        alike: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        return wrong_codeword_log2(self.shape.check, erasures=erasures, errors=errors, places=places, equal=alike)

    # --- Proof -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Accepts and refutes words until that changes nothing."""
        self._accept()
        while len(tiles := (self._dirty & self.unproven).nonzero()[0]):
            self._dirty[:] = False
            self.unproven[self._proven(tiles)] = False
            refuted = self._combine(tiles[self.unproven[tiles]])
            self._drop(refuted)
            for tried in self._tried.values():
                tried[refuted] = UNTRIED
            self._accept()

    def _accept(self) -> None:
        """Accepts provisional words that are hardly wrong, given what is proven by now: they are failed no more."""
        words, count = self._words, len(self.failed)
        open_ = words[self.unproven[words.tile] & words.located]
        errors = np.bincount(open_.codeword, minlength=count)
        which = (self._has_word & self.failed).nonzero()[0]
        chance = self._chances(self._erased[which], errors[which], self._places()[which], self._alike[which])
        self._chance[which] = np.minimum(self._chance[which], chance)
        accepted = np.zeros(count, bool)
        accepted[which] = self._chance[which] < ACCEPTED
        self.failed[accepted] = False
        self._dirty[words.tile[accepted[words.codeword]]] = True  # fewer words are left to be combined there

    def _combine(self, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Looks for unproven hash groups that match with some of their provisional words; the words refuted by them.

        Without all of them first, then, where they are few and as far as that is cheap, with each combination.
        """
        layout, words, refuted = self.layout, self._words, np.zeros(len(self.failed), bool)
        own = (
            np.isin(layout.hash_group_of[words.tile], layout.hash_group_of[tiles]) & self.failed[words.codeword]
        ).nonzero()[0]
        own = own[self.unproven[words.tile[own]]]
        if not len(own):
            return refuted
        pairs, pair = np.unique(
            np.stack([layout.hash_group_of[words.tile[own]], words.codeword[own]]), axis=1, return_inverse=True
        )
        hash_groups, first, counts = np.unique(pairs[0], return_index=True, return_counts=True)
        hash_group = np.searchsorted(hash_groups, pairs[0])
        rank = (np.arange(len(hash_group)) - first[hash_group])[pair.ravel()]  # of the word among the hash_group's
        hash_group = hash_group[pair.ravel()]
        work = np.where(counts <= COMBINED, 2.0 ** np.minimum(counts, COMBINED), np.inf) * layout.tile
        order = np.argsort(work, kind="stable")
        combined = np.zeros(len(hash_groups), bool)
        combined[order] = work[order].cumsum() <= TRIED
        applied = np.ones(len(own), bool)
        open_ = np.ones(len(hash_groups), bool)
        for chosen in range(2**COMBINED - 1):
            trying = open_ & (combined & (chosen < 2.0**counts - 1) if chosen else open_)
            if not trying.any():
                break
            self._switch(own, applied, np.where(trying[hash_group], chosen >> np.minimum(rank, 62) & 1 == 1, applied))
            matched = self._proven(layout.tiles_in(hash_groups[trying]))
            self.unproven[matched] = False
            open_ &= ~np.isin(hash_groups, layout.hash_group_of[matched])
        self._switch(own, applied, np.where(open_[hash_group], True, applied))
        refuted[words.codeword[own[~applied]]] = True
        # What is proven without a correction must not lose it twice.
        keep = np.ones(len(words.at), bool)
        keep[own[~applied]] = False
        self._words = words[keep]
        return refuted

    def _switch(self, own: NDArray[np.int64], applied: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> None:
        """Applies to the overlay what is wanted of these corrections, and takes back the others."""
        change = own[applied != wanted]
        self.overlay.xor(self._words.at[change], self._words.value[change])
        applied[:] = wanted

    def _drop(self, which: NDArray[np.bool_]) -> None:
        """Takes back the words of these codewords, but for what is proven of them."""
        words = self._words
        gone = which[words.codeword]
        taken_back = words[gone & self.unproven[words.tile]]
        self.overlay.xor(taken_back.at, taken_back.value)
        self._dirty[taken_back.tile] = True
        settled = words[gone & ~self.unproven[words.tile]]
        if len(settled.at):
            self._include(settled)
        self._words = words[~gone]
        self._has_word[which] = False

    def _include(self, settled: _Words) -> None:
        """Counts these corrections, which are proven, as part of what was found."""
        for segment, remainder in self._remainders.items():
            own = self._interleaving.within(segment)
            within = settled[(settled.codeword >= own.start) & (settled.codeword < own.stop)]
            if not len(within.at):
                continue
            columns, column = np.unique(within.codeword - own.start, return_inverse=True)
            rows = np.zeros((self._interleaving.rows(segment), len(columns)), np.uint16)
            rows[(within.at - self._interleaving.bounds(segment)[0]) // self.shape.width, column] = within.value
            remainder[:, columns] ^= self._code.feed(rows)
            self.failed[own] &= remainder.any(0)

    def finish(self, writable: Callable[[NDArray[np.int64]], NDArray[np.uint16]]) -> Unsolved:
        """Takes back what is not proven in the end.

        Args:
            writable: the bits of these symbols, ascending, that may be written though no digest proves them.
        """
        for segment in self._hopeless:
            self.failed[self._interleaving.within(segment)] = True
        undecoded = self.failed & ~self._has_word
        self._drop(self.failed & self._has_word)
        # Of a weak code even a codeword that came out right may do so by chance.
        none = np.zeros(len(self.failed), np.int64)
        doubted = self.failed | (self._chances(none, none, self._places(), none == 0) >= ACCEPTED)
        tiles = self.unproven.nonzero()[0]
        blamed = np.zeros(self.layout.hash_groups, bool)
        blamed[self.layout.hash_group_of[tiles[self._interleaving.touched(tiles, doubted, self._remainders)]]] = True
        explained = blamed[self.layout.hash_group_of]
        words = self._words[self.unproven[self._words.tile]]
        words = words[np.argsort(words.at)]
        wrong = ~explained[words.tile] | ((words.value & ~writable(words.at)) != 0)
        self.overlay.xor(words.at[wrong], words.value[wrong])
        shape = (-1, self.shape.width)
        return Unsolved(self.failed.reshape(shape), doubted.reshape(shape), explained, self._density(undecoded))

    def _density(self, undecoded: NDArray[np.bool_]) -> float:
        """The least share of wrong symbols in unproven tiles that explains what could not be decoded."""
        begins, ends = self.layout.tile_bounds(self.unproven.nonzero()[0])
        density = 0.0
        for segment in (*self._remainders, *self._hopeless):
            start, stop = self._interleaving.bounds(segment)
            if undecoded[self._interleaving.within(segment)].any():
                touching = (begins < stop) & (ends > start)
                in_a_codeword = (ends - begins)[touching].sum() / self.shape.width
                density = max(density, float(min(1.0, self.shape.check / 2 / max(in_a_codeword, 1.0))))
        return density

    # --- Symbols -----------------------------------------------------------------------------------------------------

    def _places(self) -> NDArray[np.int64]:
        """How many unproven symbols each codeword has."""
        return self._interleaving.counts(self.unproven.nonzero()[0], self._remainders)

    def _symbols_of(self, codewords: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The unproven symbols of these codewords, ascending."""
        found = [np.empty(0, np.int64)]
        for tiles in self._unproven_tiles():
            symbols = self.layout.symbols_of(tiles, 0, self.layout.symbols)
            found.append(symbols[codewords[self._interleaving.codewords_of(symbols)]])
        return np.concatenate(found)

    def _listed_suspects(self) -> NDArray[np.int64]:
        """Suspects of failed codewords that have no more of them than check symbols, ascending."""
        counts, listed = np.zeros(len(self.failed), np.int64), np.empty(0, np.int64)
        for tiles in self._unproven_tiles():
            symbols = self._suspects(tiles)
            symbols = symbols[self.failed[self._interleaving.codewords_of(symbols)]]
            counts += np.bincount(self._interleaving.codewords_of(symbols), minlength=len(counts))
            listed = np.concatenate([listed, symbols])
            listed = listed[counts[self._interleaving.codewords_of(listed)] <= self.shape.check]
            if (counts[self.failed] > self.shape.check).all():
                break
        return listed

    def _unproven_tiles(self) -> Iterator[NDArray[np.int64]]:
        """Those of the segments at hand, some at a time."""
        tiles = self.unproven.nonzero()[0]
        if self._hopeless:
            begins, ends = self.layout.tile_bounds(tiles)
            lost = np.isin(begins // self.shape.segment, self._hopeless)
            tiles = tiles[~(lost & np.isin((ends - 1) // self.shape.segment, self._hopeless))]
        at_once = max(LISTED // self.layout.tile, 1)
        for start in range(0, len(tiles), at_once):
            yield tiles[start : start + at_once]
