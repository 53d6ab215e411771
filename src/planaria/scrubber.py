"""Repair while the model runs: a thread that walks the tiles of a live module."""

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import CodeType, FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import Self

from planaria.checkpoints import Checkpoint, open_checkpoint
from planaria.errors import InvalidInput, LooksDifferent, PlanariaError
from planaria.guard import Guard, Report
from planaria.guard.byte_layout import SYMBOL
from planaria.guard.digests import hash_group_digests
from planaria.guard.overlay import Overlay
from planaria.guard.repair import diagnose

logger = logging.getLogger(__name__)
REST = 0.1  # seconds between two looks: waking up takes longer than a look at a few tiles
MOST_AT_ONCE = 2**20  # bytes: the interpreter is busy for a millisecond
PAUSE = 1.0  # seconds after an error, at least
MODULE_CALL: CodeType = nn.Module.__call__.__code__
scrubbed: set[nn.Module] = set()


@dataclass(frozen=True, kw_only=True)
class ScrubberStatus:
    """What a scrubber has done so far.

    Attributes:
        passes: whole walks over the model.
        checked: tiles compared with their digest.
        corrected: tiles restored bit for bit.
        estimated: tiles regrown or filled in, or bounded.
        uncorrectable: tiles beyond repair.
        last_error: the last thing that went wrong, or None. The scrubber went on after it.
    """

    passes: int = 0
    checked: int = 0
    corrected: int = 0
    estimated: int = 0
    uncorrectable: int = 0
    last_error: str | None = None


class Scrubber:
    """Checks a live module against its guard, tile by tile, and repairs it in place. A context manager.

    Repairs are computed beside the module and written while none of its forward passes runs: passes that come then wait
    for those under way to end and for the write, which takes milliseconds. Parameters stay the same objects in the same
    memory, so optimisers and references hold. The hook that makes passes wait is on the module itself: call it, not its
    parts, its `forward`, or what `torch.compile` made of it. Nothing is left on it afterwards.

    What no parity restores is estimated once and then left alone. Whatever goes wrong is logged and in the status, and
    tried again a pass later; a model, or a tensor, that looks retrained rather than damaged is left as it is.

    For models that serve. Training changes weights, and a scrubber would take that for damage: leave it while you train
    or load other weights.

    Cost: one to two thousandths of a second of one core for each MB walked, and a full repair, see `Guard.repair`, when
    damage is found.

    Args:
        module: on any device.
        guard: of this module.
        rate: bytes walked a second, at most: 10 MB/s are 1 to 2 % of a core.
        callback: called in the scrubber's thread with the report of each repair.

    Raises:
        OtherModel: if the guard is of another model.
        InvalidInput: if the rate is not positive or the guard lost its digests; on entering, if the module has a
            scrubber already.
    """

    def __init__(
        self,
        module: nn.Module,
        guard: Guard,
        *,
        rate: float = 10e6,
        callback: Callable[[Report], None] | None = None,
    ):
        if not rate > 0:
            raise InvalidInput(f"A scrubber walks more than 0 bytes a second, not {rate}. Raise the rate.")
        if "digest.tiles" not in guard.arrays:
            raise InvalidInput("This guard lost the digests that a scrubber works by. Use another copy of it.")
        self.module = module
        self.guard = guard
        self.rate = rate
        self.callback = callback
        self._gate = _Gate(module)
        self._stop = threading.Event()
        self._status = ScrubberStatus()
        self._intact = guard.arrays["digest.tiles"]
        self._left = self._intact  # digests of the hash groups as the last repair left them: intact, or given up
        with self._open():
            pass

    def status(self) -> ScrubberStatus:
        """What was done so far."""
        return self._status

    def __enter__(self) -> Self:
        if self.module in scrubbed:  # two would wait for each other's waiting passes
            raise InvalidInput("A scrubber of this module is running. Leave that one first.")
        scrubbed.add(self.module)
        self._stop.clear()
        gate = self._gate
        # A lambda, since a copy of the module can share one; a bound method would be copied with all it hangs on.
        self._hook = self.module.register_forward_pre_hook(lambda *_: gate.wait(), prepend=True)
        self._thread = threading.Thread(target=self._run, name="planaria scrubber", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        try:
            self._thread.join()
        finally:
            self._hook.remove()
            scrubbed.remove(self.module)

    def _run(self) -> None:
        with suppress(_Stopped):
            while True:
                self._pass()

    def _pass(self) -> None:
        try:
            self._walk()
        except Exception as error:  # the callback's too: a model that serves must not lose its scrubber to an error
            self._count(last_error=f"{type(error).__name__}: {error}")
            logger.warning("scrubbing failed: %s", error, exc_info=not isinstance(error, PlanariaError))
            # As long as a pass takes: what fails again and again must not cost more than walking does.
            self._rest(max(PAUSE, self.guard.protected_bytes / self.rate))

    def _walk(self) -> None:
        """All tiles once."""
        began = time.monotonic()
        with self._open() as checkpoint:  # anew for each pass: the module may have moved to another device
            for hash_groups in self._blocks():
                tiles = self.guard.layout.tiles_in(hash_groups)
                begins, ends = self.guard.layout.tile_bounds(tiles)
                self._rest(SYMBOL * int((ends - begins).sum()) / self.rate)
                found = self._digests(checkpoint, hash_groups)
                self._count(checked=len(tiles))
                if ((found != self._intact[hash_groups]).any(1) & (found != self._left[hash_groups]).any(1)).any():
                    self._repair()
        self._count(passes=1)
        self._rest(began + REST - time.monotonic())

    def _repair(self) -> None:
        with self._open(writable=True) as checkpoint:
            try:
                report, overlay = diagnose(self.guard, checkpoint, action="repair", progress=lambda _: self._rest())
            except LooksDifferent:
                # Said once, and again only if the model changes further.
                self._left = np.concatenate([self._digests(checkpoint, hash_groups) for hash_groups in self._blocks()])
                raise
            if report.verdict == "intact":  # it was put right meanwhile
                return
            left, changed = self._after(report, overlay)
            with self._gate.closed(rest=self._rest):
                self._synchronise()
                overlay.commit()
                self._synchronise()
        self._left = left
        self._count(
            corrected=report.count("exact"),
            estimated=changed["bounded"] + changed["estimated"],
            uncorrectable=changed["lost"],
        )
        logger.warning("damage: %s", report)
        if self.callback:
            self.callback(report)

    def _after(self, report: Report, overlay: Overlay) -> tuple[NDArray[np.generic], Counter[str]]:
        """Digests after the overlay is written; and by verdict, how many unproven hash groups are news."""
        layout, left = self.guard.layout, self._intact.copy()
        changed: Counter[str] = Counter()
        for tensor, region in report.regions():
            if region.verdict != "exact":
                first = layout.first_tiles[layout.index[tensor.name]] + region.start // layout.tile
                last = first + (region.stop - region.start - 1) // layout.tile
                hash_groups = np.unique(layout.hash_group_of[first : last + 1])
                left[hash_groups] = self._digests(overlay, hash_groups)
                changed[region.verdict] += int((left[hash_groups] != self._left[hash_groups]).any(1).sum())
        return left, changed

    def _open(self, *, writable: bool = False) -> Checkpoint:
        return open_checkpoint(self.module, headers=self.guard.headers_for(self.module), writable=writable)

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """All hash groups of tiles, a few neighbours at a time."""
        layout = self.guard.layout
        at_once = max(1, int(min(REST * self.rate, MOST_AT_ONCE)) // layout.tile)
        for start in range(0, layout.hash_groups, at_once):
            yield np.arange(start, min(start + at_once, layout.hash_groups))

    def _digests(self, content: Checkpoint | Overlay, hash_groups: NDArray[np.int64]) -> NDArray[np.uint8]:
        return hash_group_digests(content, self.guard.layout, hash_groups, key=self.guard.key)

    def _synchronise(self) -> None:
        """Waits until accelerators are done: a pass returns before they are."""
        for device in {tensor.device for tensor in self.module.state_dict().values()}:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)

    def _rest(self, seconds: float = 0.0) -> None:
        """Raises `_Stopped` as soon as the scrubber is to stop."""
        if self._stop.wait(min(seconds, threading.TIMEOUT_MAX)):
            raise _Stopped

    def _count(self, last_error: str | None = None, **more: int) -> None:
        counts: dict[str, Any] = {name: getattr(self._status, name) + count for name, count in more.items()}
        if last_error is not None:
            counts["last_error"] = last_error
        self._status = replace(self._status, **counts)


class _Stopped(BaseException):
    """The scrubber is to stop."""


class _Gate:
    """While it is closed, no forward pass of a module runs.

    Which passes run is seen on the stacks of all threads and not counted by hooks: counts go wrong by passes that began
    before the hooks were there, or that an interrupt ended without them.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._closed = False
        self._changed = threading.Condition()
        self._waiting: set[int] = set()

    def wait(self) -> None:
        """What each pass does first."""
        # A pass inside a pass goes through, or both would wait for ever.
        if not self._closed or self._depth(sys._getframe()) > 1:
            return
        me = threading.get_ident()
        with self._changed:
            self._waiting.add(me)
            try:
                self._changed.wait_for(lambda: not self._closed)
            finally:
                self._waiting.remove(me)

    @contextmanager
    def closed(self, *, rest: Callable[[float], None]) -> Iterator[None]:
        """Makes new passes wait, and waits itself for those that run. Gives up, and opens, if `rest` raises."""
        self._closed = True
        try:
            while self._running():
                rest(0.001)
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()

    def _running(self) -> bool:
        with self._changed:
            # In no variable of this frame, which is one of them: all would live until the next garbage collection.
            return any(
                self._depth(frame) for thread, frame in sys._current_frames().items() if thread not in self._waiting
            )

    def _depth(self, frame: FrameType | None) -> int:
        """Calls of the module on a stack."""
        depth = 0
        while frame:
            # The code first: to ask for a frame's variables is slow.
            depth += frame.f_code is MODULE_CALL and frame.f_locals["self"] is self._module
            frame = frame.f_back
        return depth
