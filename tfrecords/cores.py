"""The cores of this machine; apart from `tfrecords.system`, for models that are served elsewhere bring this along."""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


def cores() -> list[int]:
    """The cores that this process may use, by number: in a container these may be fewer than the machine has."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def kept_on(chosen: Collection[int]) -> Iterator[None]:
    """Keeps this thread, and threads that it starts, on some cores, on Linux; it goes anywhere where there are none."""
    if sys.platform != "linux" or not chosen:
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # they were taken from this process in the meantime
        os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
