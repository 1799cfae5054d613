"""One look at a file: whether it is whole, and what is answered about it. Looks run side by side."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic

from flows.champion import Served
from flows.watch.inbox import Signature, signature_of
from flows.watch.outbox import OWN, Outbox, Row
from model.inference.answers import columns, row, unreadable_row
from pipeline.inputs import files
from tfrecords.errors import printable
from tfrecords.pictures.errors import PictureError

QUIET_SECONDS = 5.0  # unchanged for so long, a file that does not decode is told as unreadable
RESERVED_SECONDS = 1.0  # unchanged for so long, a file that ends in zeros is taken to be whole
RESERVED = bytes(16)


@dataclass(frozen=True)
class Look:
    """What a look at a file found.

    read: the signature of what was read, None: the file is gone; sha256: of it, "" where it could not be read; row: to
    be added; decision: what its row or an earlier one says, None: there is no row; wait: how long it must be unchanged
    to be looked at again, None: it need not be; problem: to be told.
    """

    name: str
    read: Signature | None
    sha256: str = ""
    row: Row | None = None
    decision: str | None = None
    wait: float | None = None
    problem: str = ""


class Looks:
    """Looks at files of the INBOX. served: gives the model that answers now."""

    def __init__(self, inbox: Path, outbox: Outbox, served: Callable[[], Served], unreadable_label: int):
        self._inbox, self._outbox, self._served = inbox, outbox, served
        self._label, self._turns = unreadable_label, count()

    def look(self, name: str, known: Signature, since: float) -> Look:
        """One look. known, since: the signature that was seen last, and when it was first seen."""
        began = monotonic()
        try:
            with open(self._inbox / name, "rb") as file:
                read = signature_of(os.fstat(file.fileno()))
                quiet = began - since if read == known else 0.0
                is_large = read[0] > files.MAX_BYTES
                if is_large and quiet < QUIET_SECONDS:  # it would be read at every change, for seconds
                    return Look(name, read, wait=QUIET_SECONDS)
                data = b"" if is_large else file.read()
                sha256 = (hashlib.file_digest(file, "sha256") if is_large else hashlib.sha256(data)).hexdigest()
                if signature_of(os.fstat(file.fileno())) != read:
                    return Look(name, read, wait=0)
        except FileNotFoundError:
            return Look(name, None)
        except OSError as error:  # rights, or a share that is away: either may come back
            wait = began - since + QUIET_SECONDS
            return Look(name, known, wait=wait, problem=f"it can't be read ({error.strerror}); it is tried again")
        id = printable(name)
        decided = self._outbox.decided(id, sha256)
        if decided is not None:
            return Look(name, read, sha256, decision=decided)
        # Some programs, such as Windows on network shares, reserve the space before the bytes come.
        if quiet < RESERVED_SECONDS and data.endswith(RESERVED):
            return Look(name, read, sha256, wait=RESERVED_SECONDS)
        served = self._served()
        classes, problem = served.answering.classifier.classes, ""
        try:
            files.refuse_large(read[0])
            values = row(id, served.answering.answer(data, next(self._turns)))
        except PictureError as error:
            if quiet < QUIET_SECONDS:
                return Look(name, read, sha256, wait=QUIET_SECONDS)
            values = unreadable_row(id, min(self._label, len(classes) - 1), classes)
            problem = f"{error}. {error.remedy_alone}"
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        made = Row((*columns(classes), *OWN), (*values, sha256, time))
        return Look(name, read, sha256, made, made.decision, problem=problem)
