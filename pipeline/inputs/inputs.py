"""The one place where a CSV and a heap of pictures become validated rows."""

import csv
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal
from unicodedata import category

from pipeline.inputs import files
from pipeline.inputs.files import READ_ERRORS, reason
from tfrecords.artifacts.files import hash_json
from tfrecords.errors import AoiError, Problem, refuse, sentence
from tfrecords.lettering import as_seen
from tfrecords.pictures.errors import COPY_AGAIN, PictureError
from tfrecords.pictures.formats import inspect
from tfrecords.progress import Progress, silent
from tfrecords.records.schema import UNLABELLED
from tfrecords.settings import LEAST_FOLDS

AIDEA_CLASSES = ("normal", "void", "horizontal", "vertical", "edge_defect", "particle")
CLASSES = "classes.txt"
COLUMNS = ("ID", "Label")
# Columns of predictions.csv and review.csv, in which each class has one of its own.
RESERVED_NAMES = {"ID", "label", "name", "decision", "status", "confidence", "novelty", "true_label", "true_name"}
LONGEST_NAME = 1000  # letters; a CSV field has an end too
JOINERS = "\u200c\u200d"  # print nothing, and are letters of Persian and Hindi words
ASSUMED = f"there is no {CLASSES}, so AIdea's six classes are assumed"
NAME_CLASSES = f"Write {CLASSES} with the names of your classes, one per line in label order"
QUOTES = "Check the quotes from this row on: a field that begins with one ends with one, and one inside is doubled"
HASHED_AT_ONCE = 64  # pictures that a thread takes: a task for each would cost more memory than all the rows
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Reject:
    """A picture that can't be used, as rejects.csv has it. row: its line in the CSV; remedy: what helps."""

    id: str
    row: int
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Row:
    """A picture that the CSV names. row: its line there; name: where it lies in the folder or zip.

    sha256: 32 bytes, half of what they take as text; none where the file can't be read. bits: per sample, as the file
    declares; notes: what was taken leniently of it, see `Declared`.
    """

    id: str
    row: int
    label: int
    name: str
    sha256: bytes = b""
    reject: Reject | None = None  # of a picture that can't be used, found without decoding it
    bits: int = 8
    notes: tuple[str, ...] = ()

    def rejected(self, reason: str, remedy: str = COPY_AGAIN) -> Reject:
        return Reject(self.id, self.row, reason, remedy)


@dataclass(frozen=True)
class Inputs:
    """All that a split holds, checked. container: folder or zip of the pictures."""

    split: Split
    csv: str
    container: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]

    @cached_property
    def digest(self) -> str:
        """Hash of what a dataset is made from: rows of the CSV in their order, picture contents, class names."""
        rows = [(row.id, row.row, row.label, row.sha256.hex()) for row in self.rows]
        return hash_json([self.split, self.classes, rows])


def read_inputs(data: str, split: Split, folds: int, progress: Progress = silent) -> Inputs:
    """Reads and checks one split of AIdea's layout, and hashes every picture.

    Args:
        data: folder with classes.txt (optional), SPLIT.csv, and SPLIT_images/ or SPLIT_images.zip. The folder
            wins where there are both.
        folds: for "train": how many pictures a class must have at least.
        progress: counts the pictures hashed.

    Raises:
        AoiError: everything that is wrong with the folder, the CSV or its ids, told at once. A picture with
            damaged bytes is no error here: its row says so in `reject`.
    """
    found = _checked(data, split, folds)
    _hash(found.rows, found.container, progress)
    return Inputs(split, found.csv, found.container, found.classes, tuple(found.rows))


def check_inputs(data: str, split: Split, folds: int) -> None:
    """All that `read_inputs` refuses, without opening a picture. Raises: AoiError."""
    _checked(data, split, folds)


@dataclass(frozen=True)
class _Located:
    """A split whose pictures are found and not yet read; `Inputs` says what its fields are."""

    csv: str
    container: str
    classes: tuple[str, ...]
    rows: list[Row]


def _checked(data: str, split: Split, folds: int) -> _Located:
    if not files.exists(data):
        raise refuse(data, "there is no such folder", "Name the folder that holds train.csv and the pictures")
    table = files.join(data, f"{split}.csv")
    container = _container(data, split)
    classes = read_classes(data)
    assumed = not files.exists(files.join(data, CLASSES))
    rows, named, problems = _parse(table, classes, split == "train", assumed)
    rows, unmatched = _locate(rows, named, table, container, split)
    problems += unmatched
    if split == "train" and not problems:
        problems = _too_few(rows, table, classes, folds, assumed)
    if problems:
        raise AoiError(problems)
    return _Located(table, container, classes, rows)


def read_classes(data: str) -> tuple[str, ...]:
    """Class names in label order: the lines of classes.txt without blanks around them, or AIdea's six.

    Any printable name will do that is no column of predictions.csv and looks like no other one.

    Raises: AoiError, with every line that is no such name.
    """
    path = files.join(data, CLASSES)
    if not files.exists(path):
        return AIDEA_CLASSES
    lines = [line.strip() for line in io.StringIO(_text(path), newline=None)]
    named = [(row, name) for row, name in enumerate(lines, 1) if name]
    problems: list[Problem] = []
    rows: dict[str, tuple[int, str]] = {}
    for row, name in named:
        if wrong := _bad_name(name) or _repeated(name, rows):
            problems.append(Problem(path, *wrong, row))
        rows.setdefault(_look(name), (row, name))
    if len(named) < 2:
        problems.append(
            Problem(path, f"{len(named)} class name(s)", "Write at least two, one per line, in label order")
        )
    if problems:
        raise AoiError(problems)
    return tuple(name for _, name in named)


def _bad_name(name: str) -> tuple[str, str] | None:
    """What is wrong with a class name by itself, and what to do; None where it is fine."""
    if name in RESERVED_NAMES:
        return f"{name!r} is a column of predictions.csv already", "Choose another name"
    if len(name) > LONGEST_NAME:
        return f"a name of {len(name):,} letters", f"Write at most {LONGEST_NAME:,}"
    if unprintable := [c for c in name if not c.isprintable() and c not in JOINERS and category(c) != "Zs"]:
        return f"the name {name[:80]!r} holds U+{ord(unprintable[0]):04X}, which does not print", "Take it out"
    return None if _look(name) else (f"the name {name!r} has nothing that prints", "Write a name")


def _repeated(name: str, rows: Mapping[str, tuple[int, str]]) -> tuple[str, str] | None:
    """Says so where a line before has this name, or one that looks the same."""
    if not (known := rows.get(_look(name))):
        return None
    row, other = known
    if name == other:
        return f"the name {name[:80]!r} stands there twice, in row {row} too", "Give each class a name of its own"
    return f"the name {name[:80]!r} looks like that of row {row}, {other[:80]!r}", "Give each class a name of its own"


def _look(name: str) -> str:
    """What a reader sees of a name."""
    return " ".join(as_seen(name).split())


def _container(data: str, split: Split) -> str:
    folder, archive = (files.join(data, f"{split}_images{suffix}") for suffix in ("", ".zip"))
    for path in (folder, archive):
        if files.exists(path):
            return path
    raise refuse(folder, f"neither this folder nor {split}_images.zip is there", "Put the pictures into one of the two")


def _text(path: str) -> str:
    try:
        data = files.read_bytes(path)
    except FileNotFoundError:
        raise refuse(path, "there is no such file", "Put it beside the pictures, with the columns ID,Label")
    except OSError as error:
        seen = f"it can't be read ({error.strerror or error})"
        raise refuse(path, seen, "Put a text file there that this account may read")
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        raise refuse(path, "it begins with a byte order mark", "Save it as plain UTF-8 without a BOM")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise refuse(path, f"byte {error.start} is not UTF-8", "Save it as plain UTF-8", row)
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise refuse(path, "it holds a NUL character", "Save it as plain UTF-8 text", row)
    return text


def _parse(
    table: str, classes: Sequence[str], labelled: bool, assumed: bool
) -> tuple[list[Row], set[str], list[Problem]]:
    """Rows of the CSV, every id that a line names, and a problem for every line that fails.

    A row whose label alone is wrong is there too, without a label, so that its picture is looked for. assumed: the
    classes are AIdea's, since there is no classes.txt.
    """
    reader = csv.reader(io.StringIO(_text(table), newline=""), strict=True)
    rows: list[Row] = []
    named: set[str] = set()
    problems: list[Problem] = []
    first_seen: dict[str, int] = {}
    line = 0
    try:
        header = next(reader, [])
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            seen = f"the header is {','.join(header)[:80]!r}, without {' and '.join(missing)}"
            raise refuse(table, seen, "Begin it with the line ID,Label", 1)
        id_at, label_at = (header.index(column) for column in COLUMNS)
        line = reader.line_num
        for cells in reader:
            line = reader.line_num
            if not cells:
                continue
            named.update(cells[id_at : id_at + 1])
            if len(cells) != len(header):
                seen = f"{len(cells)} fields, and the header has {len(header)}"
                problems.append(Problem(table, seen, f"Write {len(header)}", line))
                continue
            picture_id, label = cells[id_at], cells[label_at]
            problem = _bad_id(table, line, picture_id)
            if not problem and picture_id in first_seen:
                seen = f"{picture_id} stands in row {first_seen[picture_id]} already"
                problem = Problem(table, seen, "Name each picture once: take one of the two rows out", line)
            if problem:
                problems.append(problem)
                continue
            first_seen[picture_id] = line
            number = _label(label, len(classes)) if labelled else UNLABELLED
            if number is None:
                problems.append(_bad_label(table, line, picture_id, label, classes, assumed))
            rows.append(Row(picture_id, line, UNLABELLED if number is None else number, picture_id))
    except csv.Error as error:
        # What follows is unread, so nothing can be said about its pictures.
        problems.append(Problem(table, f"not readable as CSV ({error})", QUOTES, line + 1))
        raise AoiError(problems)
    if not rows and not problems:
        remedy = "Add a row for every picture" + ("" if labelled else "; where there are none, take this file away")
        problems.append(Problem(table, "no row below the header", remedy))
    return rows, named, problems


def _bad_id(table: str, line: int, picture_id: str) -> Problem | None:
    if not picture_id.strip():
        return Problem(table, "the ID is blank", "Name the picture by its file, or take the row out", line)
    if picture_id.startswith("/") or ".." in picture_id.split("/") or "\\" in picture_id or ":" in picture_id:
        seen = f"the ID {picture_id[:80]!r} leaves the folder of the pictures"
        remedy = "Name the picture by its file, as it lies in that folder: a.png or part/a.png"
        return Problem(table, seen, remedy, line)
    if not picture_id.isprintable():
        seen = f"the ID {picture_id[:80]!r} holds a control character"
        return Problem(table, seen, "Name the picture by its file, after renaming one that has such a name", line)
    return None


def _label(text: str, classes: int) -> int | None:
    text = text.strip(" \t")
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < classes:
        return int(text)
    return None


def _bad_label(table: str, line: int, picture_id: str, label: str, classes: Sequence[str], assumed: bool) -> Problem:
    seen = f"{picture_id} has no label"
    remedy = f"Write a whole number from 0 to {len(classes) - 1} ({', '.join(classes)[:120]})"
    if label.strip():
        seen = f"the label {label[:40]!r} of {picture_id} is none of the classes"
        if assumed:
            seen, remedy = f"{seen}; {ASSUMED}", f"{NAME_CLASSES}, or w{remedy[1:]}"
    return Problem(table, seen, remedy, line)


def _locate(
    rows: list[Row], named: set[str], table: str, container: str, split: Split
) -> tuple[list[Row], list[Problem]]:
    """Finds every row's picture; rows without one and pictures without a row are problems."""
    try:
        names = files.list_pictures(container)
    except READ_ERRORS as error:
        remedy = files.remedy(error, "copy or download it again")
        raise refuse(container, f"it can't be read ({reason(error)})", sentence(remedy))
    prefix = f"{split}_images/" if files.is_zip(container) else ""
    name_of: dict[str, str] = {}
    problems = []
    for name in names:
        picture_id = name.removeprefix(prefix)
        if picture_id in name_of:
            remedy = "Pack the zip again with one of the two"
            problems.append(Problem(f"{container}/{name}", "the zip holds this name twice", remedy))
        name_of[picture_id] = name
    located = []
    for row in rows:
        if row.id in name_of:
            name = name_of.pop(row.id)
            located.append(row if name == row.name else replace(row, name=name))
        else:
            remedy = f"Put the picture into {container} or take the row out"
            problems.append(Problem(table, f"no picture {row.id}", remedy, row.row))
    remedy = f"Add a row for it to {os.path.basename(table)} or take the picture out"
    problems += [
        Problem(files.join(container, name), "no row names this picture", remedy)
        for picture_id, name in name_of.items()
        if picture_id not in named
    ]
    return located, problems


def _too_few(rows: list[Row], table: str, classes: Sequence[str], folds: int, assumed: bool) -> list[Problem]:
    counts = Counter(row.label for row in rows)
    problems = []
    for label, name in enumerate(classes):
        if not counts[label]:
            seen = f"no picture of class {label} ({name})"
            remedy = f"Add pictures of it, or take its line out of {CLASSES} and number the labels anew"
            if assumed:
                seen, remedy = f"{seen}; {ASSUMED}", f"{NAME_CLASSES}, or add pictures of it"
            problems.append(Problem(table, seen, remedy))
        elif counts[label] < folds:
            seen = f"{counts[label]} picture(s) of class {label} ({name}), fewer than the {folds} folds"
            remedy = f"Add pictures of it: every class needs one per fold, {LEAST_FOLDS} or more"
            if counts[label] >= LEAST_FOLDS:
                remedy = f"Add pictures of it, or set ingest.folds to {counts[label]} or less"
            problems.append(Problem(table, seen, remedy))
    return problems


def _hash(rows: list[Row], container: str, progress: Progress) -> None:
    """Reads every picture once; puts its hash, and what is wrong with its frame, into its row."""
    starts = range(0, len(rows), HASHED_AT_ONCE)
    progress(0, len(rows), "hashed")
    # Local files are as fast as the cores; from elsewhere most of the time is spent waiting.
    threads = 32 if files.is_remote(container) else os.cpu_count() or 1
    with files.opened(container) as read, ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda at: [_hashed(row, read) for row in rows[at : at + HASHED_AT_ONCE]], starts)
        for at, part in zip(starts, parts, strict=True):
            rows[at : at + HASHED_AT_ONCE] = part
            progress(at + len(part), len(rows), "hashed")


def _hashed(row: Row, read: Callable[[str], bytes]) -> Row:
    try:
        data = read(row.name)
    except READ_ERRORS as error:
        return replace(row, reject=row.rejected(*unreadable(error)))
    sha256 = hashlib.sha256(data).digest()
    try:
        declared = inspect(data)
    except PictureError as error:
        return replace(row, sha256=sha256, reject=row.rejected(str(error), error.remedy))
    return replace(row, sha256=sha256, bits=declared.bits, notes=declared.notes)


def unreadable(error: Exception) -> tuple[str, str]:
    """Reason and remedy of a picture whose file can't be read. error: one of READ_ERRORS."""
    return f"the file can't be read ({reason(error)})", files.remedy(error, COPY_AGAIN)


def duplicates(rows: Sequence[Row]) -> list[list[str]]:
    """Groups of ids whose files are byte-identical, sorted."""
    counts = Counter(row.sha256 for row in rows if row.sha256)
    groups: dict[bytes, list[str]] = defaultdict(list)
    for row in rows:
        if counts[row.sha256] > 1:
            groups[row.sha256].append(row.id)
    return sorted(map(sorted, groups.values()))
