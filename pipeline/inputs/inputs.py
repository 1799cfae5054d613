"""The one place where pictures, and what tells their labels, become validated rows."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property

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
from pipeline.inputs.files import AS_STORED, READ_ERRORS, Listing, Stored, reason
from pipeline.inputs.layouts import Container, Kind, Layout, Split, find_layout, inner_folder, read_listing
from pipeline.inputs.locate import Match, likely, match, visible
from pipeline.inputs.tables import LISTED, Table, TableRow, once, read_table
from tfrecords.artifacts.files import hash_json
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse
from tfrecords.pictures.errors import COPY_AGAIN, PictureError
from tfrecords.pictures.formats import SUFFIXES, inspect
from tfrecords.progress import Progress, silent
from tfrecords.records.schema import UNLABELLED
from tfrecords.settings import LEAST_FOLDS

HASHED_AT_ONCE = 64  # pictures that a thread takes: a task for each would cost more memory than all the rows
MANY = 1000  # pictures of one fault, of which no list helps any more
EXAMPLES = 3  # in one message
NEAR = 200  # rows and pictures that are left, up to which those of almost the same name are told together
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


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

    sha256: 32 bytes, half of what they take as text; none where the file can't be read.
    """

    id: str
    row: int
    label: int
    name: str
    sha256: bytes = b""
    reject: Reject | None = None  # of a picture that can't be used, found without decoding it

    def rejected(self, reason: str, remedy: str = COPY_AGAIN) -> Reject:
        return Reject(self.id, self.row, reason, remedy)


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
    rows: tuple[Row, ...]
    leniences: tuple[Lenience, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Hash of what a dataset is made from: rows of the CSV in their order, picture contents, class names."""
        rows = [(row.id, row.row, row.label, row.sha256.hex()) for row in self.rows]
        return hash_json([self.split, self.classes, rows])


def read_inputs(
    data: str, split: Split, folds: int, progress: Progress = silent, classes: Sequence[str] | None = None
) -> Inputs:
    """Reads and checks one split of a set of pictures, and hashes every picture.

    Args:
        data: folder or zip, in any layout of `pipeline.inputs.layouts`; classes.txt in it names the classes.
        folds: for "train": how many pictures a class must have at least.
        progress: counts the pictures hashed.
        classes: for "test": those of the model that is to answer; classes.txt may not name others.

    Raises:
        AoiError: everything that is wrong with the folder, the CSV or its ids, told at once. A picture with
            damaged bytes is no error here: its row says so in `reject`.
    """
    found = _checked(data, split, folds, classes)
    _hash(found.rows, found.container, progress)
    return Inputs(split, found.csv, found.container, found.classes, tuple(found.rows), found.leniences)


def check_inputs(data: str, split: Split, folds: int) -> tuple[str, ...]:
    """All that `read_inputs` refuses, without opening a picture. Returns: the classes. Raises: AoiError."""
    return _checked(data, split, folds, None).classes


@dataclass(frozen=True)
class _Located:
    """A split whose pictures are found and not yet read; `Inputs` says what its fields are."""

    csv: str
    container: str
    classes: tuple[str, ...]
    rows: list[Row]
    leniences: tuple[Lenience, ...]


def _checked(data: str, split: Split, folds: int, classes: Sequence[str] | None) -> _Located:
    layout = find_layout(data, split)
    known = None if files.is_zip(data) else read_classes(data)
    if split == "test":
        known = _of_lot(data, known, classes)
    read = _by_csv if layout.kind == Kind.CSV else _by_folder
    found = read(layout, split, known)
    if split == "train" and (problems := _too_few(found, folds, bool(known))):
        raise AoiError(problems)
    return found


def _of_lot(data: str, known: Classes | None, classes: Sequence[str] | None) -> Classes:
    """The classes of a split without labels: those that are given count, and classes.txt may not name others."""
    if classes is None:
        return known or Classes(AIDEA_CLASSES)
    if known and set(known.names) != set(classes):
        seen = f"its classes are {', '.join(known.names)}; the model's are {', '.join(classes)}"
        remedy = f"Name a model that was trained on these classes; a lot that is the model's needs no {CLASSES}"
        raise refuse(files.join(data, CLASSES), seen, remedy)
    return Classes(tuple(classes))


# --- Pictures without a CSV ---------------------------------------------------------------------------------


def _by_folder(layout: Layout, split: Split, known: Classes | None) -> _Located:
    """All pictures of a folder or zip, sorted by ID; for "train" with the labels that their folders give.

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
    leniences += _told_of(listing, 0, container, set())
    found = sorted((spelling.removeprefix(prefix), name) for spelling, name in spelled)
    problems = [_no_picture(container, listing)] if not found else []
    problems += _bad_names(container, found)
    if problems:
        raise AoiError(problems)
    label_of: dict[str, int] = {}
    if layout.kind == Kind.CLASSES:
        known, label_of, told = _folder_labels(container.path, [name for name, _ in found], known)
        leniences += told
    rows = [
        Row(picture_id, at, label_of[picture_id.partition("/")[0]] if label_of else UNLABELLED, name)
        for at, (picture_id, name) in enumerate(found, 1)
    ]
    assert known is not None
    return _Located(container.path, container.path, known.names, rows, tuple(leniences))


def _bad_names(container: Container, found: Sequence[tuple[str, str]]) -> list[Problem]:
    """Problems of pictures whose names can be no ID. found: (ID, name as stored), sorted."""
    problems = []
    for (picture_id, name), before in zip(found, [("", ""), *found], strict=False):
        if wrong := _bad_id(container.path, None, picture_id):
            problems.append(replace(wrong, file=files.join(container.path, name)))
        elif picture_id == before[0]:
            problems.append(_twice(container, name))
    return list(once(problems))


def _folder_labels(
    container: str, ids: Sequence[str], known: Classes | None
) -> tuple[Classes, dict[str, int], tuple[Lenience, ...]]:
    """The classes that folders tell, the label of each folder, and how its name was read. Raises: AoiError."""
    if outside := [each for each in ids if "/" not in each]:
        seen = f"{len(outside):,} picture(s) lie in no folder of a class, such as {_some(outside)}"
        raise refuse(container, seen, "Put each picture into the folder of its class, or write train.csv")
    folders = sorted({each.partition("/")[0] for each in ids})
    if known is None:
        classes = sorted_classes(container, map(_class_name, folders))
        return classes, {each: classes.names.index(_class_name(each)) for each in folders}, classes.leniences
    labels = label_rows(container, [TableRow(0, each, each) for each in folders], known)
    problems = [
        Problem(
            files.join(container, each),
            f"this folder has the name of no class ({', '.join(known.names)[:120]})",
            f"Rename it, move it away, or add the class to {CLASSES}",
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
    return folder.strip()


# --- Pictures that a CSV names ------------------------------------------------------------------------------


def _by_csv(layout: Layout, split: Split, known: Classes | None) -> _Located:
    """The rows of a CSV, each with its picture and, for "train", its label. Raises: AoiError."""
    table = read_table(layout.table, split == "train")
    try:
        rows, unusable, problems = _good_rows(layout.table, table)
        if problems and not rows:
            raise AoiError(problems)
        labels = label_rows(layout.table, rows, known) if split == "train" else _no_labels(rows, known)
        placed = _place(layout, split, table, rows, unusable)
        problems = sorted([*problems, *labels.problems, *placed.problems], key=lambda it: (it.row is None, it.row or 0))
        if problems:
            raise AoiError(problems)
    except AoiError:
        if table.guessed:
            raise AoiError([table.guessed])
        raise
    located = [
        Row(picture_id, row.line, UNLABELLED if number is None else number, name)
        for row, number, (picture_id, name) in zip(rows, labels.numbers, placed.pictures, strict=True)
    ]
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
            problem = _repeated_row(path, row, first_seen[row.id])
        if problem:
            problems.append(problem)
            unusable.append(row.id)
            continue
        first_seen[row.id] = row.line
        rows.append(row)
    return rows, unusable, [*table.problems, *once(problems)]


def _repeated_row(path: str, row: TableRow, line: int) -> Problem:
    seen = f"{_shown(row.id)} stands in row {line} already"
    return Problem(path, seen, "Name each picture once: take one of the two rows out", row.line)


def _bad_id(path: str, line: int | None, picture_id: str) -> Problem | None:
    if not picture_id.strip():
        return Problem(path, "the ID is blank", "Name the picture by its file, or take the row out", line)
    parts = picture_id.replace("\\", "/").split("/")
    if not parts[0].strip() or ".." in parts or "://" in picture_id or DRIVE.match(picture_id):
        seen = f"the ID {picture_id[:80]!r} leaves the folder of the pictures"
        remedy = "Name the picture by its file, as it lies in that folder: a.png or part/a.png"
        return Problem(path, seen, remedy, line)
    if not picture_id.strip().isprintable() and any(not c.isprintable() and c != "\u3000" for c in picture_id.strip()):
        seen = f"the ID {picture_id[:80]!r} holds a control character"
        return Problem(path, seen, "Name the picture by its file, after renaming one that has such a name", line)
    return None


@dataclass(frozen=True)
class _Placed:
    """The pictures of rows. pictures: (ID, name as stored) of each row, where none is a problem."""

    container: str
    pictures: list[tuple[str, str]]
    leniences: tuple[Lenience, ...]
    problems: list[Problem]


@dataclass(frozen=True)
class _Try:
    """How the IDs match what one container holds, with its names in one encoding. names: as IDs may have them."""

    container: Container
    listing: Listing
    encoding: int
    pictures: list[Stored]
    names: list[str]
    twice: list[Problem]
    found: Match

    @property
    def left(self) -> list[int]:
        """Pictures that should have a row, and have none."""
        if not self.container.own:
            return []
        return [at for at in self.found.left if not self.pictures[at].hidden and not self.pictures[at].linked]

    @property
    def wrong(self) -> int:
        return len(self.found.missing) + len(self.left) + len(self.twice)


def _place(layout: Layout, split: Split, table: Table, rows: Sequence[TableRow], unusable: Sequence[str]) -> _Placed:
    """Finds every row's picture; rows without one and pictures without a row are problems.

    unusable: IDs of rows that have another problem already; their pictures are not told too.
    """
    ids = [row.id for row in rows]
    best = None
    for each in _tries(layout, split, ids):
        if best is None or each.wrong < best.wrong:
            best = each
        if not best.wrong:
            break
    assert best is not None
    found, container = best.found, best.container
    problems = _missing(layout.table, rows, best) if found.missing else []
    told = {name for problem in problems for name in problem.about}
    known = {os.path.basename(visible(each)) for each in unusable}
    left = [at for at in best.left if best.names[at] not in told and os.path.basename(best.names[at]) not in known]
    if not (problems and problems[0].whole):
        problems += [
            _Told(problem) for problem in _unnamed(layout.table, [best.pictures[at].name for at in left], best)
        ]
    pictures = [
        (row.id.strip() if way else row.id, "" if at is None else best.pictures[at].name)
        for row, at, way in zip(rows, found.places, found.ways, strict=True)
    ]
    taken = {at for at in found.places if at is not None}
    leniences = _told_of(best.listing, best.encoding, container, {best.pictures[at].name for at in taken})
    leniences += _ways(rows, best)
    return _Placed(container.path, pictures, tuple(leniences), [*best.twice, *(told.problem for told in problems)])


def _tries(layout: Layout, split: Split, ids: Sequence[str]) -> Iterator[_Try]:
    """The IDs against every container, in every encoding that its names may be in, the likeliest first."""
    for container in layout.containers:
        listing = read_listing(layout, container)
        prefix = f"{split}_images/" if files.is_zip(container.path) else ""
        for encoding in range(len(listing.encodings)):
            pictures: list[Stored] = []
            names: list[str] = []
            places: dict[str, int] = {}
            twice = []
            for picture in sorted(listing.pictures, key=lambda picture: picture.hidden):
                name = picture.spellings[encoding].removeprefix(prefix)
                if name in places:
                    twice += [] if picture.hidden or picture.linked else [_twice(container, picture.name)]
                    continue
                places[name] = len(names)
                pictures.append(picture)
                names.append(name)
            hidden = frozenset(at for at, picture in enumerate(pictures) if picture.hidden)
            yield _Try(container, listing, encoding, pictures, names, twice, match(ids, names, hidden))


def _twice(container: Container, name: str) -> Problem:
    if files.is_zip(container.path):
        return Problem(
            f"{container.path}/{name}", "the zip holds this name twice", "Pack the zip again with one of the two"
        )
    return Problem(files.join(container.path, name), "another picture has this name too", "Take one of the two out")


@dataclass(frozen=True)
class _Told:
    """A problem, the pictures' names that it tells of, and whether it tells of all."""

    problem: Problem
    about: tuple[str, ...] = ()
    whole: bool = False


def _missing(table: str, rows: Sequence[TableRow], tried: _Try) -> list[_Told]:
    """What is told of rows without a picture: the one cause where most have none, else each by itself."""
    container, missing = tried.container, [rows[at] for at in tried.found.missing]
    if not any(not picture.hidden for picture in tried.pictures):
        return [_Told(_no_picture(container, tried.listing), whole=True)]
    if _is_whole(len(missing), len(rows)):
        return [_Told(_cause(table, rows, tried), whole=True)]
    line_of = {visible(row.id): row.line for row, at in zip(rows, tried.found.places, strict=True) if at is not None}
    left = [tried.names[at] for at in tried.left]
    few = len(missing) <= NEAR and len(left) <= NEAR
    told = []
    for row in missing:
        if (line := line_of.setdefault(visible(row.id), row.line)) != row.line:
            told.append(_Told(_repeated_row(table, row, line)))
            continue
        near = get_close_matches(row.id, left, 1, 0.8) if few else []
        seen, remedy = f"no picture {_shown(row.id)}", f"Put the picture into {container.path} or take the row out"
        if near:
            left.remove(near[0])
            seen = f"{seen}, but {_shown(near[0])}, which no row names"
            remedy = "Write the ID as the picture is named, or the other way round"
        told.append(_Told(Problem(table, seen, remedy, row.line), tuple(near)))
    return told


def _is_whole(faulty: int, all_of_them: int) -> bool:
    """Whether so many have a fault that it has one cause, and a list of them helps nobody."""
    return faulty > MANY or 1 < faulty == all_of_them or faulty > max(LISTED, all_of_them / 2)


def _cause(table: str, rows: Sequence[TableRow], tried: _Try) -> Problem:
    """The one message where most rows have no picture."""
    ids = [rows[at].id for at in tried.found.missing]
    seen = f"{len(ids):,} of {len(rows):,} rows have no picture in {tried.container.path}, such as {_some(ids)}"
    there = [tried.names[at] for at in tried.found.left if not tried.pictures[at].hidden]
    seen += f"; without a row are {_some(there)}" if there else "; every picture there has another row"
    way, fits = likely([row.id for row in rows], tried.names, tried.found)
    if way:
        seen += f". {fits:,} of these rows would fit by this: {way}"
        return Problem(table, seen, "Write the IDs as the pictures are named, and see why the other rows do not fit")
    return Problem(table, seen, "Write the IDs as the pictures are named, or put the pictures of these rows there")


def _unnamed(table: str, names: Sequence[str], tried: _Try) -> Iterable[Problem]:
    """What is told of pictures without a row."""
    remedy = f"Add a row for it to {os.path.basename(table)} or take the picture out"
    if _is_whole(len(names), len(tried.names)):
        seen = f"{len(names):,} of {len(tried.names):,} pictures have no row in {os.path.basename(table)}"
        remedy = remedy.replace("it", "each", 1).replace("the picture", "them")
        return [Problem(tried.container.path, f"{seen}, such as {_some(names)}", remedy)]
    return [Problem(files.join(tried.container.path, name), "no row names this picture", remedy) for name in names]


def _no_picture(container: Container, listing: Listing) -> Problem:
    seen = "no picture is there"
    if listing.others:
        shown = [f"{count:,} {ending or 'without an ending'}" for ending, count in listing.others.items()]
        seen += f"; the files there are: {', '.join(shown[:EXAMPLES])}"
    return Problem(container.path, seen, f"Put pictures there: {', '.join(SUFFIXES)}")


def _ways(rows: Sequence[TableRow], tried: _Try) -> list[Lenience]:
    """The ways in which IDs were compared, each once."""
    first: dict[str, str] = {}
    for row, at, way in zip(rows, tried.found.places, tried.found.ways, strict=True):
        if way and at is not None:
            first.setdefault(way, f"{_shown(row.id)} is {_shown(tried.names[at])}")
    counts = Counter(tried.found.ways)
    return [Lenience(kind=way, count=counts[way], example=example) for way, example in first.items()]


def _told_of(listing: Listing, encoding: int, container: Container, named: set[str]) -> list[Lenience]:
    """What is to be told of a container: its place, the encoding of its names, what was passed over in it."""
    told = []
    if not container.usual:
        told.append(Lenience(kind="another place of the pictures", count=1, example=os.path.basename(container.path)))
    if listing.encodings[encoding] != AS_STORED:
        spelled = [each.spellings[encoding] for each in listing.pictures if each.spellings[encoding] != each.name]
        name = listing.encodings[encoding]
        told.append(Lenience(kind=f"names in the encoding {name}", count=len(spelled), example=spelled[0]))
    if hidden := [each.name for each in listing.pictures if each.hidden and each.name not in named]:
        told.append(Lenience(kind="files that programs put there, passed over", count=len(hidden), example=hidden[0]))
    if linked := [each.name for each in listing.pictures if each.linked]:
        told.append(Lenience(kind="pictures behind a link to a folder", count=len(linked), example=linked[0]))
    return told


def _shown(name: str) -> str:
    """A name, in quotes where a reader would not see all of it."""
    return name if name == name.strip() and name.isprintable() else repr(name)


def _some(names: Sequence[str]) -> str:
    return ", ".join(_shown(name)[:80] for name in names[:EXAMPLES])


def _too_few(found: _Located, folds: int, listed: bool) -> list[Problem]:
    """Problems of classes with fewer pictures than folds. listed: whether classes.txt names the classes."""
    counts = Counter(row.label for row in found.rows)
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
    reject = None
    try:
        inspect(data)
    except PictureError as error:
        reject = row.rejected(str(error), error.remedy)
    return replace(row, sha256=hashlib.sha256(data).digest(), reject=reject)


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
