"""Ctrl-C and SIGTERM: at every moment of a command they end it in one line and exit code 130, without a traceback.

Imports next to nothing, so that it is there before anything else.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 130
LINE = "aoi: stopped; the same command goes on from what is finished"
# Ctrl-C; as a scheduler stops a job; as a terminal that is closed, where the system has that.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def leave_at_once() -> None:
    """For moments in which nothing must be put in order: a signal ends the process where it stands."""
    _answer(_leave)


def raise_once() -> None:
    """While a command runs: the first signal raises KeyboardInterrupt, so that all is put in order; the next one ends
    the process where it stands."""
    sys.unraisablehook = _unraisable
    _answer(_raise)


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """In the block signals raise nothing. The function that it gives raises KeyboardInterrupt where one has come."""
    came: list[int] = []

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup leaves it
    }
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_behind(error: BaseException | None) -> bool:
    """Whether an error is KeyboardInterrupt or came of it: in the middle of an import it may come out as another."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or is_behind(error.__cause__ or error.__context__)
    )


def tell() -> int:
    """Prints that the command was stopped. Returns: the exit code."""
    print(LINE, file=sys.stderr)
    return EXIT_CODE


def _answer(handler: Callable[[int, object], None]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as it is in the background of a script
            signal.signal(number, handler)


def _raise(number: int, frame: object) -> None:
    leave_at_once()
    raise KeyboardInterrupt


def _leave(number: int, frame: object) -> None:
    os.write(2, b"\r\x1b[2K" * os.isatty(2) + f"{LINE}\n".encode())
    os._exit(EXIT_CODE)


def _unraisable(told: "sys.UnraisableHookArgs") -> None:
    """Leaves upon Ctrl-C in a destructor, where Python drops it and goes on."""
    if is_behind(told.exc_value):
        _leave(signal.SIGINT, None)
    sys.__unraisablehook__(told)
