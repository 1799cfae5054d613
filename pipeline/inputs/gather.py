"""Pictures of a split and their labels: by a CSV that names them, or by the folders that they lie in.

Nothing is opened but the CSV.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from unicodedata import category, normalize

from pipeline.inputs import files
from pipeline.inputs.big5 import BIG5, may_be_other
from pipeline.inputs.classes import CLASSES, Classes, Labels, label_rows, sorted_classes
from pipeline.inputs.layouts import Container, Kind, Layout, Split, inner_folder, is_split, read_listing
from pipeline.inputs.locate import INVISIBLE
from pipeline.inputs.place import named_twice, no_picture, passed_over, place, repeated_row, told_of
from pipeline.inputs.rows import Rows
from pipeline.inputs.tables import Table, TableRow, read_table
from pipeline.inputs.telling import once, some
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse
from tfrecords.records.schema import UNLABELLED

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
USUAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # IDs that need no further look


class Gathered(NamedTuple):
    """A split whose pictures are found and not yet read; `Inputs` says what its fields are."""

    csv: str
    container: str
    classes: tuple[str, ...]
    rows: Rows
    leniences: tuple[Lenience, ...]


def gather(layout: Layout, split: Split, known: Classes | None, labelled: bool) -> Gathered:
    """The rows of a split, each with its picture and, where they are labelled, with its label.

    known: the classes that are known ahead; None: the labels tell them. labelled: whether the labels of a CSV are read;
    folders of classes always label what lies in them.

    Raises: AoiError, with all that is wrong with names and labels.
    """
    return _by_csv(layout, split, known, labelled) if layout.kind == Kind.CSV else _by_folder(layout, known)


# --- Pictures without a CSV ---------------------------------------------------------------------------------


def _by_folder(layout: Layout, known: Classes | None) -> Gathered:
    """All pictures of a folder or zip, sorted by ID; of folders of classes with the labels that these give.

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
    leniences += [*told_of(listing, 0, container, set()), *passed_over(listing)]
    found = sorted((spelling.removeprefix(prefix), name) for spelling, name in spelled)
    problems = [no_picture(container, listing)] if not found else []
    problems += _bad_names(container, found)
    if problems:
        raise AoiError(problems)
    label_of: dict[str, int] = {}
    if layout.kind == Kind.CLASSES:
        if listing.encodings[0] == BIG5 and not known and may_be_other("".join({*"".join(names)})):
            seen = "its names are in Big5, GBK or another encoding, and nothing tells in which"
            raise refuse(container.path, seen, f"Write them in UTF-8, or {CLASSES} with the names of the classes")
        known, label_of, told = _folder_labels(container.path, [name for name, _ in found], known)
        leniences += told
    ids = [picture_id for picture_id, _ in found]
    labels = [label_of[each.partition("/")[0]] if label_of else UNLABELLED for each in ids]
    rows = Rows.unread(ids, range(1, len(ids) + 1), labels, (name for _, name in found))
    assert known is not None
    return Gathered(container.path, container.path, known.names, rows, tuple(leniences))


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
    inside = _inside(ids)
    for each in folders:
        if wrong := _is_set(container, each, inside):
            remedy = f"Name one set alone, such as {files.join(container, each)}, or move what is no class elsewhere"
            raise refuse(container, f"the folder {each} holds {wrong}, and so is no class", remedy)
    if known is None:
        classes = sorted_classes(container, map(_class_name, folders))
        of = {each: classes.names.index(_class_name(each)) for each in folders}
        return classes, of, (*classes.leniences, *_same_folders(inside))
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
    return known, of, (*told, *_same_folders(inside))


def _inside(ids: Sequence[str]) -> dict[str, set[str]]:
    """By folder, what lies directly in it: the names of folders, and "" for pictures. ids: all in a folder."""
    inside: dict[str, set[str]] = {}
    for each in ids:
        folder, _, rest = each.partition("/")
        inside.setdefault(folder, set()).add(rest.partition("/")[0] if "/" in rest else "")
    return inside


def _same_folders(inside: Mapping[str, set[str]]) -> list[Lenience]:
    """What is told where all classes have the same folders in them: they may be products, and these the classes."""
    first = next(iter(inside.values()), set())
    if len(first) < 2 or "" in first or any(each != first for each in inside.values()):
        return []
    example = f"{', '.join(sorted(first))[:80]} in {', '.join(sorted(inside))[:80]}"
    return [Lenience(kind="the same folders in all classes, which are not read", count=len(first), example=example)]


def _is_set(container: str, folder: str, inside: Mapping[str, set[str]]) -> str:
    """What shows that a folder holds a set of its own and is no class; "" where nothing does."""
    if found := sorted(filter(is_split, inside[folder])):
        return f"a folder {found[0]}"
    if found := sorted(inside[folder].intersection(inside)):
        return f"{found[0]}, which is a class beside it too"
    csv = None if files.is_zip(container) else files.child(files.join(container, folder), "train.csv", "test.csv")
    return os.path.basename(csv) if csv else ""


def _class_name(folder: str) -> str:
    return normalize("NFC", folder).strip()


# --- Pictures that a CSV names ------------------------------------------------------------------------------


def _by_csv(layout: Layout, split: Split, known: Classes | None, labelled: bool) -> Gathered:
    """The rows of a CSV, each with its picture and, where they are labelled, its label. Raises: AoiError."""
    table = read_table(layout.csv, labelled)
    try:
        rows, unusable, problems = _good_rows(layout.csv, table)
        if problems and not rows:
            raise AoiError(problems)
        placed = place(layout, split, rows, unusable)
        problems += placed.problems
        try:
            labels = label_rows(layout.csv, rows, known) if labelled else _no_labels(rows, known)
        except AoiError:  # of all labels together: rows that are wrong themselves may be the cause
            if problems:
                raise AoiError(_by_row(problems))
            raise
        told_by_labels = labelled and not known and all(row.id.isascii() for row in rows)
        if table.guessed and told_by_labels and may_be_other("".join({row.label for row in rows})):
            seen = "the labels are in Big5, GBK or another encoding, and nothing tells in which"
            raise AoiError([replace(table.guessed, seen=seen)])
        # A row without a picture is told as that alone: it may be no row at all.
        problems += once(each for each in labels.problems if each.row not in placed.missing)
        if problems:
            raise AoiError(_by_row(problems))
    except AoiError:
        if table.guessed:
            raise AoiError([table.guessed])
        raise
    numbers = (UNLABELLED if number is None else number for number in labels.numbers)
    ids, names = ([picture[place] for picture in placed.pictures] for place in (0, 1))
    found = Rows.unread(ids, (row.line for row in rows), numbers, names)
    leniences = (*table.leniences, *labels.leniences, *placed.leniences)
    return Gathered(layout.csv, placed.container, labels.classes.names, found, leniences)


def _by_row(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda it: (it.row is None, it.row or 0))


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
    if USUAL.fullmatch(picture_id):
        return None
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
