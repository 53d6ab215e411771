"""Making a guard: digests, copies of small tensors, rules where they pay, memory, and parity with what is left."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from planaria.calibration import load_calibration
from planaria.checkpoints import Checkpoint, open_checkpoint
from planaria.errors import InvalidFile, InvalidInput
from planaria.fit import Schedule
from planaria.guard.container import packed_size
from planaria.guard.copies import file_state
from planaria.guard.file import check_key, fingerprint
from planaria.guard.guard import Guard
from planaria.guard.making import Explain, Making, Progress
from planaria.guard.manifest import Manifest
from planaria.guard.tiers import TIERS, DigestTier
from planaria.guard.tiers.digest import lay_out
from planaria.shares import share_of


def protect(
    model: nn.Module | Mapping[str, Tensor] | str | PathLike[str],
    *,
    budget: float | str = 0.02,
    expect: float | str | None = None,
    calibration: Mapping[str, Tensor] | str | PathLike[str] | None = None,
    key: bytes | None = None,
    tiers: Iterable[str] | str | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    explain: Explain | None = None,
) -> Guard:
    """Makes the guard of an intact model.

    What digests leave of the budget goes to copies of small tensors, then to memory (sketches, refinement, rules) and
    parity. If any damage may come, these two share it equally. If a share of lost weights is expected that parity
    restores exactly, where it is known which are lost, parity takes all; otherwise a tenth.

    Cost: two passes over the model for digests and parity, a few MiB of memory and the guard itself; a third pass, one
    tensor at a time, for statistics. A tensor in which neighbours tell of one another takes a second where a pretrained
    rule serves, and about a minute where one is fitted (see `fit_rule`); others are found out in less. Sketches and
    refinement
    are planned over the whole model: some 50 bytes of memory for every weight, and a minute for ten million of them.

    Args:
        model: a module, a state dict, a `.safetensors` or `.pt` file, or a folder of sharded safetensors.
        budget: largest size of the guard file, as a share of the bytes of the model's tensors: 0.02 or "2%".
        expect: share of weights that is expected to be lost, in (0, 1] or as "10%"; None for any.
        calibration: second moments of each layer's inputs, `[inputs, inputs]`, by the name of its weight, from
            `planaria.calibration`; or a safetensors file of them or of inputs. Memory is then spent where outputs feel
            it most.
        key: 32 bytes. With a key, digests and seal stand against attackers; without, they detect accidents only.
        tiers: which tiers to make, as names or a text like "digest,parity"; all by default, and the digest always.
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
    named = TIERS if tiers is None else tiers.split(",") if isinstance(tiers, str) else tiers
    names = {name.strip() for name in named}
    if unknown := names - set(TIERS):
        raise InvalidInput(f"Unknown tiers {sorted(unknown)}. Tiers are: {', '.join(TIERS)}.")
    say = explain or (lambda line: None)
    with open_checkpoint(model) as checkpoint:
        before = _file_states(model, checkpoint)
        nbytes = sum(entry.nbytes for entry in checkpoint.entries.values())
        if nbytes == 0:
            raise InvalidInput("The model has no weights: there is nothing to protect.")
        moments = _moments(calibration, checkpoint, say)
        allowed = int(budget * nbytes)
        manifest = Manifest(
            key=fingerprint(key),
            files=tuple((name, len(header)) for name, header in checkpoint.headers.items()),
            aliases=dict(checkpoint.aliases),
        )
        manifest, layout, arrays = lay_out(manifest, checkpoint, allowed)
        making = Making(
            checkpoint=checkpoint,
            layout=layout,
            manifest=manifest,
            arrays=arrays,
            allowed=allowed,
            tiers=frozenset(names | {DigestTier.name}),
            expect=expect,
            moments=moments,
            schedule=schedule,
            seed=seed,
            threads=threads or torch.get_num_threads(),
            device=device,
            key=key,
            say=say,
            progress=progress or (lambda done, total, what: None),
        )
        for name, tier in TIERS.items():
            act = tier.plan if name in making.tiers else tier.omit
            act(making)
        for name in filter(making.tiers.__contains__, TIERS):
            TIERS[name].make(making)
        if _file_states(model, checkpoint) != before:
            raise InvalidFile(f"{model} changed while it was being protected. Protect it again when it is complete.")
    guard = Guard(making.manifest, {"manifest": making.manifest.encode(), **making.arrays}, key)
    return replace(guard, size=packed_size(dict(guard.arrays)))


def _moments(
    calibration: Mapping[str, Tensor] | str | PathLike[str] | None, checkpoint: Checkpoint, say: Explain
) -> dict[str, Tensor]:
    """Second moments by the names of the checkpoint's entries. Raises `InvalidInput` on others than this model's."""
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    shapes |= {alias: shapes[name] for alias, name in checkpoint.aliases.items()}
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


def _file_states(model: object, checkpoint: Checkpoint) -> list[object]:
    """What tells that a file of the model changed; nothing for a model in memory."""
    if not isinstance(model, (str, PathLike)):
        return []
    path = Path(model)
    return [file_state(path / name if path.is_dir() else path) for name in checkpoint.headers]
