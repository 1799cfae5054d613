"""Progress that people watch: how many, how fast, how much time is left."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

LIVE_SECONDS, LOG_SECONDS = 0.1, 5.0


@dataclass
class Meter:
    """A stage's progress function, see `tfrecords.progress.Progress`.

    A stage has one or more counts, such as pictures hashed and pictures converted. A count begins with its first
    call, which tells what is done already; the rate is that of the pictures and the time since then.

    emit: takes a line; every: shortest time between two lines, in seconds.
    """

    stage: str
    emit: Callable[[str], None]
    every: float
    _seen: tuple[int, int, str] = field(default=(0, 0, ""), init=False)
    _began: tuple[float, int] = field(default=(0.0, 0), init=False)
    _emitted: float = field(default=0.0, init=False)

    def __call__(self, done: int, total: int, note: str) -> None:
        now = monotonic()
        before, whole, last = self._seen
        if (done, total, note) == self._seen and done == total:
            return  # the end is told once
        ended = before == whole and note != last
        if done < before or total != whole or ended:
            self._began, self._emitted = (now, done), now
        self._seen = done, total, note
        if now - self._emitted < self.every and done < total:
            return
        self._emitted = now
        self.emit(f"{self.stage:<9} {describe(done, total, now - self._began[0], done - self._began[1])}  {note}")


def describe(done: int, total: int, seconds: float, counted: int) -> str:
    """'480 of 1,440  215/s  4 s left', from what was counted in the seconds watched."""
    text = f"{done:,} of {total:,}"
    if counted <= 0 or seconds <= 0:
        return text
    rate = counted / seconds
    speed = f"  {rate:,.0f}/s" if rate >= 1 else ""  # the points of a sweep take minutes each
    return text + speed + (f"  {duration((total - done) / rate)} left" if done < total else "")


def duration(seconds: float) -> str:
    """'4.2 s', '3 min 05 s', '1 h 12 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def terminal_meter(stage: str) -> Meter:
    """Progress on stderr: one line that is rewritten on a terminal, a line now and then in a log."""
    return Meter(stage, *terminal())


def terminal() -> tuple[Callable[[str], None], float]:
    """What shows a line of progress on stderr, and the shortest time between two, in seconds; see `terminal_meter`."""
    if sys.stderr.isatty():
        return (lambda line: print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)), LIVE_SECONDS
    return (lambda line: print(line, file=sys.stderr, flush=True)), LOG_SECONDS


def clear_line() -> None:
    """Wipes the line that a terminal meter rewrote."""
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
