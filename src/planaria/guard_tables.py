"""What the commands of a guard show: tables for people, plain values for programs."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from planaria.files import printable
from planaria.guard_inputs import as_flags
from planaria.tables import markdown

if TYPE_CHECKING:  # `planaria --help` should not wait for PyTorch
    from planaria.guard import GuardFile, Report

LARGEST = 20  # tensors that are listed unless all are asked for


def show(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, Markdown in a pipe."""
    clean = [[printable(cell) for cell in line] for line in lines]
    if sys.stdout.isatty():
        table = Table(*head)
        for line in clean:
            table.add_row(*(Text(cell) for cell in line))
        Console().print(table)
    else:
        print(markdown(list(head), [[cell.replace("|", "\\|") for cell in line] for line in clean]))


def described(guard: "GuardFile") -> dict[str, Any]:
    """All that can be said of a guard, as plain values."""
    from planaria.guard.container import survives_a_lost_page
    from planaria.guard.tiers import TIERS

    facts: dict[str, Any] = {
        "version": guard.manifest.version,
        "keyed": guard.key is not None,
        "bytes": guard.size,
        "files": [name for name, _ in guard.manifest.files],
        "model_bytes": guard.protected_bytes,
        "tile": guard.manifest.tile,
        "tiers": guard.tier_bytes(),
        "tensors": [
            {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "bytes": entry.nbytes}
            for entry in guard.entries
        ],
        "mended": guard.mended,
        "lost": list(guard.lost),
        "survives_a_lost_page": survives_a_lost_page(guard.size),
        "unknown_tiers": list(guard.unknown),
    }
    for tier in TIERS.values():
        facts |= tier.describe(guard)
    return facts


def show_guard(guard: "GuardFile", *, everything: bool) -> None:
    """Prints what a guard holds and promises, with its largest tensors, or all."""
    from planaria.guard.tiers import TIERS, RuleTier

    facts = described(guard)
    files = ", ".join(name for name in facts["files"] if name) or "a model in memory"
    size = f"{len(facts['tensors']):,} tensors, {guard.protected_bytes:,} bytes"
    print(printable(f"Guard of {files}: {size}; format {guard.manifest.version}.") + "\n")
    percent = 100 / max(guard.protected_bytes, 1)
    show(
        ["tier", "bytes", "% of model"],
        [[name, f"{size:,}", f"{size * percent:.3f}"] for name, size in [*facts["tiers"].items(), ("all", guard.size)]],
    )
    lines = []
    for index, entry in sorted(enumerate(guard.entries), key=lambda item: -item[1].nbytes):
        tiles = guard.layout.tiles_of_tensor(index)
        kept = ", ".join(filter(None, (tier.kept_of(guard, index) for tier in TIERS.values())))
        shape, count = " x ".join(str(size) for size in entry.shape), f"{tiles.stop - tiles.start:,}"
        worth = RuleTier.worth_of(guard, index)
        lines.append([entry.name, entry.dtype, shape, f"{entry.nbytes:,}", count, kept, worth])
    listed = lines if everything else lines[:LARGEST]
    if rest := lines[len(listed) :]:
        listed = [*listed, [f"and {len(rest):,} more: --all", "", "", "", "", "", ""]]
    show(
        ["tensor", "dtype", "shape", "bytes", "tiles", "kept", "rule: error at weights missing, in deviations"], listed
    )
    print("\n".join(printable(line) for line in _promises(guard)))


def _promises(guard: "GuardFile") -> Iterator[str]:
    """What the guard is good for, in sentences."""
    from planaria.guard.container import survives_a_lost_page
    from planaria.guard.tiers import TIERS

    for tier in TIERS.values():
        yield from tier.promises(guard)
    if guard.unknown:
        yield f"Tiers that this planaria does not know, and does not use: {', '.join(guard.unknown)}."
    whole = survives_a_lost_page(guard.size)
    page = (
        "and the loss of any 4,096 neighbouring bytes" if whole else "but is too small to survive a lost page: keep two"
    )
    yield f"The guard corrects scattered damage of its own, {page}."
    if guard.mended:
        yield (
            f"Of its own bytes {guard.mended:,} were broken and are mended in memory; the file is as it was. "
            "`planaria mend` writes it."
        )
    if guard.lost:
        yield f"Damaged beyond its own repair, and not used: {', '.join(guard.lost)}. Use another copy of it."
    yield (
        "With its key it detects attackers too." if guard.key else "Without a key it detects accidents, not attackers."
    )


def show_report(report: "Report") -> None:
    """Prints what became of the damaged tensors, and the verdict."""
    from planaria.guard.report import VERDICTS

    lines = []
    for tensor in report.tensors:
        if not tensor.regions:
            continue
        counts = [tensor.count(verdict, tile=report.tile) for verdict in VERDICTS[1:]]
        errors = [f"{error:.3g}" if error is not None else "" for error in (tensor.expected_error, tensor.bound)]
        numbers = [f"{count:,}" if count else "" for count in (*counts, tensor.estimated)]
        damaged = f"{sum(counts):,} of {tensor.tiles:,}"
        lines.append([tensor.name, damaged, *numbers, *errors, tensor.method or ""])
    if lines:
        head = ["tensor", "damaged tiles", *VERDICTS[1:]]
        show([*head, "weights estimated", "expected error", "bound", "method"], lines)
    print(printable(as_flags(str(report))))
