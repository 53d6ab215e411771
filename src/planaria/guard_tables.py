"""What the commands of a guard show: tables for people, plain values for programs."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from planaria.files import printable
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

    names = [entry.name for entry in guard.entries]
    why = _reasons(guard)
    return {
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
        "parity": parity_strength(guard),
        "copied": [names[index] for index in guard.manifest.copied],
        "memory": _remembered(guard),
        "rules": [asdict(rule) | {"tensor": names[rule.tensor]} for rule in guard.manifest.rules],
        "reasons": {names[index]: reason for index, reason in why.items()},
        "mended": guard.mended,
        "lost": list(guard.lost),
        "survives_a_lost_page": survives_a_lost_page(guard.size),
    }


def parity_strength(guard: "GuardFile") -> dict[str, int] | None:
    """What the parity corrects for certain, or None without parity. A lost run is found by tiles, whole."""
    from planaria.guard.codewords import SPARE

    shape = guard.manifest.parity
    if shape is None or "parity" in guard.lost:
        return None
    segments = -(-guard.stream.symbols // shape.segment)
    known = shape.check - min(SPARE, shape.check // 2)
    symbols = shape.width * 2  # bytes of one symbol in each codeword
    return {
        "codewords": segments * shape.width,
        "symbols": -(-shape.segment // shape.width) + shape.check,
        "check": shape.check,
        "unknown": known // 2,
        "known": known,
        "run_bytes": max(known // 2 * symbols - 1, known * symbols - 2 * guard.manifest.tile, 0),
    }


def _remembered(guard: "GuardFile") -> dict[str, Any] | None:
    """What hints and ladder are of, or None without any; strengths are shares of the ladder's weights."""
    shape = guard.manifest.memory
    if shape is None:
        return None
    tensors = {}
    for of in shape.tensors:
        entry = guard.entries[of.tensor]
        tensors[entry.name] = {
            "hint": of.codec or None,
            "prior": bool(of.prior),
            "ladder": bool(of.laddered),
            "error": of.error,
        }
    return {"strengths": [] if "ladder" in guard.lost else list(shape.strengths), "tensors": tensors}


def _kept(guard: "GuardFile", index: int) -> str:
    """What is kept of a tensor beside its rule, in words."""
    name, memory = guard.entries[index].name, _remembered(guard)
    kept = ["copy"] if index in guard.manifest.copied else []
    of = memory["tensors"].get(name) if memory else None
    if of and f"hint.{index}" not in guard.lost:
        kept += [f"{of['hint']} hint"] if of["hint"] else []
        kept += ["prior"] if of["prior"] else []
    return ", ".join([*kept, *(["ladder"] if of and of["ladder"] and memory and memory["strengths"] else [])])


def _reasons(guard: "GuardFile") -> dict[int, str]:
    """Why a tensor has no rule, by its index."""
    reasons = {index: reason for reason, indices in guard.manifest.reasons.items() for index in indices}
    return {index: reasons[index] for index in range(len(guard.entries)) if index in reasons}


def show_guard(guard: "GuardFile", *, everything: bool) -> None:
    """Prints what a guard holds and promises, with its largest tensors, or all."""
    told = described(guard)
    files = ", ".join(name for name in told["files"] if name) or "a model in memory"
    size = f"{len(told['tensors']):,} tensors, {guard.protected_bytes:,} bytes"
    print(printable(f"Guard of {files}: {size}; format {guard.manifest.version}.") + "\n")
    of = 100 / max(guard.protected_bytes, 1)
    show(
        ["tier", "bytes", "% of model"],
        [[name, f"{size:,}", f"{size * of:.3f}"] for name, size in [*told["tiers"].items(), ("all", guard.size)]],
    )
    rules = {rule.tensor: rule for rule in guard.manifest.rules}
    why = _reasons(guard)
    lines = []
    for index, entry in sorted(enumerate(guard.entries), key=lambda item: -item[1].nbytes):
        tiles = guard.stream.tiles_of_tensor(index)
        told_of_rule = "no: " + why.get(index, "not said")
        if index in rules:
            rule = rules[index]
            told_of_rule = ", ".join(
                f"{error:.3g} at {rate:.0%}" for error, rate in zip(rule.errors, rule.rates, strict=True)
            )
            told_of_rule += f", {rule.tile_error:.3g} in lost tiles"
            told_of_rule += f" ({rule.recipe})" if not rule.stored else ""
            told_of_rule = "lost" if f"rule.{index}" in guard.lost else told_of_rule
        shape = " x ".join(str(size) for size in entry.shape)
        lines.append(
            [
                entry.name,
                entry.dtype,
                shape,
                f"{entry.nbytes:,}",
                f"{tiles.stop - tiles.start:,}",
                _kept(guard, index),
                told_of_rule,
            ]
        )
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

    strength = parity_strength(guard)
    if strength is None:
        yield "There is no parity: what is damaged is found, and not restored bit for bit."
    else:
        run = "; a lost run of up to {run_bytes:,} bytes" if strength["run_bytes"] else ""
        yield (
            "Parity corrects {unknown:,} unknown or {known:,} known wrong symbols of {symbols:,} in each of "
            "{codewords:,} codewords" + run + "."
        ).format(**strength)
    if guard.manifest.copied and "copy" not in guard.lost:
        yield f"Copies of {len(guard.manifest.copied):,} tensors: restored bit for bit, whatever happens to them."
    memory = _remembered(guard)
    hinted = [of for of in memory["tensors"].values() if of["hint"] or of["prior"]] if memory else []
    if hinted:
        yield f"Hints of {len(hinted):,} tensors: what is lost of them is estimated, be it all."
    if memory and memory["strengths"]:
        covered = sum(of["ladder"] for of in memory["tensors"].values())
        finer = "; finer ones up to " + ", ".join(f"{one:.3g}" for one in map(_percent, memory["strengths"][1:])) + " %"
        yield (
            f"Ladder over {covered:,} tensors: up to {_percent(memory['strengths'][0]):.3g} % of their weights may be "
            f"missing, and are restored between bounds{finer if memory['strengths'][1:] else ''}."
        )
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


def _percent(share: float) -> float:
    return 100 * share


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
    print(printable(str(report)))
