"""CSVs as people really save them: text in any usual encoding, any usual separator, and what Excel leaves behind."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.inputs import files
from pipeline.inputs.big5 import BIG5, is_chinese
from pipeline.inputs.header import ID, LABEL, NAMES_OF_SEPARATORS, QUOTES, SEPARATORS, Form, find_header
from pipeline.inputs.telling import once
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse

EMPTY_LINES = re.compile(r"(?:[ \t,;]*(?:\r\n|\r|\n))+")
END_OF_DOS = "\x1a"  # mark at the end of a file
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .xls under another name
UTF8 = "Save it as UTF-8 (in Excel: CSV UTF-8)"


class TableRow(NamedTuple):
    """A row as it stands in the CSV. line: its line in the file, counted from 1; label: "" where it has none."""

    line: int
    id: str
    label: str


class Table(NamedTuple):
    """A CSV.

    rows: those that can be read; named: the IDs of those that can't be; problems: of these, by their lines; guessed:
    what to say where nothing in it fits, since its encoding was guessed; None where it was not.
    """

    rows: tuple[TableRow, ...]
    named: tuple[str, ...] = ()
    leniences: tuple[Lenience, ...] = ()
    problems: tuple[Problem, ...] = ()
    guessed: Problem | None = None


def read_table(path: str, labelled: bool) -> Table:
    """The rows of a CSV. labelled: whether it must have labels; where not, its labels are not read.

    Raises:
        AoiError: no file, no text, no column of IDs (or labels), no CSV, no row.
    """
    text, leniences, guessed = read_text(path)
    text, skipped, separators = _from_header(text)
    form, header, found = find_header(path, text, separators, skipped + 1, labelled)
    leniences += _of_header(text, separators, form, header, found)
    rows: list[TableRow] = []
    named: list[str] = []
    problems: list[Problem] = []
    empty: list[int] = []
    again: list[int] = []
    other_width: list[int] = []
    needed, id_at, label_at = max(found.values()) + 1, found[ID], found.get(LABEL) if labelled else None
    reader = form.reader(text)
    line = skipped
    try:
        next(reader)
        line = skipped + reader.line_num
        for cells in reader:
            line = skipped + reader.line_num
            if len(cells) != len(header) or not cells[id_at].strip():
                if not "".join(cells).strip():
                    empty += [line] if cells else []
                    continue
                if len(cells) < needed or "".join(cells[len(header) :]).strip():
                    named += cells[id_at : id_at + 1]
                    problems.append(_other_fields(path, line, len(cells), len(header), form.separator))
                    continue
                other_width += [line] if len(cells) != len(header) else []
            elif cells == header:
                again.append(line)
                continue
            rows.append(TableRow(line, cells[id_at], "" if label_at is None else cells[label_at]))
    except csv.Error as error:  # what follows is unread, so nothing can be said about it
        problems.append(Problem(path, f"not readable as CSV ({error})", QUOTES, line + 1))
        raise AoiError(problems if guessed is None else [guessed])
    passed = {"empty rows": empty, "the header again": again, "empty fields too many or too few": other_width}
    leniences += [
        Lenience(kind=kind, count=len(lines), example=f"row {lines[0]}") for kind, lines in passed.items() if lines
    ]
    if not rows and not problems:
        remedy = "Add a row for every picture" + ("" if labelled else "; where there are none, take this file away")
        raise refuse(path, "no row below the header", remedy)
    return Table(tuple(rows), tuple(named), tuple(leniences), tuple(once(problems)), guessed)


def _from_header(text: str) -> tuple[str, int, Sequence[str]]:
    """A text from its header on, how many lines are before that, and the separators that may be meant there."""
    skipped = 0
    if before := EMPTY_LINES.match(text):
        skipped, text = len(before[0].splitlines()), text[before.end() :]
    first, _, rest = text.partition("\n")
    hint = first.rstrip("\r")
    if len(hint) == 5 and hint.lower().startswith("sep="):  # Excel's hint for itself
        return rest, skipped + 1, hint[4]
    return text, skipped, SEPARATORS


def _of_header(
    text: str, separators: Sequence[str], form: Form, header: Sequence[str], found: Mapping[str, int]
) -> Iterator[Lenience]:
    """What was taken leniently of the header, and of how the fields are written.

    text, separators: see `_from_header`; form, header, found: see `find_header`.
    """
    if separators is not SEPARATORS:
        yield Lenience(kind="Excel's first line sep=", count=1, example=repr(separators[0]))
    elif form.separator != ",":
        name = NAMES_OF_SEPARATORS[form.separator]
        yield Lenience(kind=f"{name} between the fields", count=1, example=form.separator.join(header)[:80])
    if form.blanks:
        yield Lenience(kind="blanks before quotes", count=1, example=text.partition("\n")[0].strip()[:80])
    for name, place in found.items():
        if header[place] != name:
            yield Lenience(kind=f"another name of the column {name}", count=1, example=repr(header[place][:80]))


def _other_fields(path: str, line: int, fields: int, in_header: int, separator: str) -> Problem:
    """The problem of a row with fields too many or too few."""
    between = NAMES_OF_SEPARATORS.get(separator, separator)
    remedy = f"Write {in_header}, with {between} between them"
    return Problem(path, f"{fields} fields, and the header has {in_header}", remedy, line)


def read_text(path: str, data: bytes | None = None) -> tuple[str, list[Lenience], Problem | None]:
    """The text of a file that a person or Excel saved, what was taken leniently, and a doubt about its encoding.

    UTF-8 with or without a byte order mark, UTF-16, or Big5 where UTF-8 fails: then the doubt says what is wrong if
    what is read fits nothing. data: its content, where it was read already. Raises: AoiError for anything else.
    """
    data = _read(path) if data is None else data
    if data.startswith(WORKBOOKS):
        raise refuse(path, "it is a workbook of Excel or a zip, not text", "Save it as CSV UTF-8")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "")
    encoding = encoding or _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise AoiError([_not_utf8(path, data, error, encoding)])
    text = text.rstrip(END_OF_DOS)
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise refuse(path, "it holds a NUL character", "Save it as plain UTF-8 text", row)
    leniences = []
    if encoding == "utf-8-sig":
        leniences.append(Lenience(kind="a byte order mark", count=1, example=encoding))
    elif encoding != "utf-8":
        leniences.append(Lenience(kind="an encoding other than UTF-8", count=1, example=encoding))
    guessed = None
    if encoding == BIG5:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            guessed = _not_utf8(path, data, error, encoding)
    return text, leniences, guessed


def _read(path: str) -> bytes:
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        raise refuse(path, "there is no such file", "Put it beside the pictures, with the columns ID,Label")
    except OSError as error:
        seen = f"it can't be read ({error.strerror or error})"
        raise refuse(path, seen, "Put a text file there that this account may read")


def _encoding(data: bytes) -> str:
    """The first encoding in which the bytes are text; utf-8 where there is none."""
    if len(data) % 2 == 0 and b"\0" in data[:4096]:  # UTF-16 without its mark: every second byte of Latin text is zero
        for encoding, zeros in (("utf-16-le", data[1:4096:2]), ("utf-16-be", data[0:4096:2])):
            if zeros.count(0) > len(zeros) // 2 and _decodes(data, encoding):
                return encoding
    is_big5 = not _decodes(data, "utf-8") and _decodes(data, BIG5) and is_chinese(data.decode(BIG5))
    return BIG5 if is_big5 else "utf-8"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(path: str, data: bytes, error: UnicodeDecodeError, read_as: str) -> Problem:
    row = data[: error.start].count(b"\n") + 1
    told = "not UTF-8" if read_as != BIG5 else "not UTF-8, and as Big5 the file does not fit its pictures"
    return Problem(path, f"byte {error.start} is {told}", UTF8, row)
