"""The classes of a training set: their names in label order, and the label of every row."""

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple
from unicodedata import category

from pipeline.inputs import files
from pipeline.inputs.tables import TableRow, read_text
from pipeline.inputs.telling import EXAMPLES
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse
from tfrecords.lettering import as_seen

AIDEA_CLASSES = ("normal", "void", "horizontal", "vertical", "edge_defect", "particle")
CLASSES = "classes.txt"
# Columns of predictions.csv and review.csv, in which each class has one of its own.
RESERVED_NAMES = {"ID", "label", "name", "decision", "status", "confidence", "novelty", "true_label", "true_name"}
LONGEST_NAME = 1000  # letters; a CSV field has an end too
JOINERS = "\u200c\u200d"  # print nothing, and are letters of Persian and Hindi words
NAME_CLASSES = f"Write {CLASSES} with the names of your classes, one per line in label order"
FROM_ONE = "Take 1 off every label, or write the names of the classes in their place"
NUMBER = re.compile(r"(-?[0-9]{1,9})(?:[.,]([0-9]*)(?:e([+-]?[0-9]{1,2}))?)?", re.IGNORECASE)
AS_TEXT = re.compile('^="(.*)"$')  # how a spreadsheet is kept from reading a number
NO_LABEL = {"nan", "n/a", "#n/a", "null"}  # how programs write that there is none
MARKED = {  # lines of classes.txt as other programs write them
    "separators behind the names": re.compile(r"(.*[^\s,;])\s*[,;]+"),
    "quotes around the names": re.compile(r'"([^"]+)"'),
}
NUMBERED = re.compile(r"([0-9]{1,9})(?: *[:.,;)=\t-] *| +)([^\s\d].*)")  # not "0-1 mm"
MOST = 10**9  # a larger number is no label


class Classes(NamedTuple):
    """names: in label order, from classes.txt or what else is known; leniences: how these were read.

    listed: whether they stand in classes.txt.
    """

    names: tuple[str, ...]
    leniences: tuple[Lenience, ...] = ()
    listed: bool = True


class Labels(NamedTuple):
    """numbers: a label for every row, None where it has none that can be used; problems: of these rows."""

    classes: Classes
    numbers: tuple[int | None, ...]
    leniences: tuple[Lenience, ...]
    problems: tuple[Problem, ...]


def read_classes(*places: str) -> Classes | None:
    """The names in classes.txt of the first of these folders or zips that has one; None where none has.

    They are its lines without blanks around them, and without what other programs put around every name.

    Any printable name will do that is no column of predictions.csv and looks like no other one.

    Raises: AoiError, with every line that is no such name.
    """
    found = next(filter(None, map(_find, dict.fromkeys(places))), None)
    if found is None:
        return None
    path, data = found
    text, leniences, _ = read_text(path, data)
    lines = [line.strip() for line in io.StringIO(text, newline=None)]
    named = [(row, name) for row, name in enumerate(lines, 1) if name]
    for kind, form in MARKED.items():
        plain = [(row, match[1]) for row, name in named if (match := form.fullmatch(name))]
        if len(plain) == len(named) > 1:
            leniences.append(Lenience(kind=kind, count=len(named), example=named[0][1][:80]))
            named = plain
    if numbered := _without_numbers(named):
        leniences.append(Lenience(kind="numbers before the names", count=len(named), example=named[0][1][:80]))
        named = numbered
    problems = _bad_names(path, named)
    if len(named) < 2:
        seen = f"{len(named)} class name(s)"
        problems.append(Problem(path, seen, "Write at least two, one per line, in label order"))
    if problems:
        raise AoiError(problems)
    told = [lenience.model_copy(update={"kind": f"{lenience.kind}, in {CLASSES}"}) for lenience in leniences]
    return Classes(tuple(name for _, name in named), tuple(told))


def _find(place: str) -> tuple[str, bytes | None] | None:
    """classes.txt of a folder, or of a zip with its content; None where there is none."""
    if not files.is_zip(place) or files.is_remote(place):
        path = files.child(place, CLASSES)
        return (path, None) if path else None
    found = files.text_in_zip(place, CLASSES)
    return (files.join(place, found[0]), found[1]) if found else None


def _without_numbers(named: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Lines such as "0 OK" or "1: NG" in the order of their numbers, without these; [] where not all are of this kind.

    The numbers are those from 0 on, each once, and what is left names each class.
    """
    found = [(NUMBERED.fullmatch(name), row) for row, name in named]
    split = sorted((int(each[1]), row, each[2].strip()) for each, row in found if each)
    is_whole = [number for number, _, _ in split] == list(range(len(named))) and len(split) > 1
    names = [(row, name) for _, row, name in split]
    return names if is_whole and len({_alike(name) for _, name in names}) == len(names) else []


def label_rows(source: str, rows: Sequence[TableRow], known: Classes | None) -> Labels:
    """The label of every row of a CSV: a number, also as 1.0 or in full width, or the name of a class.

    source: what the labels stand in, a CSV or folders of classes. known: the classes of classes.txt; where there are
    none, the labels tell the classes: names are sorted, numbers from 0 on are AIdea's six where there are six, and else
    class_0, class_1, ...

    Raises: AoiError for labels that tell no classes.
    """
    names_known = known.names if known else ()
    cells = [AS_TEXT.sub(r"\1", row.label.strip()) for row in rows]
    cells = ["" if cell.lower() in NO_LABEL and cell not in names_known else cell for cell in cells]
    if rows and not any(cells):
        raise refuse(source, "the column Label is empty", "Write a label in every row", rows[0].line)
    number_of = {cell: _number(cell) for cell in set(cells)}
    classes = known or _told_by_labels(source, rows, cells, number_of)
    names, leniences = classes.names, list(classes.leniences)
    used = Counter(cells)
    all_numbers = [number for number in number_of.values() if number is not None]
    in_range = [number for number in all_numbers if number < len(names)]
    all_in_range = len(in_range) == len(number_of) - ("" in number_of)
    from_one = len(all_numbers) == len(number_of) and set(all_numbers) == set(range(1, len(names) + 1))
    if from_one and not any(cell in names for cell in number_of):
        seen = f"the labels begin at 1 and end at {len(names)}; the first name in {CLASSES} is of class 0"
        raise refuse(source, seen, FROM_ONE)
    looks = Counter(map(_loose, names))
    by_name = {name: label for label, name in enumerate(names)}
    by_look = {look: label for label, look in enumerate(map(_loose, names)) if looks[look] == 1}
    numeric_names = any(_number(name) is not None for name in names) and not all_in_range
    label_of: dict[str, int] = {}
    told: dict[str, list[str]] = {}
    for cell in used:
        number = None if numeric_names else number_of[cell]
        label, kind = _meant(cell, number, by_name, by_look)
        if label is not None:
            label_of[cell] = label
        if kind and (classes.listed or number is not None):
            told.setdefault(kind, []).append(cell)
    for kind, found in told.items():
        leniences.append(Lenience(kind=kind, count=sum(used[cell] for cell in found), example=found[0][:80]))
    numbers = tuple(label_of.get(cell) for cell in cells)
    bad = [row for row, number in zip(rows, numbers, strict=True) if number is None]
    return Labels(classes, numbers, tuple(leniences), tuple(_bad_labels(source, bad, names)))


def _meant(
    cell: str, number: int | None, by_name: Mapping[str, int], by_look: Mapping[str, int]
) -> tuple[int | None, str]:
    """The label that a cell means, None for none; and what is told of how it is written, "" for nothing.

    number: that the cell is, None where it is none, or where numbers are names. by_name, by_look: labels of the
    classes, by their names and by what these have in common with other ways to write them, see `_loose`.
    """
    if number is None and cell in by_name:
        return by_name[cell], "labels given by the class's name"
    if number is not None and number < len(by_name):
        plain = cell.isascii() and cell.isdigit()
        return number, "" if plain else "whole numbers written otherwise, as labels"
    if number is None and (label := by_look.get(_loose(cell))) is not None:
        return label, "class names in other letters, as labels"
    if (both := NUMBERED.fullmatch(cell)) and by_look.get(_loose(both[2])) == int(both[1]):
        return int(both[1]), "numbers and names of classes, as labels"
    return None, ""


def sorted_classes(source: str, names: Iterable[str]) -> Classes:
    """Classes named by folders or by labels, in the order of their names. source: what names them.

    Raises: AoiError for fewer than two.
    """
    ordered = sorted(set(names), key=lambda name: ((number := _number(name)) is None, number or 0, name))
    problems = _bad_names(source, [(None, name) for name in ordered])
    first: dict[str, str] = {}
    for name in ordered:
        other = first.setdefault(_alike(name), name)
        if other != name and _look(other) != _look(name):
            seen = f"the classes {other[:40]!r} and {name[:40]!r} differ in case or width of letters alone"
            problems.append(Problem(source, seen, f"Write one of the two everywhere, or {CLASSES} with the names"))
    if len(ordered) < 2:
        seen = f"{len(ordered)} class(es): {', '.join(ordered)}"[:120]
        problems.append(Problem(source, seen, "Give pictures of at least two classes"))
    if problems:
        raise AoiError(problems)
    example = ", ".join(f"{label} {name}" for label, name in enumerate(ordered))[:200]
    lenience = Lenience(kind="classes in the order of their names", count=1, example=example)
    return Classes(tuple(ordered), (lenience,), listed=False)


def _told_by_labels(
    source: str, rows: Sequence[TableRow], cells: Sequence[str], number_of: Mapping[str, int | None]
) -> Classes:
    """The classes that the labels of a CSV tell. number_of: what `_number` says of each. Raises: AoiError where they
    tell none.
    """
    numbers = {number for number in number_of.values() if number is not None}
    words = [(row, cell) for row, cell in zip(rows, cells, strict=True) if cell and number_of[cell] is None]
    if not numbers:
        return sorted_classes(source, (cell for _, cell in words))
    if words and all(NUMBER.fullmatch(cell) for _, cell in words):
        seen = f"the label {words[0][1][:40]!r} is no whole number from 0 on"
        raise refuse(
            source,
            seen,
            f"Number the classes 0, 1, 2 and so on, or {NAME_CLASSES[:1].lower()}{NAME_CLASSES[1:]}",
            words[0][0].line,
        )
    if words:
        others = [(row, cell) for row, cell in zip(rows, cells, strict=True) if number_of[cell] is not None]
        few, many = sorted((words, others), key=len)
        shown = ", ".join(f"{cell[:40]!r} in row {row.line}" for row, cell in few[:EXAMPLES])
        seen = f"the labels mix names and numbers: {shown}; {len(many):,} others are such as {many[0][1][:40]!r}"
        raise refuse(source, seen, f"Write either names or numbers, or {CLASSES} with the names in label order")
    if len(numbers) < 2:
        raise refuse(source, f"all rows have the label {max(numbers)}", "Give pictures of at least two classes")
    if min(numbers) == 1 and numbers == set(range(1, len(numbers) + 1)):
        raise refuse(source, f"the labels begin at 1 and end at {max(numbers)}; the first class is 0", FROM_ONE)
    if numbers != set(range(len(numbers))):
        gap = min(set(range(max(numbers) + 1)) - numbers)
        seen = f"the labels are numbers up to {max(numbers)}, but no row has {gap}, and there is no {CLASSES}"
        raise refuse(source, seen, f"{NAME_CLASSES}; number the labels from 0 without a gap, or add pictures of it")
    if len(numbers) == len(AIDEA_CLASSES):
        example = f"0 is {AIDEA_CLASSES[0]}, the good parts; {CLASSES} would name others"
        lenience = Lenience(kind="AIdea's names for six classes", count=1, example=example)
        return Classes(AIDEA_CLASSES, (lenience,), listed=False)
    names = tuple(f"class_{number}" for number in range(len(numbers)))
    example = f"{names[0]} to {names[-1]}; {CLASSES} would name them"
    lenience = Lenience(kind="classes without names", count=len(names), example=example)
    return Classes(names, (lenience,), listed=False)


def _number(cell: str) -> int | None:
    """The whole number that a label is: 1, 01, 1.0, 1,0, 1.0e+00, or in full width. None for anything else."""
    found = NUMBER.fullmatch(unicodedata.normalize("NFKC", cell).strip().removeprefix("'"))
    if not found:
        return None
    number = Decimal(f"{found[1]}.{found[2] or 0}e{found[3] or 0}")
    return int(number) if number == number.to_integral_value() and 0 <= number < MOST else None


def _bad_labels(source: str, rows: Iterable[TableRow], names: Sequence[str]) -> Iterable[Problem]:
    listed = ", ".join(names)[:120]
    remedy = f"Write a whole number from 0 to {len(names) - 1} ({listed}), or one of these names"
    for row in rows:
        seen = f"{row.id} has no label"
        if row.label.strip():
            seen = f"the label {row.label[:40]!r} of {row.id} is none of the classes"
        yield Problem(source, seen, remedy, row.line)


def _bad_names(path: str, named: Sequence[tuple[int | None, str]]) -> list[Problem]:
    """Problems of class names, by their lines where they have any."""
    problems: list[Problem] = []
    rows: dict[str, tuple[int | None, str]] = {}
    for row, name in named:
        if wrong := _bad_name(name) or _repeated(name, rows):
            problems.append(Problem(path, *wrong, row))
        rows.setdefault(_look(name), (row, name))
    return problems


def _bad_name(name: str) -> tuple[str, str] | None:
    """What is wrong with a class name by itself, and what to do; None where it is fine."""
    if name in RESERVED_NAMES:
        return f"{name!r} is a column of predictions.csv already", "Choose another name"
    if len(name) > LONGEST_NAME:
        return f"a name of {len(name):,} letters", f"Write at most {LONGEST_NAME:,}"
    if unprintable := [c for c in name if not c.isprintable() and c not in JOINERS and category(c) != "Zs"]:
        return f"the name {name[:80]!r} holds U+{ord(unprintable[0]):04X}, which does not print", "Take it out"
    return None if _look(name) else (f"the name {name!r} has nothing that prints", "Write a name")


def _repeated(name: str, rows: Mapping[str, tuple[int | None, str]]) -> tuple[str, str] | None:
    """Says so where a line before has this name, or one that looks the same."""
    if not (known := rows.get(_look(name))):
        return None
    row, other = known
    if name == other:
        return f"the name {name[:80]!r} stands there twice, in row {row} too", "Give each class a name of its own"
    of = f"that of row {row}, " if row else ""
    return f"the name {name[:80]!r} looks like {of}{other[:80]!r}", "Give each class a name of its own"


def _alike(name: str) -> str:
    """What names have in common that differ in case or width of letters alone."""
    return unicodedata.normalize("NFKC", _look(name)).casefold()


def _loose(name: str) -> str:
    """What a label and the class that it names have in common: blanks, - and _ are written for each other."""
    return " ".join(re.sub("[-_]", " ", _alike(name)).split())


def _look(name: str) -> str:
    """What a reader sees of a name."""
    return " ".join(as_seen(name).split())
