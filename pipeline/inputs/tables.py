"""CSVs as people really save them: text in any usual encoding, any usual separator, and what Excel leaves behind."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.inputs import files
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse

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
EMPTY_LINES = re.compile(r"(?:[ \t,;]*(?:\r\n|\r|\n))+")
LAST_COMMON, LEAST_COMMON = 0xC6, 0.75  # first byte of Big5's common letters, and their share in a text
LATIN = re.compile("[A-Za-z]")
END_OF_DOS = "\x1a"  # mark at the end of a file
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .xls under another name
BIG5 = "cp950"  # Big5, as Windows writes it in Taiwan
UTF8 = "Save it as UTF-8 (in Excel: CSV UTF-8)"
QUOTES = "Check the quotes from this row on: a field that begins with one ends with one, and one inside is doubled"
LISTED = 10  # rows of one fault, of which each is told by itself; of more, one is told with their number


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as it stands in the CSV. line: its line in the file, counted from 1; label: "" where it has none."""

    line: int
    id: str
    label: str


@dataclass(frozen=True)
class Table:
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
    skipped = 0
    if before := EMPTY_LINES.match(text):
        skipped, text = len(before[0].splitlines()), text[before.end() :]
    first, _, rest = text.partition("\n")
    separators: Sequence[str] = SEPARATORS
    hint = first.rstrip("\r")
    if len(hint) == 5 and hint.lower().startswith("sep="):  # Excel's hint for itself
        skipped, text, separators = skipped + 1, rest, hint[4]
        leniences.append(Lenience(kind="Excel's first line sep=", count=1, example=repr(separators[0])))
    form, header, found = _header(path, text, separators, skipped + 1, labelled)
    separator = form.separator
    if separator != "," and separators is SEPARATORS:
        name = NAMES_OF_SEPARATORS[separator]
        leniences.append(Lenience(kind=f"{name} between the fields", count=1, example=separator.join(header)[:80]))
    if form.blanks:
        leniences.append(Lenience(kind="blanks before quotes", count=1, example=first.strip()[:80]))
    leniences += [
        Lenience(kind=f"another name of the column {name}", count=1, example=repr(header[place][:80]))
        for name, place in found.items()
        if header[place] != name
    ]
    rows: list[TableRow] = []
    named: list[str] = []
    problems: list[Problem] = []
    empty: list[int] = []
    other_width: list[int] = []
    again: list[int] = []
    needed, id_at, label_at = max(found.values()) + 1, found[ID], found.get(LABEL) if labelled else None
    reader = form.reader(text)
    line = skipped
    try:
        next(reader)
        line = skipped + reader.line_num
        for cells in reader:
            line = skipped + reader.line_num
            if len(cells) != len(header):
                if not cells or not "".join(cells).strip():
                    empty += [line] if cells else []
                    continue
                if len(cells) < needed or "".join(cells[len(header) :]).strip():
                    named += cells[id_at : id_at + 1]
                    seen = f"{len(cells)} fields, and the header has {len(header)}"
                    remedy = f"Write {len(header)}, with {NAMES_OF_SEPARATORS.get(separator, separator)} between them"
                    problems.append(Problem(path, seen, remedy, line))
                    continue
                other_width.append(line)
            if not cells[id_at].strip() and not "".join(cells).strip():
                empty.append(line)
                continue
            if cells[id_at] == header[id_at] and cells == header:
                again.append(line)
                continue
            rows.append(TableRow(line, cells[id_at], "" if label_at is None else cells[label_at]))
    except csv.Error as error:  # what follows is unread, so nothing can be said about it
        problems.append(Problem(path, f"not readable as CSV ({error})", QUOTES, line + 1))
        raise AoiError(problems if guessed is None else [guessed])
    passed = {"empty rows": empty, "the header again": again, "empty fields too many or too few": other_width}
    for kind, lines in passed.items():
        if lines:
            leniences.append(Lenience(kind=kind, count=len(lines), example=f"row {lines[0]}"))
    if not rows and not problems:
        remedy = "Add a row for every picture" + ("" if labelled else "; where there are none, take this file away")
        raise refuse(path, "no row below the header", remedy)
    return Table(tuple(rows), tuple(named), tuple(leniences), tuple(once(problems)), guessed)


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
    is_big5 = not _decodes(data, "utf-8") and _decodes(data, BIG5) and _is_chinese(data.decode(BIG5))
    return BIG5 if is_big5 else "utf-8"


def _is_chinese(text: str) -> bool:
    """Whether text that was read as Big5 is, and nothing else that decodes.

    Western words would show single letters of Chinese within them. Text in another encoding of Chinese would show
    letters that few people know; Big5 has those that most know first.
    """
    runs = list(re.finditer(r"[^\x00-\x7f]+", text))
    first = [letter.encode(BIG5)[0] for run in runs for letter in run[0]]
    if sum(byte <= LAST_COMMON for byte in first) < LEAST_COMMON * len(first):
        return False
    for run in runs:
        before, after = text[max(0, run.start() - 1) : run.start()], text[run.end() : run.end() + 1]
        in_word = LATIN.fullmatch(before) and (LATIN.fullmatch(after) or run[0].encode(BIG5)[1:].islower())
        if len(run[0]) > 1 or not run[0].isalpha() or not in_word:
            return True
    return False


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


@dataclass(frozen=True)
class _Form:
    """How the fields of a CSV are written. blanks: whether some stand before the quotes of a field."""

    separator: str
    blanks: bool = False

    def reader(self, text: str) -> Any:
        """csv.reader of a text."""
        return csv.reader(
            io.StringIO(text, newline=""), delimiter=self.separator, strict=True, skipinitialspace=self.blanks
        )


def _header(
    path: str, text: str, separators: Sequence[str], line: int, labelled: bool
) -> tuple[_Form, list[str], dict[str, int]]:
    """Form of the fields, header cells, and the place of each column that is needed and there."""
    wanted = (ID, LABEL) if labelled else (ID,)
    best: tuple[_Form, list[str], dict[str, int]] = _Form(separators[0]), [], {}
    rank = (0, 0)  # columns that are found, and those of them by their names
    unreadable: AoiError | None = None
    begin = text if len(text) <= LOOKED_IN else text[: text.rfind("\n", 0, LOOKED_IN) + 1] or text
    for separator in separators:
        form = _Form(separator, _has_blanks(begin, separator))
        try:
            header: list[str] = next(form.reader(begin), [])
            header = [*_numbers_before(form, begin, header), *header]
        except csv.Error as error:
            if separator == separators[0]:
                unreadable = refuse(path, f"not readable as CSV ({error})", QUOTES, line)
            continue
        named = {name: place for name in wanted if (place := _column(header, name)) is not None}
        found = _by_content(form, begin, header, named, wanted)
        if (len(found), len(named)) > rank or not best[1]:
            best, rank = (form, header, found), (len(found), len(named))
    form, header, found = best
    if unreadable and not found:
        raise unreadable
    if missing := [name for name in wanted if name not in found]:
        seen = f"the header is {separators[0].join(header)[:80]!r}, without {' and '.join(missing)}"
        if several := [cell for name in missing for cell in header if _plain(cell) in {*ALIASES[name], name.lower()}]:
            seen += f", and {' and '.join(map(repr, several))} may each be meant"
        raise refuse(path, seen, f"Begin it with the line {','.join(wanted)}", line)
    return form, header, _without_numbers(form, text, header, found)


def _numbers_before(form: _Form, text: str, header: Sequence[str]) -> list[str]:
    """[""] where every row has one more field than the header, at its beginning its number, as R writes tables."""
    try:
        rows = [cells for cells in islice(form.reader(text), 1, LOOKED_AT) if "".join(cells).strip()]
    except csv.Error:
        return []
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
    form: _Form, text: str, header: Sequence[str], found: dict[str, int], wanted: Sequence[str]
) -> dict[str, int]:
    """The columns that are found, and those that what they hold tells: names of pictures, and the only one beside them.

    So a header may be in Chinese, or in any language that is not written in plain letters. In plain ones a name that
    is not known may well be that of something else, as a value that was measured. A column that two aliases may mean is
    left to a person.
    """
    missing = [name for name in wanted if name not in found]
    if not missing or any(_plain(cell) in ALIASES[name] for name in missing for cell in header):
        return found
    try:
        rows = [cells for cells in islice(form.reader(text), 1, LOOKED_AT) if "".join(cells).strip()]
    except csv.Error:
        return found
    if not rows or any(len(cells) != len(header) for cells in rows):
        return found
    named = [at for at, cell in enumerate(header) if cell.strip() and not cell.lower().startswith("unnamed:")]
    pictures = [at for at in named if all(files.is_picture(cells[at].strip()) for cells in rows)]
    if ID in missing and len(pictures) == 1 and not header[pictures[0]].isascii():
        found = {ID: pictures[0], **found}
    others = [at for at in named if at != found.get(ID)]
    if LABEL in missing and ID in found and len(others) == 1 and not header[others[0]].isascii():
        found = {**found, LABEL: others[0]}
    return found


def _without_numbers(form: _Form, text: str, header: Sequence[str], found: dict[str, int]) -> dict[str, int]:
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
            if not number.isdecimal() or not (files.is_picture(name) or "." not in name):
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


def once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems; of a fault that more than LISTED rows have, the first alone, with how many others have it.

    Two rows have the same fault where it has the same remedy.
    """
    problems = list(problems)
    rows: dict[tuple[str, str], list[int]] = {}
    for problem in problems:
        rows.setdefault((problem.file, problem.remedy), []).append(problem.row or 0)
    told: set[tuple[str, str]] = set()
    for problem in problems:
        key = (problem.file, problem.remedy)
        if len(rows[key]) <= LISTED:
            yield problem
        elif key not in told:
            told.add(key)
            others = ", ".join(map(str, rows[key][1:4]))
            seen = f"{problem.seen}; {len(rows[key]) - 1:,} more rows have this fault, such as {others}"
            yield Problem(problem.file, seen, problem.remedy, problem.row)
