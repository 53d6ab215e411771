"""The `planaria` command. Errors are one line on stderr; the exit code says what kind."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from planaria import __version__, damage_command, guard_commands
from planaria.errors import (
    DataNotFound,
    InvalidFile,
    InvalidGuard,
    LooksDifferent,
    OtherModel,
    OutputFailed,
    PlanariaError,
    VerificationFailed,
)
from planaria.files import printable
from planaria.guard_inputs import as_flags

WRONG_USAGE = 3
STOPPING = (signal.SIGTERM, signal.SIGHUP)  # what service managers and closed terminals send
# The first that fits counts: a broken guard is also an invalid file.
EXIT_CODES: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
    (4, (InvalidGuard,)),
    (5, (OtherModel, LooksDifferent)),
    (6, (InvalidFile, DataNotFound, OutputFailed)),
    (7, (VerificationFailed,)),
    (WRONG_USAGE, (PlanariaError,)),
    (6, (OSError,)),
)
EPILOG = """Exit codes:

0  intact, or fully restored; done

1  damaged, and exactly repairable (check)

2  damaged, and repairable only approximately (check), or repaired so (repair), or not asked how (check --quick)

3  wrong usage

4  the guard is damaged, is no guard, or is not of the key that was given

5  the guard is of another model

6  input or output failed

7  a repair did not verify; nothing was written"""

application = typer.Typer(
    help="Self-repairing neural networks: damaged weights are regrown from the weights that survive around them.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    guard_commands.protect,
    guard_commands.check,
    guard_commands.repair,
    guard_commands.inspect,
    guard_commands.mend,
    guard_commands.key,
):
    application.command()(command)
application.add_typer(damage_command.application, name="damage")

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with.", show_default="2, or fewer by OMP_NUM_THREADS")
]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"planaria {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)]


@application.callback()
def common(threads: Threads = None, version: Version = False) -> None:
    """Options of every command."""
    if "torch" not in sys.modules:  # it reads this when it is loaded: not every command needs it
        os.environ["OMP_NUM_THREADS"] = str(threads or min(2, _cores()))
    else:
        import torch

        torch.set_num_threads(threads or min(2, torch.get_num_threads()))


def _cores() -> int:
    """Those that this process may use."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, int(limit)) if limit.isdecimal() and int(limit) else cores


def main() -> None:
    """Runs the command line.

    Exit codes: 0 intact, fully restored, or done; 1 damaged and exactly repairable (check); 2 only approximately (check
    or repair), or a quick check found damage; 3 wrong usage; 4 the guard is damaged, not a guard, or not of the key
    given; 5 the guard is of another model; 6 input or output failed; 7 a repair did not verify; 128 and more: stopped
    by that signal, after cleaning up.
    """
    run_as_command(application, name="planaria")


def run_as_command(application: typer.Typer, *, name: str) -> NoReturn:
    """Runs a command line of this name and exits: errors are one line, and a signal that asks to stop is heeded."""
    try:
        with _stopped_by_signals():
            code = application(prog_name=name, standalone_mode=False)
    except _Stopped as stopped:
        _complain(name, f"stopped by {stopped.signal.name}")
        code = 128 + stopped.signal
    except (PlanariaError, OSError) as error:
        _complain(name, str(error))
        code = next(code for code, kinds in EXIT_CODES if isinstance(error, kinds))
    except Exception as error:
        # Usage errors come from the parser's own copy of click, whose classes are not ours to import.
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():  # without arguments the help was printed, and nothing is left to say
            _complain(name, message)
        code = WRONG_USAGE
    sys.exit(code if isinstance(code, int) else 0)


class _Stopped(BaseException):
    """A signal asks the command to stop. No `Exception`, as an interrupt is none: nothing may go on after it."""

    def __init__(self, number: int):
        self.signal = signal.Signals(number)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turns the signals that ask to stop into an exception, so that what is half done is cleaned up.

    A signal that is ignored, as under nohup, stays ignored, and the first that comes silences those that follow.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    handled = {each: handler for each in STOPPING if (handler := signal.getsignal(each)) != signal.SIG_IGN}
    try:
        for each in handled:
            signal.signal(each, stop)
        yield
    finally:
        for each, handler in handled.items():
            signal.signal(each, handler or signal.SIG_DFL)


def _complain(name: str, message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"{name}: " + printable(as_flags(" ".join(message.split()))), style="red", markup=False, highlight=False
    )
