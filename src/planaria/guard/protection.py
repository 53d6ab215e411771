"""Making a guard: digests, copies of small tensors, rules where they pay, memory, and parity with what is left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from planaria.calibration import load_calibration
from planaria.checkpoints import Checkpoint, Entry, open_checkpoint
from planaria.detectors import Detector, Outlier, Residual
from planaria.errors import InvalidFile, InvalidInput
from planaria.fit import Schedule
from planaria.guard import parity, rules
from planaria.guard.container import packed_size
from planaria.guard.copies import file_state
from planaria.guard.digests import BUNDLE_DIGEST_BYTES, GROUP_DIGEST_BYTES, bundle_digests, group_digest
from planaria.guard.file import STATISTICS, TIERS, check_key, fingerprint, largest_floats, measured_tensors
from planaria.guard.guard import Guard
from planaria.guard.headers import pack_headers
from planaria.guard.manifest import LEAN, NOT_FINITE, Manifest, ParityShape
from planaria.guard.pieces import pieces, weights_of
from planaria.guard.remember import Explain, remember
from planaria.guard.statistics import FLOATS, Statistics
from planaria.guard.stream import CHUNK, Stream
from planaria.repairers.regrow import Precision
from planaria.shares import share_of

Progress = Callable[[int, int, str], None]
TILES = (4096, 8192, 16384, 32768, 65536, 2**20)
DIGEST_SHARE = 0.125  # of the budget; a finer tile than that takes would starve the parity
LEAN_SAVES = 0.1  # of the budget; else small tensors keep digests of their own, which tell damage apart
DESCRIPTION_SHARE = 0.02  # of the budget, for the lean form
STATISTICS_SHARE = 0.05  # of the budget, for the lean form
RULE_SHARE = 0.6  # of what digests leave; a rule that takes more leaves too little parity for small damage
LARGEST_RULE = 0.1  # of the bytes for memory: there one tensor's rule takes from all others
NO_STRUCTURE = f"neighbours tell less than {rules.LEAST_VARIANCE:.0%} of a weight"
COPY_SHARE = 0.25  # of what digests and description leave
PARITY_SHARE = 0.5  # of what copies leave, where any damage may come: small one is then restored exactly
PARITY_SHARE_EXPECTED = 0.1  # where so much is expected that parity cannot restore it


def protect(
    model: nn.Module | Mapping[str, Tensor] | str | PathLike[str],
    *,
    budget: float | str = 0.02,
    expect: float | str | None = None,
    calibration: Mapping[str, Tensor] | str | PathLike[str] | None = None,
    key: bytes | None = None,
    tiers: Sequence[str] | str = TIERS,
    schedule: Schedule | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    explain: Explain | None = None,
) -> Guard:
    """Makes the guard of an intact model.

    What digests leave of the budget goes to copies of small tensors, then to memory (hints, ladder, rules) and parity.
    If any damage may come, these two share it equally. If a share of lost weights is expected that parity restores
    exactly, where it is known which are lost, parity takes all; otherwise a tenth.

    Cost: two passes over the model for digests and parity, a few MiB of memory and the guard itself; a third pass, one
    tensor at a time, for statistics. A tensor in which neighbours tell of one another takes a second where a frozen
    rule serves, and about a minute where one is fitted (see `fit_rule`); others are found out in less. Hints and ladder
    are planned over the whole model: some 50 bytes of memory for every weight, and a minute for ten million of them.

    Args:
        model: a module, a state dict, a `.safetensors` or `.pt` file, or a folder of sharded safetensors.
        budget: largest size of the guard file, as a share of the bytes of the model's tensors: 0.02 or "2%".
        expect: share of weights that is expected to be lost, in (0, 1] or as "10%"; None for any.
        calibration: second moments of each layer's inputs, `[inputs, inputs]`, by the name of its weight, from
            `planaria.calibration`; or a safetensors file of them or of inputs. Memory is then spent where outputs feel
            it most.
        key: 32 bytes. With a key, digests and seal stand against attackers; without, they detect accidents only.
        tiers: which tiers to make, as names or a text like "digest,parity"; the digest is always made.
        schedule: of the fits; by default the recipe's.
        seed: of the fits. The same model, settings and seed give the same guard.
        threads: to compute with; by default as many as PyTorch uses.
        device: where to fit.
        progress: called with (done, total, what).
        explain: called with lines for people: what each tier buys for which tensor, what was dropped, and why.

    Raises:
        InvalidInput: if the budget is too small for the smallest guard (the message says what would do), the model is
            empty, the calibration is not this model's, or an argument is out of range.
        InvalidFile, FileNotFoundError: if model or calibration cannot be read, or the model changes meanwhile.
    """
    check_key(key)
    budget = share_of(budget, "budget")
    expect = None if expect is None else share_of(expect, "expect")
    tiers = [tier.strip() for tier in (tiers.split(",") if isinstance(tiers, str) else tiers)]
    if unknown := set(tiers) - set(TIERS):
        raise InvalidInput(f"Unknown tiers {sorted(unknown)}. Tiers are: {', '.join(TIERS)}.")
    threads = threads or torch.get_num_threads()
    report = progress or (lambda done, total, what: None)
    say = explain or (lambda line: None)
    with open_checkpoint(model) as checkpoint:
        before = _file_states(model, checkpoint)
        entries = tuple(checkpoint.entries.values())
        nbytes = sum(entry.nbytes for entry in entries)
        if nbytes == 0:
            raise InvalidInput("The model has no weights: there is nothing to protect.")
        moments = _moments(calibration, checkpoint, say)
        allowed = int(budget * nbytes)
        manifest = Manifest(
            key=fingerprint(key),
            files=tuple((name, len(header)) for name, header in checkpoint.headers.items()),
            aliases=dict(checkpoint.aliases),
        )
        manifest, stream, plan = _plan(manifest, checkpoint, allowed)
        say(f"digests and description take {_size(manifest, plan):,} of {allowed:,} bytes; tiles of {stream.tile:,}")
        made: dict[str, NDArray[np.generic]] = {}
        if "copy" in tiers:
            manifest, made = _copies(checkpoint, stream, manifest, plan, allowed, say)
        remembering = [tier for tier in ("hint", "ladder") if tier in tiers]
        room = _room_for_memory(manifest, stream, plan | made, allowed, tiers, expect, say) if remembering else 0
        manifest, rule_arrays, detectors = _rules(
            checkpoint,
            stream,
            manifest,
            plan | made,
            allowed if "rule" in tiers else None,
            memory=room if remembering else None,
            schedule=schedule,
            moments=moments,
            device=device,
            seed=seed,
            progress=report,
            say=say,
        )
        made |= rule_arrays
        reasons = manifest.reasons
        wordy = manifest.lean and manifest.encode().nbytes > DESCRIPTION_SHARE * allowed
        if wordy or _size(manifest, plan | made) > allowed:
            manifest = replace(manifest, reasons={})  # the smallest guard has no room to explain itself
        if remembering:
            most = min(_size(manifest, plan | made) + room - sum(of.nbytes for of in rule_arrays.values()), allowed)
            report(0, 1, "planning what to remember")
            manifest, memory_arrays = remember(
                checkpoint,
                stream,
                manifest,
                plan | made,
                most,
                tiers=remembering,
                expect=expect,
                moments=moments,
                seed=seed,
                threads=threads,
                say=say,
            )
            made |= memory_arrays
        if "parity" in tiers:
            shape = _parity_shape(manifest, stream, plan | made, allowed)
            if shape is not None:
                manifest = replace(manifest, parity=shape)
            say(_parity_line(shape, stream))
        for reason, indices in reasons.items():
            say(f"no rule for {len(indices)} tensors: {reason}")
        arrays = _measured(checkpoint, stream, manifest, plan, key, detectors, threads, report)
        arrays = {"headers": plan["headers"]} | arrays | made
        if _file_states(model, checkpoint) != before:
            raise InvalidFile(f"{model} changed while it was being protected. Protect it again when it is complete.")
    guard = Guard(manifest, {"manifest": manifest.encode()} | arrays, key)
    return replace(guard, size=packed_size(dict(guard.arrays)))


def _moments(
    calibration: Mapping[str, Tensor] | str | PathLike[str] | None, checkpoint: Checkpoint, say: Explain
) -> dict[str, Tensor]:
    """Second moments by the names of the checkpoint's entries. Raises `InvalidInput` on others than this model's."""
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    shapes |= {other: shapes[name] for other, name in checkpoint.aliases.items()}
    if calibration is None:
        return {}
    if isinstance(calibration, (str, PathLike)):
        loaded = load_calibration(calibration, shapes)
        for note in loaded.notes:
            say(note)
        calibration = loaded.moments
    for name, moment in calibration.items():
        inputs = prod(shapes[name][1:]) if len(shapes.get(name, ())) > 1 else 0
        if not inputs:
            raise InvalidInput(f"The calibration has {name!r}, and the model no such matrix. Calibrate this model.")
        if tuple(moment.shape) != (inputs, inputs) or not moment.is_floating_point() or not moment.isfinite().all():
            raise InvalidInput(
                f"Second moments of {name!r} are finite floats of shape ({inputs}, {inputs}), not {moment.dtype} of "
                f"{tuple(moment.shape)}. Calibrate this model."
            )
    return {checkpoint.aliases.get(name, name): moment.detach().float().cpu() for name, moment in calibration.items()}


def _copies(
    checkpoint: Checkpoint,
    stream: Stream,
    manifest: Manifest,
    plan: Mapping[str, NDArray[np.generic]],
    allowed: int,
    say: Explain,
) -> tuple[Manifest, dict[str, NDArray[np.generic]]]:
    """The bytes of tensors of at most one axis, smallest first, as long as they all take little."""
    small = [
        (entry.nbytes, index) for index, entry in enumerate(stream.entries) if len(entry.shape) < 2 and entry.nbytes
    ]
    room = COPY_SHARE * (allowed - _size(manifest, plan))
    taken: list[int] = []
    for nbytes, index in sorted(small):
        room -= nbytes + len(f"{index},")
        if room < 0:
            left = len(small) - len(taken)
            say(f"copy: none of {left} larger vectors: all copies may take {COPY_SHARE:.0%} of what digests leave")
            break
        taken.append(index)
        say(f"copy: {stream.entries[index].name}, {nbytes:,} bytes: restored exactly whatever happens to it")
    if not taken:
        return manifest, {}
    copied = tuple(sorted(taken))
    content = np.concatenate([checkpoint.read(stream.entries[index].name) for index in copied])
    arrays: dict[str, NDArray[np.generic]] = {"copy": content}
    with_copy = replace(manifest, version=max(manifest.version, 2), copied=copied)
    return (with_copy, arrays) if _size(with_copy, {**plan, **arrays}) <= allowed else (manifest, {})


def _room_for_memory(
    manifest: Manifest,
    stream: Stream,
    plan: Mapping[str, NDArray[np.generic]],
    allowed: int,
    tiers: Sequence[str],
    expect: float | None,
    say: Explain,
) -> int:
    """Bytes of the file for hints, ladder and rules."""
    room = max(allowed - _size(manifest, plan), 0)
    if "parity" not in tiers:
        return room
    shape = _parity_shape(manifest, stream, plan, allowed)
    if expect is not None and shape is not None and _restores(shape, stream, expect):
        say(f"parity restores {expect:.3g} of all weights bit for bit, where it is known which: it gets all bytes")
        return 0
    memory = int((1 - (PARITY_SHARE if expect is None else PARITY_SHARE_EXPECTED)) * room)
    rest = _parity_shape(manifest, stream, plan, allowed - memory)
    if rest is None or rest.check < parity.PROVABLE:
        say(
            f"parity: none is set aside: fewer than {parity.PROVABLE} check symbols prove no correction; "
            "memory gets its bytes"
        )
        return room
    return memory


def _restores(shape: ParityShape, stream: Stream, share: float) -> bool:
    """Whether the loss of a share of all weights, known and scattered, is restored but for bad luck."""
    # Two weights that share a symbol are lost together.
    narrow = any(entry.dtype in ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2") for entry in stream.entries)
    lost = (1 - (1 - share) ** 2 if narrow else share) * -(-shape.segment // shape.width)
    return shape.check >= lost + max(0.1 * lost, 5 * lost**0.5) + 4


def _parity_line(shape: ParityShape | None, stream: Stream) -> str:
    if shape is None:
        return "parity: none, no bytes are left"
    rows = -(-shape.segment // shape.width)
    nbytes = 2 * shape.check * shape.width * -(-stream.symbols // shape.segment)
    known = shape.check / (rows + shape.check)
    return (
        f"parity: {nbytes:,} bytes: restores bit for bit up to {shape.check // 2:,} wrong 16-bit symbols of each "
        f"{rows:,}, or where it is known which, {known:.3%} of all"
        + (", where a digest then matches" if shape.check < parity.PROVABLE else "")
    )


def _plan(
    manifest: Manifest, checkpoint: Checkpoint, allowed: int
) -> tuple[Manifest, Stream, dict[str, NDArray[np.generic]]]:
    """What every guard has, in arrays of the sizes that they will have: lean if that saves enough, or with a key."""
    entries, headers = tuple(checkpoint.entries.values()), list(checkpoint.headers.values())
    lean = _planned(replace(manifest, version=LEAN), entries, headers, allowed)
    if odd := _not_finite(checkpoint, measured=len(lean[2].get("statistics", ()))):
        lean = _planned(replace(manifest, version=NOT_FINITE, not_finite=odd), entries, headers, allowed)
    plain = lean if manifest.key else _planned(manifest, entries, headers, allowed)
    sizes = [_size(manifest, plan) for manifest, _, plan in (plain, lean)]
    manifest, stream, plan = plain if sizes[0] <= min(allowed, sizes[1] + LEAN_SAVES * allowed) else lean
    if min(sizes) > allowed:
        raise InvalidInput(
            f"A budget of {allowed:,} bytes is too small: the smallest guard of this model takes {min(sizes):,} bytes, "
            f"{100.5 * min(sizes) / stream.nbytes:.3g} %. Raise the budget."  # never rounded down
        )
    return manifest, stream, plan


def _not_finite(checkpoint: Checkpoint, *, measured: int) -> tuple[int, ...]:
    """The tensors that a lean guard does not measure and in which some values are no numbers; one pass over these."""
    entries = tuple(checkpoint.entries.values())
    left = set(range(len(entries))) - set(measured_tensors(entries, measured, lean=True))
    return tuple(
        index
        for index in sorted(left)
        if (entry := entries[index]).dtype in FLOATS
        and entry.nbytes
        and not all(
            weights_of(checkpoint.read(entry.name, piece.start, piece.start + piece.nbytes), piece).isfinite().all()
            for piece in pieces(entry, max(TILES))
        )
    )


def _planned(
    manifest: Manifest, entries: Sequence[Entry], headers: Sequence[bytes], allowed: int
) -> tuple[Manifest, Stream, dict[str, NDArray[np.generic]]]:
    """With the finest tile whose digests leave room for the rest."""
    measured = len(entries)
    if manifest.lean:
        row = STATISTICS * np.dtype(np.float32).itemsize
        measured = len(largest_floats(entries, int(STATISTICS_SHARE * allowed) // row))
    packed = np.frombuffer(pack_headers(headers, bare=manifest.lean), np.uint8)
    for tile in TILES:
        stream = Stream(entries, tile=tile, bundled=manifest.lean)
        manifest = replace(manifest, tile=tile)
        plan: dict[str, NDArray[np.generic]] = {
            "headers": packed,
            "digest.tensors": np.zeros((stream.groups, GROUP_DIGEST_BYTES), np.uint8),
            "digest.tiles": np.zeros((stream.bundles, BUNDLE_DIGEST_BYTES), np.uint8),
        }
        statistics: dict[str, NDArray[np.generic]] = {"statistics": np.zeros((measured, STATISTICS), np.float32)}
        if measured and (not manifest.lean or _size(manifest, plan | statistics) <= allowed):
            plan |= statistics
        size = _size(manifest, plan)
        if stream.bundles * BUNDLE_DIGEST_BYTES <= DIGEST_SHARE * allowed and size <= allowed:
            break
    return manifest, stream, plan


def _size(manifest: Manifest, plan: Mapping[str, NDArray[np.generic]]) -> int:
    """Bytes of the guard file of arrays of these sizes."""
    return packed_size({"manifest": manifest.encode(), **plan})


def _parity_shape(
    manifest: Manifest, stream: Stream, plan: Mapping[str, NDArray[np.generic]], allowed: int
) -> ParityShape | None:
    """The most parity that the budget leaves room for."""
    room = allowed - _size(manifest, plan)
    while room > 0:
        shape = parity.shape_for(stream.symbols, room, lean=manifest.lean)
        if shape is None:
            return None
        segments = -(-stream.symbols // shape.segment)
        tier = {"parity": np.zeros((segments, shape.check, shape.width), np.uint16)}
        excess = _size(replace(manifest, parity=shape), {**plan, **tier}) - allowed
        if excess <= 0:
            return shape
        room -= max(excess, room // 200)
    return None


def _measured(
    checkpoint: Checkpoint,
    stream: Stream,
    manifest: Manifest,
    plan: Mapping[str, NDArray[np.generic]],
    key: bytes | None,
    detectors: Mapping[str, Detector],
    threads: int,
    progress: Progress,
) -> dict[str, NDArray[np.generic]]:
    """The tiers that one pass each over the model gives."""
    passes = 3 if manifest.parity is None else 4
    total, done = passes * stream.nbytes, 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        progress(min(done, total), total, "digests and parity")

    groups, bundles = [], []
    for group in range(stream.groups):
        groups.append(group_digest(checkpoint, stream, group, key=key))
        more(sum(stream.entries[tensor].nbytes for tensor in stream.tensors_in(group)))
    at_once = max(CHUNK // stream.tile, 1)
    for start in range(0, stream.bundles, at_once):
        some = np.arange(start, min(start + at_once, stream.bundles))
        bundles.append(bundle_digests(checkpoint, stream, some, key=key))
        more(len(some) * stream.tile)
    arrays: dict[str, NDArray[np.generic]] = {
        "digest.tensors": np.frombuffer(b"".join(groups), np.uint8).reshape(-1, GROUP_DIGEST_BYTES),
        "digest.tiles": np.concatenate(bundles),
    }
    if "statistics" in plan:
        rows = [
            _statistics(checkpoint, stream, stream.entries[tensor], detectors, more)
            for tensor in measured_tensors(stream.entries, len(plan["statistics"]), lean=manifest.lean)
        ]
        arrays["statistics"] = np.array(rows, np.float32)
    if manifest.parity is not None:
        arrays["parity"] = parity.encode(checkpoint, stream, manifest.parity, threads=threads, progress=more)
    return arrays


def _statistics(
    checkpoint: Checkpoint,
    stream: Stream,
    entry: Entry,
    detectors: Mapping[str, Detector],
    progress: Callable[[int], None],
) -> tuple[float, ...]:
    """The row of one tensor; zeros where it has no floats."""
    parts = []
    detector = detectors.get(entry.name, Outlier())
    small = pieces(entry, stream.tile) if entry.dtype in FLOATS and entry.nbytes else ()
    for piece in small:
        content = checkpoint.read(entry.name, piece.start, piece.start + piece.nbytes)
        parts.append((Statistics.of(weights_of(content, piece), detector), piece.nbytes))
    of = Statistics.merged([part for part, _ in parts], [size for _, size in parts])
    progress(entry.nbytes)
    return (of.lowest, of.highest, of.mean, of.rms, *of.limits, of.floor, of.zeros)


def _rules(
    checkpoint: Checkpoint,
    stream: Stream,
    manifest: Manifest,
    plan: Mapping[str, NDArray[np.generic]],
    allowed: int | None,
    *,
    memory: int | None,
    schedule: Schedule | None,
    moments: Mapping[str, Tensor],
    device: torch.device | str,
    seed: int,
    progress: Progress,
    say: Explain,
) -> tuple[Manifest, dict[str, NDArray[np.generic]], dict[str, Detector]]:
    """Rules for the tensors in which they pay, and detectors that use them; all other tensors have a reason.

    A frozen rule is tried first. Where it tells less than neighbours do, one is fitted, largest tensors first while the
    budget lasts; of `memory` bytes, if given, a rule takes a tenth at most.
    """
    entries = stream.entries
    reasons: dict[str, list[int]] = {}
    arrays: dict[str, NDArray[np.generic]] = {}
    found: list[rules.MeasuredRule] = []
    candidates: list[tuple[int, tuple[int, ...]]] = []
    tile_cells = {index: stream.tile * prod(entry.shape) // max(entry.nbytes, 1) for index, entry in enumerate(entries)}
    for index, entry in enumerate(entries):
        progress(index, len(entries), f"looking for structure in {entry.name}")
        reason = "not asked for" if allowed is None else rules.why_not(entry)
        if reason is None:
            space, predicted = rules.choose_space(_first_rows(checkpoint, entry))
            structureless = predicted < rules.LEAST_VARIANCE
            if structureless and not rules.has_kernels(entry.shape):
                reason = NO_STRUCTURE
            elif not (weights := weights_of(checkpoint.read(entry.name), entry)).float().isfinite().all():
                reason = "not all finite"  # as single precision, in which rules compute
            elif rule := rules.frozen_for(
                weights,
                index,
                space,
                told=predicted,
                tile_cells=tile_cells[index],
                moments=moments.get(entry.name),
                seed=seed,
            ):
                named = replace(manifest, rules=tuple(one.shape for one in [*found, rule]))
                if allowed is not None and _size(named, plan) > allowed:
                    reason = "no room in the budget"
                else:
                    found.append(rule)
                    say(f"{entry.name}: the frozen rule {rule.shape.recipe} takes no bytes and no fit")
            elif structureless:
                reason = NO_STRUCTURE
            elif rules.work(entry, space, schedule) > rules.MOST_WORK:
                reason = "a fit would take more than two minutes"
            else:
                candidates.append((index, space))
        if reason is not None:
            reasons.setdefault(reason, []).append(index)
    room = 0.0 if allowed is None else RULE_SHARE * (allowed - _size(manifest, plan) if memory is None else memory)
    largest = room if memory is None else LARGEST_RULE * memory
    for index, space in sorted(candidates, key=lambda candidate: -entries[candidate[0]].nbytes):
        entry = entries[index]
        sizes: dict[Precision, int] = {p: rules.record_bytes(p, space) for p in ("half", "byte")}
        small = [p for p, size in sizes.items() if size <= rules.MOST_BYTES * entry.nbytes]
        affordable = [p for p in small if sizes[p] <= min(room, largest)]
        if not affordable:
            reason = "no room in the budget" if small else "a rule would take more than a quarter of its bytes"
            reasons.setdefault(reason, []).append(index)
            continue
        rule = rules.fit_for(
            weights_of(checkpoint.read(entry.name), entry),
            index,
            space,
            tile_cells=tile_cells[index],
            precision=affordable[0],
            schedule=schedule,
            moments=moments.get(entry.name),
            device=device,
            seed=seed,
            on_iteration=lambda done, total, loss, name=entry.name: progress(done, total, f"fitting {name}"),  # type: ignore[misc]
        )
        if rule.harms:
            reasons.setdefault("worse than zero on held-out masks", []).append(index)
            continue
        room -= rule.content.nbytes
        found.append(rule)
        arrays[f"rule.{index}"] = rule.content
    detectors: dict[str, Detector] = {
        entries[rule.shape.tensor].name: Residual(rules.repairer_of(rule.shape, rule.content)) for rule in found
    }
    return replace(manifest, rules=tuple(rule.shape for rule in found), reasons=dict(reasons)), arrays, detectors


def _first_rows(checkpoint: Checkpoint, entry: Entry) -> Tensor:
    """As many rows of a tensor as are looked at for structure."""
    rows = min(entry.shape[0], rules.PROBED_ROWS)
    nbytes = entry.nbytes // entry.shape[0] * rows
    part = Entry(entry.name, entry.dtype, (rows, *entry.shape[1:]), nbytes)
    return weights_of(checkpoint.read(entry.name, 0, nbytes), part).nan_to_num(0.0, 0.0, 0.0)


def _file_states(model: object, checkpoint: Checkpoint) -> list[object]:
    """What tells that a file of the model changed; nothing for a model in memory."""
    if not isinstance(model, (str, PathLike)):
        return []
    path = Path(model)
    return [file_state(path / name if path.is_dir() else path) for name in checkpoint.headers]
