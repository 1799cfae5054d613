"""Every picture's file, read once: its hash, and what is wrong with it that shows without decoding."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.inputs import files
from pipeline.inputs.files import READ_ERRORS, reason
from pipeline.inputs.rows import Row, Rows, Seen
from pipeline.store import THREADS, is_remote
from tfrecords.cores import cores
from tfrecords.dataset import Lenience
from tfrecords.pictures.errors import COPY_AGAIN, PictureError
from tfrecords.pictures.formats import inspect
from tfrecords.progress import Progress

HASHED_AT_ONCE = 64  # pictures that a thread takes: a task for each would cost more memory than all the rows
READ_AT_ONCE = 4  # of a store, which many threads read
Look = Callable[[Rows, str, Progress], Iterator[Sequence[Seen]]]  # what `look_here` is, here or elsewhere


def look_here(rows: Rows, container: str, progress: Progress) -> Iterator[Sequence[Seen]]:
    """Reads every picture once, on this machine. Yields: what was seen of the rows, in their order, some at a time."""
    # Local files are as fast as the cores; from elsewhere most of the time is spent waiting.
    threads, at_once = (THREADS, READ_AT_ONCE) if is_remote(container) else (len(cores()), HASHED_AT_ONCE)
    starts = range(0, len(rows), at_once)
    progress(0, len(rows), "hashed")
    with files.opened(container) as read, ThreadPoolExecutor(threads) as pool:
        done = 0
        for part in pool.map(lambda at: [see(row, read) for row in rows[at : at + at_once]], starts):
            yield part
            done += len(part)
            progress(done, len(rows), "hashed")


def see(row: Row, read: Callable[[str], bytes]) -> Seen:
    """Reads a picture's file: its hash, and what is wrong with its frame."""
    try:
        data = read(row.name)
    except READ_ERRORS as error:
        return Seen(reject=row.rejected(*unreadable(error)))
    sha256 = hashlib.sha256(data).digest()
    try:
        declared = inspect(data)
    except PictureError as error:
        return Seen(sha256, reject=row.rejected(str(error), error.remedy))
    return Seen(sha256, declared.bits, notes=declared.notes)


def unreadable(error: Exception) -> tuple[str, str]:
    """Reason and remedy of a picture whose file can't be read. error: one of READ_ERRORS.

    Raises: error, where it is the system's and no fault of the picture.
    """
    if files.may_pass(error):
        raise error
    return f"the file can't be read ({reason(error)})", files.remedy(error, COPY_AGAIN)


def fill(rows: Rows, parts: Iterable[Sequence[Seen]]) -> list[Lenience]:
    """Puts into the rows what was seen. Returns: what was taken leniently of the pictures' files, each kind once."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    start = 0
    for part in parts:
        rows.fill(start, part)
        for at, one in enumerate(part, start):
            for note in one.notes:
                first.setdefault(note, rows.ids[at])
                counts[note] += 1
        start += len(part)
    return [Lenience(kind=note, count=count, example=first[note]) for note, count in counts.items()]
