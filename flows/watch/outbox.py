"""What the OUTBOX keeps: a row per picture, on the disk before anything else becomes of the picture; and the pictures.

There is no other note of what was done. So a kill at any moment leaves a picture either without a row, and it is
answered after the next start, or with one, and then all that may be left to do is to move it.
"""

import csv
import errno
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from flows.watch.inbox import Signature, signature_at
from model.inference.answers import UNREADABLE
from tfrecords.artifacts.files import hash_file, whole_lines
from tfrecords.errors import AoiError, refuse
from tfrecords.system import rename, sync

DECISIONS = "decisions.csv"
SET_ASIDE = re.compile(r"decisions-(\d+)\.csv")
OWN = ("sha256", "time")  # the columns behind those of predictions.csv
LOCK = ".watch.lock"
PART = ".moving.part"  # a picture on its way from another disk: one at a time
MOST_NAME = 255  # bytes of a file's name


@dataclass(frozen=True)
class Row:
    """A row of decisions.csv under these columns: those of predictions.csv, then OWN."""

    columns: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """What the picture is known by: its name and content."""
        return _key(self.values[0], self.values[-len(OWN)])

    @property
    def decision(self) -> str:
        """Where the picture belongs; "" for one that could not be read, and stays where it is."""
        status, decision = (self.values[self.columns.index(name)] for name in ("status", "decision"))
        return "" if status == UNREADABLE else decision


class Outbox:
    """The OUTBOX of one process. Raises: AoiError where another one has it, or its decisions.csv is none of ours."""

    def __init__(self, folder: Path):
        from filelock import FileLock, Timeout

        self.folder = folder
        self._known: dict[bytes, str] = {}
        self._columns: tuple[str, ...] = ()
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(folder / LOCK, timeout=0))
            except Timeout:
                raise refuse(folder, "another aoi watch writes there", "Use that one, end it, or name another --out")
            if (path := folder / DECISIONS).exists():
                with open(path, "r+b") as file:
                    file.truncate(whole_lines(path))  # the rest was written by a process that was killed
                self._columns = columns_of(path)
            for each in [*self._set_aside().values(), path]:
                for row in rows_of(each):
                    self._known[row.key] = row.decision
            self._closing = stack.pop_all()

    def close(self) -> None:
        """Lets another process have it."""
        self._closing.close()

    def decided(self, id: str, sha256: str) -> str | None:
        """What the row of a picture says, see `Row.decision`; None where it has none."""
        return self._known.get(_key(id, sha256))

    def add(self, rows: Sequence[Row]) -> list[Row]:
        """Adds rows, but for pictures that have one. They are on the disk when it returns. Returns: what it added.

        Raises: OSError where they can't be kept; then none of them is there.
        """
        added = {row.key: row for row in rows if row.key not in self._known}
        for columns in dict.fromkeys(row.columns for row in added.values()):
            same = [row for row in added.values() if row.columns == columns]
            self._write(columns, same)
            self._known |= {row.key: row.decision for row in same}
        return list(added.values())

    def _write(self, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
        path = self.folder / DECISIONS
        if self._columns not in ((), columns) and path.exists():  # another champion, of other classes
            rename(path, self.folder / f"decisions-{max(self._set_aside(), default=0) + 1:04d}.csv")
        with open(path, "ab", buffering=0) as file:  # opened anew, for people may take it away
            size = file.tell()
            text = io.StringIO(newline="")
            head = [] if size else [columns]
            csv.writer(text, lineterminator="\n").writerows([*head, *(row.values for row in rows)])
            try:
                left = memoryview(text.getvalue().encode())
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
        if not size:
            sync(self.folder)
        self._columns = columns

    def _set_aside(self) -> dict[int, Path]:
        """Files of decisions that nothing is added to any more, by number."""
        found = ((SET_ASIDE.fullmatch(path.name), path) for path in sorted(self.folder.iterdir()))
        return {int(match[1]): path for match, path in found if match}

    def move(self, source: Path, read: Signature, name: str, sha256: str, decision: str) -> bool:
        """Moves an answered picture into the folder of its decision, under its name; where another picture has that,
        with the beginning of its sha256 in it. read: the signature of the file that was answered.

        Returns: whether it did; False where the file has changed since, or is gone. Raises: OSError.
        """
        target = self.folder / decision / name
        if target.exists() and hash_file(target) != sha256:
            ending = f".{sha256[:16]}{target.suffix}"
            stem = os.fsencode(target.stem)[: MOST_NAME - len(os.fsencode(ending))]
            target = target.with_name(stem.decode(errors="ignore") + ending)
        target.parent.mkdir(parents=True, exist_ok=True)
        if signature_at(source) != read:
            return False
        if target.exists() and target.samefile(source):  # two names of one file, between which a rename does nothing
            source.unlink()
            return True
        try:
            rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return _move_across(source, read, target)
        return True


def _move_across(source: Path, read: Signature, target: Path) -> bool:
    """As `Outbox.move`, from one disk to another. A kill leaves both, of which the next move makes one."""
    part = target.with_name(PART)
    try:
        shutil.copy2(source, part)
        sync(part)
        if signature_at(source) != read:
            return False
        rename(part, target)
    finally:  # a part that stays would take the room of other pictures
        part.unlink(missing_ok=True)
    sync(target.parent)
    source.unlink()
    return True


def columns_of(path: Path) -> tuple[str, ...]:
    """The columns of a decisions.csv; () where it is empty. Raises: AoiError for another file."""
    with open(path, encoding="utf-8", newline="") as file:
        try:
            columns = tuple(next(csv.reader(file), ()))
        except (ValueError, csv.Error) as error:
            raise _no_decisions(path, f"it can't be read ({error})")
    if columns and (columns[-len(OWN) :] != OWN or not {"decision", "status"} <= set(columns)):
        raise _no_decisions(path, "not a table that aoi watch wrote")
    return columns


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a decisions.csv; none where there is none. Raises: AoiError for another file, or a damaged one."""
    if not path.exists():
        return
    columns = columns_of(path)
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        try:
            for values in rows:
                if len(values) != len(columns):
                    seen = f"row {rows.line_num} has {len(values)} fields in place of {len(columns)}"
                    raise _no_decisions(path, seen)
                yield Row(columns, tuple(values))
        except (ValueError, csv.Error) as error:
            raise _no_decisions(path, f"it can't be read ({error})")


def _no_decisions(path: Path, seen: str) -> AoiError:
    return refuse(path, seen, "Name another --out, or take the file away: what it tells of is then answered again")


def _key(id: str, sha256: str) -> bytes:
    """In few bytes, for there may be millions."""
    return blake2b(f"{sha256}{id}".encode(), digest_size=16).digest()
