"""How the fields of a CSV are written, and which of its columns are ID and Label."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from pipeline.inputs.names import is_picture
from tfrecords.errors import AoiError, refuse

ID, LABEL = "ID", "Label"
# Columns that are taken where ID or Label is missing, if just one of them is there; without blanks, marks and case.
ALIASES = {
    ID: {"filename", "file", "image", "imageid", "imagename", "imagefile", "picture", "path", "filepath"},
    LABEL: {"labels", "class", "classname", "category"},
}
SEPARATORS = (",", ";", "\t")
NAMES_OF_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
LOOKED_IN = 1 << 16  # letters at the beginning of a file that tell how its fields are written
LOOKED_AT = 50  # rows there that tell what a column holds whose name does not
QUOTES = "Check the quotes from this row on: a field that begins with one ends with one, and one inside is doubled"


class Form(NamedTuple):
    """How the fields of a CSV are written. blanks: whether some stand before the quotes of a field."""

    separator: str
    blanks: bool = False

    def reader(self, text: str) -> Any:
        """csv.reader of a text."""
        return csv.reader(
            io.StringIO(text, newline=""), delimiter=self.separator, strict=True, skipinitialspace=self.blanks
        )

    def first_rows(self, text: str) -> list[list[str]]:
        """Some rows below the header, without empty ones; none where they are not readable, which is told later."""
        try:
            return [cells for cells in islice(self.reader(text), 1, LOOKED_AT) if "".join(cells).strip()]
        except csv.Error:
            return []


def find_header(
    path: str, text: str, separators: Sequence[str], line: int, labelled: bool
) -> tuple[Form, list[str], dict[str, int]]:
    """Form of the fields, header cells, and the place of each column that is needed and there.

    text: from its header on, which is at `line` of the file at `path`; separators: that may be meant, the likeliest
    first; labelled: whether a column of labels is needed.

    Raises: AoiError where no separator gives the columns.
    """
    wanted = (ID, LABEL) if labelled else (ID,)
    best: tuple[Form, list[str], dict[str, int]] = Form(separators[0]), [], {}
    rank = (0, 0)  # columns that are found, and those of them by their names
    unreadable: AoiError | None = None
    begin = text if len(text) <= LOOKED_IN else text[: text.rfind("\n", 0, LOOKED_IN) + 1] or text
    for separator in separators:
        form = Form(separator, _has_blanks(begin, separator))
        try:
            header: list[str] = next(form.reader(begin), [])
            rows = form.first_rows(begin)
            header = [*_numbers_before(rows, header), *header]
        except csv.Error as error:
            if separator == separators[0]:
                unreadable = refuse(path, f"not readable as CSV ({error})", QUOTES, line)
            continue
        named = {name: place for name in wanted if (place := _column(header, name)) is not None}
        found = _by_content(rows, header, named, wanted)
        if (len(found), len(named)) > rank or not best[1]:
            best, rank = (form, header, found), (len(found), len(named))
    form, header, found = best
    if unreadable and not found:
        raise unreadable
    if missing := [name for name in wanted if name not in found]:
        seen = f"the header is {separators[0].join(header)[:80]!r}, without {' and '.join(missing)}"
        if several := [cell for name in missing for cell in header if _plain(cell) in {*ALIASES[name], name.lower()}]:
            seen += f", and {' and '.join(map(repr, several))} may each be meant"
        if below := _header_below(begin, wanted):
            raise refuse(path, f"{seen}; row {line + below} has", "Take out the rows above it", line)
        raise refuse(path, seen, f"Begin it with the line {','.join(wanted)}", line)
    return form, header, _without_numbers(form, text, header, found)


def _header_below(text: str, wanted: Sequence[str]) -> int:
    """How many lines below the first one a line has the columns' names; 0 for none."""
    for at, line in enumerate(text.splitlines()[1:LOOKED_AT], 1):
        cells = [_plain(cell.strip('"')) for cell in re.split("[,;\t|]", line)]
        if all(name.lower() in cells for name in wanted):
            return at
    return 0


def _numbers_before(rows: Sequence[Sequence[str]], header: Sequence[str]) -> list[str]:
    """[""] where every row has one more field than the header, at its beginning its number, as R writes tables."""
    more = rows and all(
        len(cells) == len(header) + 1 and re.fullmatch("[0-9]{1,9}", cells[0].strip()) for cells in rows
    )
    numbers = [int(cells[0]) for cells in rows] if more else []
    counts = bool(numbers) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(rows)))
    return [""] if counts and len(header) > 1 and any(cells[-1].strip() for cells in rows) else []


def _has_blanks(text: str, separator: str) -> bool:
    """Whether the first lines show blanks between a separator and the quotes of a field."""
    blanks = re.compile(f'{re.escape(separator)} +"[^"]*" *({re.escape(separator)}|$)')
    return separator != " " and any(blanks.search(line) for line in text.splitlines()[:2])


def _by_content(
    rows: Sequence[Sequence[str]], header: Sequence[str], found: dict[str, int], wanted: Sequence[str]
) -> dict[str, int]:
    """The columns that are found, and those that what they hold tells: names of pictures, and the only one beside them.

    So a header may be in Chinese, or in any language that is not written in plain letters. In plain ones a name that
    is not known may well be that of something else, as a value that was measured. A column that two aliases may mean is
    left to a person.
    """
    missing = [name for name in wanted if name not in found]
    if not missing or any(_plain(cell) in ALIASES[name] for name in missing for cell in header):
        return found
    if not rows or any(len(cells) != len(header) for cells in rows):
        return found
    named = [at for at, cell in enumerate(header) if cell.strip() and not cell.lower().startswith("unnamed:")]
    pictures = [at for at in named if all(is_picture(cells[at].strip()) for cells in rows)]
    if ID in missing and len(pictures) == 1 and not header[pictures[0]].isascii():
        found = {ID: pictures[0], **found}
    others = [at for at in named if at != found.get(ID)]
    if LABEL in missing and ID in found and len(others) == 1 and not header[others[0]].isascii():
        found = {**found, LABEL: others[0]}
    return found


def _without_numbers(form: Form, text: str, header: Sequence[str], found: dict[str, int]) -> dict[str, int]:
    """The columns, where one named ID numbers the rows, and another one names the pictures: then that one is the ID.

    An ID that is the name of its row's picture without its ending numbers nothing.
    """
    others = [at for at, cell in enumerate(header) if _plain(cell) in ALIASES[ID] and at != found[ID]]
    if len(others) != 1:
        return found
    names: list[str] = []
    numbers: list[str] = []
    try:
        for cells in islice(form.reader(text), 1, None):
            if len(cells) <= max(found[ID], others[0]) or not "".join(cells).strip():
                continue
            number, name = cells[found[ID]].strip(), cells[others[0]].strip()
            if not number.isdecimal() or not (is_picture(name) or "." not in name):
                return found
            numbers.append(number.lstrip("0"))
            names.append(os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0].lstrip("0"))
    except csv.Error:  # told where the rows are read
        return found
    different = names != numbers and len(set(names)) == len(names)
    return {**found, ID: others[0]} if different else found


def _column(header: Sequence[str], name: str) -> int | None:
    """Place of a column: by its name, else by its name in any case and with blanks, else by its only alias."""
    if name in header:
        return header.index(name)
    plain = [_plain(cell) for cell in header]
    for same in (
        [at for at, cell in enumerate(plain) if cell == name.lower()],
        [at for at, cell in enumerate(plain) if cell in ALIASES[name]],
    ):
        if same:
            return same[0] if len(same) == 1 else None
    return None


def _plain(cell: str) -> str:
    """A column's name without what people write differently: case, blanks, full width, - and _."""
    return "".join(c for c in unicodedata.normalize("NFKC", cell).lower() if c not in " -_\ufeff").strip()
