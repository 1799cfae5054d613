"""Hostile CSVs beside a folder of whole pictures."""

import csv
import io
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from oracle import DAMAGED, EITHER, WHOLE, accepted, refused, require

from pipeline.inputs.inputs import read_inputs
from tfrecords.errors import AoiError

FOLDS = 2
NAMES = ("a.png", "b.png", "sub/c.png", "d e.png", "é.png", 'f,"g".png', "圖.png", "h.PNG")
ROWS = [(name, str(index % 2)) for index, name in enumerate(NAMES)]
IDS, LABELS = ("id", "filename", "imageid", "file", "image", "path"), ("label", "class", "labels")
BAD_LABELS = ("", "-1", "2", "+1", "1.5", "1e0", "one", "0x1", "٠", "1 0", "9" * 5000, "True", "NaN", "1\x1d0")
ODD_LABELS = {"0": ("0.0", "０", " 00 ", "good", "Good", "０，００"), "1": ("1.00", "１", "01", "bad", "ＢＡＤ", "1,0")}
BAD_IDS = ("", " ", "../a.png", "/etc/hosts.png", "a\\b.png", "C:a.png", "gs://b/a.png", "a\x1b[2J.png", "a\u202e.png")


@dataclass(frozen=True)
class Case:
    """The bytes of train.csv. expected: WHOLE, DAMAGED or EITHER."""

    name: str
    data: bytes
    expected: str


def write(rows: list[tuple[str, ...]], **dialect) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **dialect).writerows(rows)
    return text.getvalue()


def table(rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Header and rows, in any order."""
    return [("ID", "Label"), *(ROWS[place] for place in rng.permutation(len(ROWS)))]


def whole(rng: np.random.Generator) -> Case:
    rows, dialect = table(rng), {}
    match rng.integers(7):
        case 0:
            dialect = {"quoting": csv.QUOTE_ALL}
        case 1:
            dialect = {"lineterminator": "\n"}
        case 2:
            rows = [row[::-1] for row in rows]
        case 3:
            rows = [(*row, rng.bytes(3).hex()) for row in rows]
        case 4:
            rows = [rows[0], *((name, f" 0{label} ") for name, label in rows[1:])]
        case 5:
            return Case("blank lines", write(rows).replace("\r\n", "\r\n\r\n").encode(), WHOLE)
        case 6:
            return Case("no end of line at the end", write(rows).rstrip().encode(), WHOLE)
    return Case(f"whole, {dialect}", write(rows, **dialect).encode(), WHOLE)


def encoded(rng: np.random.Generator) -> Case:
    """In another encoding; those that lack a letter of the names give another name."""
    names = ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32", "cp1252", "shift_jis", "cp950", "utf-7")
    name = names[rng.integers(len(names))]
    return Case(name, write(table(rng)).encode(name, "replace"), WHOLE if names.index(name) < 4 else DAMAGED)


def delimited(rng: np.random.Generator) -> Case:
    """With other signs between the fields, said in Excel's way or not."""
    sign = "\t;|: "[rng.integers(5)]
    hint = f"sep={sign}\r\n" if rng.random() < 0.4 else ""
    known = bool(hint) or sign in "\t;"
    return Case(f"{sign!r}", (hint + write(table(rng), delimiter=sign)).encode(), WHOLE if known else DAMAGED)


def odd_row(rng: np.random.Generator) -> Case:
    """One row, or the header, that is written otherwise and means the same."""
    rows = table(rng)
    at = int(rng.integers(1, len(rows)))
    name, label = rows[at]
    odd = ODD_LABELS[label]
    changes: list[tuple[str, ...]] = [
        *((name, other) for other in odd),
        *((name, label, more) for more in ("", " ", "\u3000")),
        *((other, label) for other in (f" {name}", f"{name}\u3000", f"./{name}", name.swapcase(), name[:-4])),
        (unicodedata.normalize("NFD", name), label),
        (name.replace("/", "\\"), label),
    ]
    rows[at] = changes[rng.integers(len(changes))]
    headers = (("ID", "Label"), ("id", "label"), (" ID", "Label "), ("File Name", "class"), ("image_id", "LABEL"))
    if len(rows[at]) == 2 and rows[at][0].lower().endswith(".png"):
        headers = (*headers, ("檔名", "類別"))
    rows[0] = headers[rng.integers(len(headers))]
    rows[at:at] = [("", " ")] * int(rng.integers(3))
    return Case(f"odd row {rows[at]!r:.60}", write(rows).encode(), WHOLE)


def spoilt_row(rng: np.random.Generator) -> Case:
    """One thing wrong with one row, or with the header."""
    rows = table(rng)
    at = int(rng.integers(1, len(rows)))
    name, label = rows[at]
    changes: list[tuple[str, ...] | None] = [
        *((name, bad) for bad in BAD_LABELS),
        *((bad, label) for bad in BAD_IDS),
        *((name, label, "x"), (name,), (f"{name}x", label), ("x" * 140_000, label), None),
    ]
    changed = changes[rng.integers(len(changes))]
    rows[at : at + 1] = [] if changed is None else [changed]
    return Case(f"row {changed!r:.60}", write(rows).encode(), DAMAGED)


def spoilt_table(rng: np.random.Generator) -> Case:
    rows = table(rng)
    at = int(rng.integers(1, len(rows)))
    text = write(rows)
    half = len(text) // 2
    texts = {
        "empty": "",
        "the header alone": "ID,Label\r\n",
        "no header": write(rows[1:]),
        "another header": text.replace("ID,Label", "name,value"),
        "two columns that may be meant": text.replace("ID,Label", "file,image,Label"),
        "a row twice": write([*rows, rows[at]]),
        "a row without a picture": write([*rows, ("z.png", "0")]),
        "a NUL": text[:half] + "\0" + text[half:],
        "a quote that nothing closes": text + '"',
        "words after a quoted field": text + '"a"b.png,0\r\n',
        "a huge field": text + '"' + "x" * 200_000 + '",0\r\n',
        "many fields": text + "x," * 50_000,
    }
    name = list(texts)[rng.integers(len(texts))]
    return Case(name, texts[name].encode(), DAMAGED)


def random_bytes(rng: np.random.Generator) -> Case:
    """A whole table that was cut, or of which any bytes were changed, put in or taken out."""
    data = bytearray(whole(rng).data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data)))
        match rng.integers(4):
            case 0:
                del data[at:]
                data += b"x"
            case 1:
                data[at] ^= 1 << rng.integers(8)
            case 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 5)))
            case 3:
                data[at : at + 1] = b'\r\n",;\t\0 '[rng.integers(8) :][:1]
    return Case("random changes", bytes(data), EITHER)


MAKERS: tuple[Callable[[np.random.Generator], Case], ...] = (
    *(
        whole,
        encoded,
        delimited,
        odd_row,
        odd_row,
        spoilt_row,
        spoilt_row,
        spoilt_table,
        random_bytes,
        random_bytes,
        random_bytes,
    ),
)


def make(rng: np.random.Generator) -> Case:
    """Any case; all its chances come from `rng`."""
    return MAKERS[rng.integers(len(MAKERS))](rng)


def write_pictures(data: Path) -> None:
    """The pictures that ROWS names, in data/train_images, and two classes."""
    for gray, name in enumerate(NAMES):
        path = data / "train_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((4, 4), gray, np.uint8))[1].tobytes())
    (data / "classes.txt").write_text("good\nbad\n")


def plain(name: str) -> str:
    """What a person means by an ID: without case, blanks, ending, and ways to write letters and slashes."""
    letters = unicodedata.normalize("NFKC", name).strip().casefold().replace("\\", "/")
    return letters.removeprefix("./").removesuffix(".png")


def reference(data: bytes) -> list[tuple[str, int]]:
    """(plain ID, label) of every row as Python's own csv module reads them, with the help of few plain rules."""
    text = decoded(data)
    first, _, rest = text.partition("\n")
    signs = ",;\t"
    if first.startswith("sep="):
        text, signs = rest, first[4]
    for sign in signs:
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=sign)
        columns = ["".join(c for c in cell.lower() if c not in "_-" and not c.isspace()) for cell in header]
        ids = [at for at, name in enumerate(columns) if name in IDS]
        labels = [at for at, name in enumerate(columns) if name in LABELS]
        if not (ids and labels) and len(columns) == 2 and not "".join(header).isascii():  # told by what they hold
            ids = [
                at
                for at in (0, 1)
                if all(row[at].strip().lower().endswith(".png") for row in rows if "".join(row).strip())
            ]
            labels = [at for at in (0, 1) if at not in ids]
        if ids and labels:
            break
    numbers = {"good": 0, "bad": 1}
    read = []
    for cells in rows:
        if "".join(cells).strip():
            label = unicodedata.normalize("NFKC", cells[labels[0]]).strip().lower()
            number = numbers[label] if label in numbers else int(float(label.replace(",", ".")))
            read.append((plain(cells[ids[0]]), number))
    return read


def decoded(data: bytes) -> str:
    """The text, in the first encoding that fits."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if data.count(0) > len(data) // 4:
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp950")


def check(folder: Path, case: Case) -> str:
    """EQUAL or REJECTED, for case.data as folder/train.csv. Raises Wrong, or what the code under test lets through."""
    (folder / "train.csv").write_bytes(case.data)
    try:
        inputs = read_inputs(str(folder), "train", FOLDS)
    except AoiError as error:
        return refused(case.expected, error)
    read = [(plain(row.id), row.label) for row in inputs.rows]
    require(read == reference(case.data), f"not what the CSV says: {case.name}")
    require(sorted(row.name for row in inputs.rows) == sorted(NAMES), f"not the pictures of the folder: {case.name}")
    require(all(plain(row.id) == plain(row.name) for row in inputs.rows), f"not the picture that is meant: {case.name}")
    require(all(row.sha256 and not row.reject for row in inputs.rows), f"a whole picture was rejected: {case.name}")
    return accepted(case.expected, case.name)


class Kind:
    """CSVs, one at a time, in one folder of pictures."""

    def __init__(self, root: Path):
        self.folder = root / "data"
        write_pictures(self.folder)
        (self.folder / "train.csv").touch()

    def run(self, rng: np.random.Generator) -> str:
        return check(self.folder, make(rng))
