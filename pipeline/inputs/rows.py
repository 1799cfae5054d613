"""The rows of a split, kept as columns: of a million, objects would take several times the memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, overload

import numpy as np

from tfrecords.pictures.errors import COPY_AGAIN

AT_ONCE = 1 << 14  # rows that are objects at a time, where all are gone through
HASH_BYTES = 32
NO_HASH = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True)
class Reject:
    """A picture that can't be used, as rejects.csv has it. row: its line in the CSV; remedy: what helps."""

    id: str
    row: int
    reason: str
    remedy: str


class Row(NamedTuple):
    """A picture that the CSV names. row: its line there; name: where it lies in the folder or zip.

    sha256: 32 bytes, half of what they take as text; none where the file can't be read. bits: per sample, as the file
    declares.
    """

    id: str
    row: int
    label: int
    name: str
    sha256: bytes = b""
    reject: Reject | None = None  # of a picture that can't be used, found without decoding it
    bits: int = 8

    def rejected(self, reason: str, remedy: str = COPY_AGAIN) -> Reject:
        """The row's picture as one that can't be used."""
        return Reject(self.id, self.row, reason, remedy)


class Seen(NamedTuple):
    """What reading a picture's file tells for its row, see `Row`; notes: what was taken leniently, see `Declared`."""

    sha256: bytes = b""
    bits: int = 8
    reject: Reject | None = None
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Rows(Sequence[Row]):
    """Rows by their columns.

    ids, names: of each row; lines, labels: int64 (n,); sha256: V32 (n,), zeros where there is none; bits: uint8 (n,);
    rejects: by the place of the row.
    """

    ids: list[str]
    lines: np.ndarray
    labels: np.ndarray
    names: list[str]
    sha256: np.ndarray
    bits: np.ndarray
    rejects: dict[int, Reject]

    @staticmethod
    def unread(ids: Iterable[str], lines: Iterable[int], labels: Iterable[int], names: Iterable[str]) -> "Rows":
        """Rows of pictures that nobody has read yet."""
        ids = list(ids)
        # Most names are their IDs: one object then is both.
        names = [picture_id if name == picture_id else name for picture_id, name in zip(ids, names, strict=True)]
        line, label = (np.fromiter(column, np.int64, len(ids)) for column in (lines, labels))
        return Rows(ids, line, label, names, np.zeros(len(ids), "V32"), np.full(len(ids), 8, np.uint8), {})

    @staticmethod
    def of(rows: Sequence[Row]) -> "Rows":
        """The same rows by their columns."""
        columns = ([getattr(row, field) for row in rows] for field in ("id", "row", "label", "name"))
        made = Rows.unread(*columns)
        made.fill(0, [Seen(row.sha256, row.bits, row.reject) for row in rows])
        return made

    def fill(self, start: int, seen: Sequence[Seen]) -> None:
        """Notes what was seen of the pictures from a place on."""
        part = slice(start, start + len(seen))
        self.sha256[part] = np.frombuffer(b"".join(one.sha256 or NO_HASH for one in seen), "V32")
        self.bits[part] = [one.bits for one in seen]
        self.rejects.update((at, one.reject) for at, one in enumerate(seen, start) if one.reject)

    def take(self, places: np.ndarray) -> "Rows":
        """The rows at these places, in their order."""
        at = places.tolist()
        rejects = {new: self.rejects[old] for new, old in enumerate(at) if old in self.rejects} if self.rejects else {}
        ids, names = ([column[place] for place in at] for column in (self.ids, self.names))
        columns = (column[places] for column in (self.lines, self.labels, self.sha256, self.bits))
        lines, labels, sha256, bits = columns
        return Rows(ids, lines, labels, names, sha256, bits, rejects)

    def hexes(self) -> list[str]:
        """The rows' hashes as text, "" where there is none."""
        text, none = self.sha256.tobytes().hex(), NO_HASH.hex()
        parts = (text[at : at + 2 * HASH_BYTES] for at in range(0, len(text), 2 * HASH_BYTES))
        return ["" if part == none else part for part in parts]

    def plain(self) -> list[tuple]:
        """The rows as JSON can hold them, without `bits`: values in the order of the fields of `Row`."""
        rejects = (asdict(self.rejects[at]) if at in self.rejects else None for at in range(len(self)))
        columns = (self.ids, self.lines.tolist(), self.labels.tolist(), self.names, self.hexes(), rejects)
        return list(zip(*columns, strict=True))

    @staticmethod
    def from_plain(plain: Sequence[Sequence[Any]]) -> "Rows":
        """The rows that `plain` got."""
        return Rows.of(
            [
                Row(picture_id, line, label, name, bytes.fromhex(sha256), Reject(**reject) if reject else None)
                for picture_id, line, label, name, sha256, reject in plain
            ]
        )

    def parts(self) -> Iterator["Rows"]:
        """All rows in their order, some at a time."""
        for start in range(0, len(self), AT_ONCE):
            yield self[start : start + AT_ONCE]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> "Rows": ...
    def __getitem__(self, at: int | slice) -> "Row | Rows":
        places = np.arange(len(self))
        return self.take(places[at]) if isinstance(at, slice) else self._row(int(places[at]))

    def _row(self, at: int) -> Row:
        sha256 = self.sha256[at].tobytes()
        found = b"" if sha256 == NO_HASH else sha256
        numbers = int(self.lines[at]), int(self.labels[at])
        return Row(self.ids[at], *numbers, self.names[at], found, self.rejects.get(at), int(self.bits[at]))

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            data = self.sha256[part].tobytes()
            hashes = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
            rejects = map(self.rejects.get, range(start, start + AT_ONCE))
            numbers = (column[part].tolist() for column in (self.lines, self.labels))
            columns = zip(self.ids[part], *numbers, self.names[part], hashes, self.bits[part].tolist(), strict=True)
            for (picture_id, line, label, name, sha256, bits), reject in zip(columns, rejects, strict=False):
                yield Row(picture_id, line, label, name, b"" if sha256 == NO_HASH else sha256, reject, bits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and len(self) == len(other) and all(map(Row.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # they are filled


def duplicates(rows: Rows) -> list[list[str]]:
    """Groups of ids whose files are byte-identical, sorted."""
    begin = rows.sha256.view("u8")[:: HASH_BYTES // 8]  # 64 bits, of which few have an equal
    order = np.argsort(begin, kind="stable")
    same = np.concatenate(([False], begin[order[1:]] == begin[order[:-1]], [False]))[: len(order) + 1]
    groups: dict[bytes, list[str]] = defaultdict(list)
    for place in order[same[1:] | same[:-1]].tolist():
        groups[rows.sha256[place].tobytes()].append(rows.ids[place])
    groups.pop(NO_HASH, None)
    return sorted(sorted(ids) for ids in groups.values() if len(ids) > 1)
