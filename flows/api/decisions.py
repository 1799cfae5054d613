"""The log of decisions: what was answered about which picture, by which model, when."""

import os
import re
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tfrecords.artifacts.files import whole_lines

FILE = re.compile(r"decisions-(\d{6})\.jsonl")
SYNC_SECONDS = 0.5


class DecisionLog:
    """Files decisions-000001.jsonl and so on in a folder, each written by one process at a time.

    A line that `append` has written is the system's: it survives whatever ends this process. A thread brings what was
    written to the disk twice a second, for a power cut; waiting for the disk would take longer than the answer.
    A process that is killed while it writes may leave half a line, of an answer that it gave to nobody: the next
    process takes it off.
    """

    def __init__(self, folder: Path, most_bytes: int):
        self._folder, self._most = folder, most_bytes
        self._lock, self._file = threading.Lock(), -1
        folder.mkdir(parents=True, exist_ok=True)
        numbers = self._numbers()
        for number in numbers[:-1]:  # those of servers that ran beside each other
            path = self._path(number)
            if whole_lines(path) < path.stat().st_size and self._open(number):
                self._release()
        # The last file is gone on with, unless it is another process' or full.
        if not numbers or not self._open(numbers[-1]):
            self._next()
        self._written, self._closed = threading.Event(), threading.Event()
        self._syncing = threading.Thread(target=self._sync, name="decisions", daemon=True)
        self._syncing.start()

    def append(self, lines: Sequence[str]) -> None:
        """Adds lines, without their ends. Raises: OSError where they can't be kept; then none of them is there."""
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._lock:
            if not self._is_there() or (self._size and self._size + len(data) > self._most):
                self._next()
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError:
                os.ftruncate(self._file, self._size)  # half a line would make the file unreadable
                raise
            self._size += len(data)
        self._written.set()

    def close(self) -> None:
        """Ends the log with all of it on the disk."""
        self._closed.set()
        self._written.set()
        self._syncing.join()
        with self._lock:
            self._release()

    def _numbers(self) -> list[int]:
        return sorted(int(match[1]) for path in self._folder.iterdir() if (match := FILE.fullmatch(path.name)))

    def _path(self, number: int) -> Path:
        return self._folder / f"decisions-{number:06d}.jsonl"

    def _open(self, number: int) -> bool:
        """Goes on with a file; False where another process writes it, or it is full."""
        path = self._path(number)
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(path.with_suffix(".lock"), timeout=0))
            except Timeout:
                return False
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
            stack.callback(os.close, file)
            # A process may have been killed while it wrote an answer that it gave to nobody.
            os.ftruncate(file, whole_lines(path))
            size = os.fstat(file).st_size
            if size >= self._most:
                return False
            self._path_now, self._file, self._size, self._closing = path, file, size, stack.pop_all()
        return True

    def _is_there(self) -> bool:
        """Whether the file is where it was made: people may take it away."""
        with suppress(OSError):
            return os.path.samestat(os.stat(self._path_now), os.fstat(self._file))
        return False

    def _next(self) -> None:
        """Begins another file. Raises: OSError where it can't be made; then the one before is kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = (self._file, self._closing) if self._file >= 0 else None
        number = max(self._numbers(), default=0) + 1
        while not self._open(number):
            number += 1
        if before:
            with before[1]:
                os.fsync(before[0])

    def _release(self) -> None:
        self._closing.close()
        self._file = -1

    def _sync(self) -> None:
        told = False
        while not self._closed.wait(SYNC_SECONDS):
            if self._written.is_set():
                self._written.clear()
                try:
                    with self._lock:
                        file = os.dup(self._file)
                    try:
                        os.fsync(file)
                    finally:
                        os.close(file)
                    told = False
                except OSError as error:
                    if not told:
                        print(f"aoi api: decisions do not reach the disk: {error}", file=sys.stderr)
                    told = True
