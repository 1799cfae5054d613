"""What differs between operating systems: locks between processes, folders made safe from a power cut."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an advisory lock that the kernel drops when its owner dies; the file goes with the last owner."""
    while True:
        with open(path, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Its last owner may have removed the file while we waited: then we hold a lock nobody else sees.
            try:
                ours = os.path.samefile(path, file.fileno())
            except FileNotFoundError:
                ours = False
            if not ours:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
