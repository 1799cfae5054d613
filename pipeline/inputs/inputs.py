"""The one place where pictures, and what tells their labels, become validated rows."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from unicodedata import category, normalize

import numpy as np

from pipeline.inputs import files
from pipeline.inputs.classes import (
    AIDEA_CLASSES,
    CLASSES,
    Classes,
    Labels,
    label_rows,
    read_classes,
    sorted_classes,
)
from pipeline.inputs.files import READ_ERRORS, reason
from pipeline.inputs.layouts import (
    Container,
    Kind,
    Layout,
    Split,
    find_labelled,
    find_layout,
    has_test,
    inner_folder,
    inner_set,
    is_split,
    read_listing,
)
from pipeline.inputs.locate import INVISIBLE
from pipeline.inputs.place import named_twice, no_picture, place, repeated_row, some, told_of
from pipeline.inputs.rows import Row, Rows, Seen
from pipeline.inputs.tables import LISTED, Table, TableRow, once, read_table
from pipeline.store import THREADS, is_remote
from tfrecords.artifacts.files import hash_json_rows
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse
from tfrecords.pictures.errors import COPY_AGAIN, PictureError
from tfrecords.pictures.formats import inspect
from tfrecords.progress import Progress, silent
from tfrecords.records.schema import UNLABELLED
from tfrecords.settings import LEAST_FOLDS

HASHED_AT_ONCE = 64  # pictures that a thread takes: a task for each would cost more memory than all the rows
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
READ_AT_ONCE = 4  # of a store, which many threads read
Look = Callable[[Rows, str, Progress], Iterator[Sequence[Seen]]]  # what `look_here` is


@dataclass(frozen=True)
class Inputs:
    """All that a split holds, checked.

    csv: what names the pictures: a CSV, or the container where there is none; container: folder or zip of the pictures;
    leniences: what of it was taken although it is not written as it should be.
    """

    split: Split
    csv: str
    container: str
    classes: tuple[str, ...]
    rows: Rows
    leniences: tuple[Lenience, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Hash of what a dataset is made from: rows of the CSV in their order, picture contents, class names."""
        rows = (
            zip(part.ids, part.lines.tolist(), part.labels.tolist(), part.hexes(), strict=True)
            for part in self.rows.parts()
        )
        return hash_json_rows([self.split, self.classes], rows)


def look_here(rows: Rows, container: str, progress: Progress) -> Iterator[Sequence[Seen]]:
    """Reads every picture once, on this machine. Yields: what was seen of the rows, in their order, some at a time."""
    # Local files are as fast as the cores; from elsewhere most of the time is spent waiting.
    threads, at_once = (THREADS, READ_AT_ONCE) if is_remote(container) else (os.cpu_count() or 1, HASHED_AT_ONCE)
    starts = range(0, len(rows), at_once)
    progress(0, len(rows), "hashed")
    with files.opened(container) as read, ThreadPoolExecutor(threads) as pool:
        done = 0
        for part in pool.map(lambda at: [see(row, read) for row in rows[at : at + at_once]], starts):
            yield part
            done += len(part)
            progress(done, len(rows), "hashed")


def read_inputs(
    data: str,
    split: Split,
    folds: int,
    progress: Progress = silent,
    classes: Sequence[str] | None = None,
    look: Look = look_here,
    labelled: bool = False,
) -> Inputs:
    """Reads and checks one split of a set of pictures, and hashes every picture.

    Args:
        data: folder or zip, in any layout of `pipeline.inputs.layouts`; classes.txt in it names the classes.
        folds: for "train": how many pictures a class must have at least.
        progress: counts the pictures hashed.
        look: what reads the pictures, here or elsewhere.
        classes: for "test": those of the model that is to answer; classes.txt may not name others.
        labelled: for "test": whether to read its labels too, or those of the training set where nothing else is there.

    Raises:
        AoiError: everything that is wrong with the folder, the CSV or its ids, told at once. A picture with
            damaged bytes is no error here: its row says so in `reject`.
    """
    found = _checked(data, split, folds, classes, labelled)
    noted = _filled(found.rows, look(found.rows, found.container, progress))
    return Inputs(split, found.csv, found.container, found.classes, found.rows, (*found.leniences, *noted))


def check_inputs(data: str, split: Split, folds: int) -> tuple[str, ...]:
    """All that `read_inputs` refuses, without opening a picture. Returns: the classes. Raises: AoiError."""
    return _checked(data, split, folds, None, False).classes


@dataclass(frozen=True)
class _Located:
    """A split whose pictures are found and not yet read; `Inputs` says what its fields are."""

    csv: str
    container: str
    classes: tuple[str, ...]
    rows: Rows
    leniences: tuple[Lenience, ...]


def _checked(data: str, split: Split, folds: int, classes: Sequence[str] | None, labelled: bool) -> _Located:
    own_split: Split = "train" if labelled and not has_test(data) else split
    given, data = data, inner_set(data, own_split)
    layout = (find_labelled if labelled else find_layout)(data, own_split)
    known = read_classes(data, *(each.path for each in layout.containers if layout.kind == Kind.CLASSES), given)
    own = known
    if split == "test":
        known = _of_lot(data, known, classes)
    read = _by_csv if layout.kind == Kind.CSV else _by_folder
    # Labels that are numbers count in the order of the lot's own classes.txt, where it has one.
    found = read(layout, own_split, (own or known) if labelled else known, labelled or split == "train")
    if labelled and known and found.classes != known.names:
        of_model = np.array([known.names.index(name) for name in found.classes])
        found.rows.labels[:] = of_model[found.rows.labels]
        found = replace(found, classes=known.names)
    if split == "train" and (problems := _too_few(found, folds, bool(known))):
        raise AoiError(problems)
    return replace(found, leniences=(*_around(given, data, layout), *found.leniences))


def _around(given: str, data: str, layout: Layout) -> Iterator[Lenience]:
    """What is taken leniently of where the set and its CSV lie. given: what a person named; data: the set in it."""
    if data != given:
        yield Lenience(kind="a folder around the set", count=1, example=os.path.basename(data))
    own = layout.kind != Kind.CSV or files.is_remote(data) or os.path.samefile(os.path.dirname(layout.table), data)
    if not own:
        yield Lenience(kind="a CSV in the folder of the pictures", count=1, example=os.path.relpath(layout.table, data))


def _of_lot(data: str, known: Classes | None, classes: Sequence[str] | None) -> Classes:
    """The classes of a split without labels: those that are given count, and classes.txt may not name others."""
    if classes is None:
        return known or Classes(AIDEA_CLASSES)
    if known and set(known.names) != set(classes):
        seen = f"its classes are {', '.join(known.names)}; the model's are {', '.join(classes)}"
        remedy = f"Name a model that was trained on these classes; a lot that is the model's needs no {CLASSES}"
        raise refuse(files.join(data, CLASSES), seen, remedy)
    return Classes(tuple(classes), listed=False)


# --- Pictures without a CSV ---------------------------------------------------------------------------------


def _by_folder(layout: Layout, split: Split, known: Classes | None, labelled: bool) -> _Located:
    """All pictures of a folder or zip, sorted by ID; where they are labelled with the labels that their folders give.

    Raises: AoiError.
    """
    (container,) = layout.containers
    listing = read_listing(layout, container)
    leniences = list(known.leniences) if known else []
    spelled = [(each.spellings[0], each.name) for each in listing.pictures if not each.hidden]
    names = [name for name, _ in spelled]
    prefix = inner_folder(names, container.path, least=layout.kind == Kind.CLASSES)
    if prefix:
        leniences.append(Lenience(kind="a folder around all pictures, taken off", count=len(names), example=prefix))
    leniences += told_of(listing, 0, container, set())
    found = sorted((spelling.removeprefix(prefix), name) for spelling, name in spelled)
    problems = [no_picture(container, listing)] if not found else []
    problems += _bad_names(container, found)
    if problems:
        raise AoiError(problems)
    label_of: dict[str, int] = {}
    if layout.kind == Kind.CLASSES:
        known, label_of, told = _folder_labels(container.path, [name for name, _ in found], known)
        leniences += told
    ids = [picture_id for picture_id, _ in found]
    labels = [label_of[each.partition("/")[0]] if label_of else UNLABELLED for each in ids]
    rows = Rows.unread(ids, range(1, len(ids) + 1), labels, (name for _, name in found))
    assert known is not None
    return _Located(container.path, container.path, known.names, rows, tuple(leniences))


def _bad_names(container: Container, found: Sequence[tuple[str, str]]) -> list[Problem]:
    """Problems of pictures whose names can be no ID. found: (ID, name as stored), sorted."""
    problems = []
    for (picture_id, name), before in zip(found, [("", ""), *found], strict=False):
        if wrong := _bad_id(container.path, None, picture_id):
            problems.append(replace(wrong, file=files.join(container.path, name)))
        elif picture_id == before[0]:
            problems.append(named_twice(container, name))
    return list(once(problems))


def _folder_labels(
    container: str, ids: Sequence[str], known: Classes | None
) -> tuple[Classes, dict[str, int], tuple[Lenience, ...]]:
    """The classes that folders tell, the label of each folder, and how its name was read. Raises: AoiError."""
    if outside := [each for each in ids if "/" not in each]:
        seen = f"{len(outside):,} picture(s) lie in no folder of a class, such as {some(outside)}"
        raise refuse(container, seen, "Put each picture into the folder of its class, or write train.csv")
    folders = sorted({each.partition("/")[0] for each in ids})
    if sets := [each for each in folders if is_split(each)]:
        seen = f"it holds {' and '.join(sets)}, which are no classes"
        raise refuse(container, seen, "Name the folder that holds them; where it is a zip, unpack it first")
    if known is None:
        classes = sorted_classes(container, map(_class_name, folders))
        return classes, {each: classes.names.index(_class_name(each)) for each in folders}, classes.leniences
    labels = label_rows(container, [TableRow(0, each, each) for each in folders], known)
    problems = [
        Problem(
            files.join(container, each),
            f"this folder has the name of no class ({', '.join(known.names)[:120]})",
            f"Rename it, move it away, or add the class to {CLASSES}"
            if known.listed
            else "Rename it, move it away, or name a model that knows this class",
        )
        for each, number in zip(folders, labels.numbers, strict=True)
        if number is None
    ]
    if problems:
        raise AoiError(problems)
    of = {each: number for each, number in zip(folders, labels.numbers, strict=True) if number is not None}
    names_alone = [each for each in folders if each in known.names]
    told = () if len(names_alone) == len(folders) else labels.leniences
    return known, of, told


def _class_name(folder: str) -> str:
    return normalize("NFC", folder).strip()


# --- Pictures that a CSV names ------------------------------------------------------------------------------


def _by_csv(layout: Layout, split: Split, known: Classes | None, labelled: bool) -> _Located:
    """The rows of a CSV, each with its picture and, where they are labelled, its label. Raises: AoiError."""
    table = read_table(layout.table, labelled)
    try:
        rows, unusable, problems = _good_rows(layout.table, table)
        if problems and not rows:
            raise AoiError(problems)
        labels = label_rows(layout.table, rows, known) if labelled else _no_labels(rows, known)
        placed = place(layout, split, rows, unusable)
        # A row without a picture is told as that alone: it may be no row at all.
        label_problems = once(each for each in labels.problems if each.row not in placed.missing)
        problems = sorted([*problems, *label_problems, *placed.problems], key=lambda it: (it.row is None, it.row or 0))
        if problems:
            raise AoiError(problems)
    except AoiError:
        if table.guessed:
            raise AoiError([table.guessed])
        raise
    numbers = (UNLABELLED if number is None else number for number in labels.numbers)
    ids, names = ([picture[place] for picture in placed.pictures] for place in (0, 1))
    located = Rows.unread(ids, (row.line for row in rows), numbers, names)
    leniences = (*table.leniences, *labels.leniences, *placed.leniences)
    return _Located(layout.table, placed.container, labels.classes.names, located, leniences)


def _no_labels(rows: Sequence[TableRow], known: Classes | None) -> Labels:
    assert known is not None
    return Labels(known, (None,) * len(rows), known.leniences, ())


def _good_rows(path: str, table: Table) -> tuple[list[TableRow], list[str], list[Problem]]:
    """Rows whose IDs may be those of pictures, the IDs of the others, and a problem for each of these."""
    rows: list[TableRow] = []
    unusable = list(table.named)
    problems = []
    first_seen: dict[str, int] = {}
    for row in table.rows:
        problem = _bad_id(path, row.line, row.id)
        if not problem and row.id in first_seen:
            problem = repeated_row(path, row, first_seen[row.id])
        if problem:
            problems.append(problem)
            unusable.append(row.id)
            continue
        first_seen[row.id] = row.line
        rows.append(row)
    return rows, unusable, [*table.problems, *once(problems)]


def _bad_id(path: str, line: int | None, picture_id: str) -> Problem | None:
    if not picture_id.strip(INVISIBLE):
        return Problem(path, "the ID is blank", "Name the picture by its file, or take the row out", line)
    parts = picture_id.replace("\\", "/").split("/")
    if not parts[0].strip() or ".." in parts or "://" in picture_id or DRIVE.match(picture_id):
        seen = f"the ID {picture_id[:80]!r} leaves the folder of the pictures"
        remedy = "Name the picture by its file, as it lies in that folder: a.png or part/a.png"
        return Problem(path, seen, remedy, line)
    if picture_id.isprintable():
        return None
    if any("\ud800" <= c <= "\udfff" for c in picture_id):
        seen = f"the name {picture_id[:80]!r} is in no encoding that is known"
        return Problem(path, seen, "Rename the file", line)
    if any(not c.isprintable() and category(c) != "Zs" for c in picture_id.strip(INVISIBLE)):
        seen = f"the ID {picture_id[:80]!r} holds a control character"
        return Problem(path, seen, "Name the picture by its file, after renaming one that has such a name", line)
    return None


def _too_few(found: _Located, folds: int, listed: bool) -> list[Problem]:
    """Problems of classes with fewer pictures than folds. listed: whether classes.txt names the classes."""
    counts = Counter(found.rows.labels.tolist())
    problems = []
    for label, name in enumerate(found.classes):
        if not counts[label]:
            remedy = f"Add pictures of it, or take its line out of {CLASSES} and number the labels anew"
            problems.append(Problem(found.csv, f"no picture of class {label} ({name})", remedy))
        elif counts[label] < folds:
            seen = f"{counts[label]} picture(s) of class {label} ({name}), fewer than the {folds} folds"
            remedy = f"Add pictures of it: every class needs one per fold, {LEAST_FOLDS} or more"
            if counts[label] >= LEAST_FOLDS:
                remedy = f"Add pictures of it, or set ingest.folds to {counts[label]} or less"
            if not listed:
                remedy += f"; if it is no class, see the labels, or write {CLASSES}"
            problems.append(Problem(found.csv, seen, remedy))
    if len(problems) > LISTED:
        seen = f"{len(problems):,} of {len(found.classes):,} classes have fewer pictures than the {folds} folds"
        return [Problem(found.csv, f"{seen}: {problems[0].seen}", "See whether the labels are the classes")]
    return problems


def _filled(rows: Rows, parts: Iterable[Sequence[Seen]]) -> Iterator[Lenience]:
    """Puts into the rows what was seen. Yields: what was taken leniently of the pictures' files, each kind once."""
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
    for note, count in counts.items():
        yield Lenience(kind=note, count=count, example=first[note])


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
