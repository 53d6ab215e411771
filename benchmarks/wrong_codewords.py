"""How often damage beyond a code's strength decodes to a wrong codeword, measured and calculated.

    python benchmarks/wrong_codewords.py [--words 1000000] [--output benchmarks/results/wrong_codewords]

Codewords of 4,096 data symbols and 1 to 16 check symbols are struck at check / 2 + 1 to 3 check places, with random
values, with flipped signs and with single flipped bits in equal parts, and decoded with unknown places.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planaria.codes import ReedSolomon, kernels, wrong_codeword_log2
from planaria.guard.codewords import ACCEPTED

LENGTH = 4096  # data symbols
BATCH = 20_000  # words
KINDS = ("random values", "flipped signs", "flipped bits")


def values(kind: str, shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.int64]:
    """What is XORed onto the struck symbols."""
    if kind == "random values":
        return generator.integers(1, 65536, shape)
    if kind == "flipped signs":
        return np.full(shape, 0x8000)
    return np.asarray(1 << generator.integers(0, 16, shape))


class Struck:
    """Remainders of codewords that are wrong in a few places."""

    def __init__(self, check: int):
        self.code = ReedSolomon(check)
        exp, log = kernels.field()
        self._exp, self._log = exp.astype(np.int64), log.astype(np.int64)
        self._units = self._log[self.code.feed(np.eye(LENGTH, dtype=np.uint16))]
        self._zero = self.code.feed(np.eye(LENGTH, dtype=np.uint16)) == 0

    def remainders(self, rows: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Of as many words as there are columns, struck in these rows by these values."""
        total = np.zeros((self.code.check, rows.shape[1]), np.int64)
        for row, value in zip(rows, by, strict=True):
            product = self._exp[self._units[:, row] + self._log[value]]
            total ^= np.where(self._zero[:, row], 0, product)
        return total.astype(np.uint16)


def measure(check: int, words: int, generator: np.random.Generator) -> dict[str, object]:
    """The row of codes of so many check symbols."""
    struck = Struck(check)
    row: dict[str, object] = {"check": check, "words": 0, "accepted": 0}
    tried, accepted, largest = 0, 0, -np.inf
    for kind in KINDS:
        seen, calculated, drawn = 0, 0.0, 0
        while drawn < words / len(KINDS):
            weight = int(generator.integers(check // 2 + 1, 3 * check + 1))
            rows = generator.integers(0, LENGTH, (weight, BATCH))
            ordered = np.sort(rows, 0)
            rows = rows[:, (np.diff(ordered, axis=0) > 0).all(0)]
            count = rows.shape[1]
            found = struck.code.decode(struck.remainders(rows, values(kind, rows.shape, generator)), LENGTH)
            errors = np.bincount(found.columns, minlength=count)
            errors[found.failed] = -1
            largest_value, least_value = np.zeros(count, np.int64), np.full(count, 65536)
            np.maximum.at(largest_value, found.columns, found.values)
            np.minimum.at(least_value, found.columns, found.values)
            decoded = errors >= 0
            chance = wrong_codeword_log2(
                check,
                erasures=np.zeros(count, np.int64),
                errors=errors.clip(0),
                places=np.full(count, LENGTH),
                equal=largest_value == least_value,
            )
            believed = decoded & (chance < ACCEPTED)
            accepted += int(believed.sum())
            seen += int(decoded.sum())
            most = np.arange(check // 2 + 1)
            chances = wrong_codeword_log2(
                check,
                erasures=np.zeros(len(most), np.int64),
                errors=most,
                places=np.full(len(most), LENGTH + check),
                equal=np.full(len(most), kind == "flipped signs"),
            )
            calculated += count * float(2.0 ** chances.max())
            largest = max(largest, *(float(of) for of in chances[chances < ACCEPTED]), -np.inf)
            drawn += count
        row[kind] = {"words": drawn, "wrong": seen, "calculated": round(calculated, 2)}
        tried += drawn
    row |= {"words": tried, "accepted": accepted, "bound": None if largest == -np.inf else float(2.0**largest)}
    return row


def table(rows: list[dict[str, object]]) -> str:
    """As Markdown."""
    lines = ["| check symbols | words | " + " | ".join(f"{kind}: wrong (calculated at most)" for kind in KINDS)]
    lines[0] += " | accepted | chance that is accepted at most |"
    lines.append("|---" * (4 + len(KINDS)) + "|")
    for row in rows:
        parts = [f"{row[kind]['wrong']:,} ({row[kind]['calculated']:,.1f})" for kind in KINDS]  # type: ignore[index]
        bound = "none is" if row["bound"] is None else f"{row['bound']:.1e}"
        lines.append(f"| {row['check']} | {row['words']:,} | {' | '.join(parts)} | {row['accepted']} | {bound} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=1_000_000, help="for each number of check symbols")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/wrong_codewords"))
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    rows = []
    for check in range(1, 17):
        rows.append(measure(check, options.words, generator))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "wrong_codewords.json").write_text(
        json.dumps({"seed": options.seed, "rows": rows}, indent=1) + "\n"
    )
    (options.output / "wrong_codewords.md").write_text(table(rows))


if __name__ == "__main__":
    main()
