"""Sets and lots as people keep them: a plain model of pictures and classes, written down in any way that is read."""

import csv
import hashlib
import io
import os
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from oracle import DAMAGED, EITHER, WHOLE, accepted, peak_bytes, refused, require, require_little_memory

from pipeline.inputs.inputs import read_inputs
from tfrecords.errors import AoiError
from tfrecords.records.schema import UNLABELLED

FOLDS = 2
STEMS = ("a1", "b 2", "圖_3", "défaut4", "x-5", "刮傷(6)", "n.7", "K8", "許功9", "cam1_10:22")
CLASSES = ("OK", "scratch (deep)", "刮傷", "dent")
PICTURES = [cv2.imencode(".png", np.full((4, 4), 20 * gray, np.uint8))[1].tobytes() for gray in range(len(STEMS))]
DIGESTS = [hashlib.sha256(data).digest() for data in PICTURES]
JUNK = ("._{}", ".ipynb_checkpoints/{}", "@eaDir/{}", ".thumbnails/{}", "__MACOSX/._{}", "Thumbs.db", "read me.txt")


@dataclass
class Set:
    """What is to be written down, and how.

    names: of the files, in the folder or zip; ids: of the rows; labels: texts of the rows; numbers: the true labels;
    expected: WHOLE, DAMAGED or EITHER; notes: what was done.
    """

    names: list[str]
    ids: list[str]
    labels: list[str]
    numbers: list[int]
    classes: tuple[str, ...]
    expected: str = WHOLE
    notes: list[str] = field(default_factory=list)

    def damaged(self, expected: str = DAMAGED) -> None:
        self.expected = DAMAGED if DAMAGED in (expected, self.expected) else EITHER


Rng = np.random.Generator


def chance(rng: Rng, share: float) -> bool:
    return bool(rng.random() < share)


def one(rng: Rng, several):
    return several[int(rng.integers(len(several)))]


def model(rng: Rng) -> Set:
    """Two pictures of each of two to four classes, some of them in folders."""
    count = int(rng.integers(2, 5))
    stems = [STEMS[at] for at in rng.permutation(len(STEMS))[: 2 * count]]
    folder = one(rng, ("", "", "part 1/", "左/"))
    names = [f"{folder if chance(rng, 0.5) else ''}{stem}.png" for stem in stems]
    numbers = [at % count for at in range(len(names))]
    classes = tuple(CLASSES[at] for at in rng.permutation(len(CLASSES))[:count])
    return Set(names, list(names), [str(number) for number in numbers], numbers, classes)


# --- Names ------------------------------------------------------------------------------------------------------

SAFE_IDS: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "blanks": lambda name: f" {name}\u3000",
    "./": lambda name: f"./{name}",
    "backslashes": lambda name: name.replace("/", "\\"),
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "full width": lambda name: name.replace("a", "ａ").replace("8", "８"),
}
BOLD_IDS: dict[str, Callable[[str], str]] = {
    "no ending": lambda name: name.removesuffix(".png"),
    "a folder": lambda name: f"train_images/{name}",
    "a long folder": lambda name: f"data/7/{name}",
    "a prefix": lambda name: f"lot7_{name}",
}
FILES: dict[str, Callable[[str], str]] = {
    "files in upper case": str.upper,
    "an ending in upper case": lambda name: name.replace(".png", ".PNG"),
    "decomposed files": lambda name: unicodedata.normalize("NFD", name),
}
AROUND = ("train_images/", "panel 7/", "a/b/", "圖片/")


def spell_names(rng: Rng, made: Set) -> None:
    """Writes IDs and files in other ways that mean the same."""
    for how, change in SAFE_IDS.items():
        if chance(rng, 0.15):
            share = one(rng, (0.3, 1.0))  # of the rows, or all of them
            made.ids = [change(each) if chance(rng, share) else each for each in made.ids]
            made.notes.append(how)
    for how, change in FILES.items():
        if chance(rng, 0.1):
            made.names = list(map(change, made.names))
            made.notes.append(how)
    bold = 0
    if chance(rng, 0.3):
        how = one(rng, list(BOLD_IDS))
        made.ids = list(map(BOLD_IDS[how], made.ids))
        made.notes.append(how)
        bold += 1
        if "blanks" in made.notes or "./" in made.notes:  # within what was put before
            made.damaged(EITHER)
    if chance(rng, 0.2):
        around = one(rng, AROUND)
        made.names = [around + name for name in made.names]
        made.notes.append(f"{around} around")
        bold += 1
    if bold > 1:
        made.damaged(EITHER)


# --- The CSV ----------------------------------------------------------------------------------------------------


def spell_labels(rng: Rng, made: Set) -> bool:
    """Writes the labels in other ways. Returns: whether classes.txt is needed to read them."""
    match rng.integers(5):
        case 0:
            made.labels = [f"{label}.0" for label in made.labels]
        case 1:
            made.labels = [chr(ord("０") + number) for number in made.numbers]
        case 2:
            made.labels = [made.classes[number] for number in made.numbers]
            return True
        case 3:
            made.labels = [f" {label} " for label in made.labels]
    return False


def write_csv(rng: Rng, made: Set, labelled: bool) -> bytes:
    """The CSV, as some program would write it."""
    header = one(rng, (("ID", "Label"), ("ID", "Label"), ("id", "label"), ("ID ", "LABEL"), ("filename", "class")))
    rows = [[each, label] for each, label in zip(made.ids, made.labels, strict=True)]
    table = [list(header), *rows]
    if not labelled and chance(rng, 0.5):
        table = [[row[0]] for row in table]
    if chance(rng, 0.2):
        table = [[str(at), *row, ""] for at, row in enumerate(table)]
    if chance(rng, 0.2):
        table[1:1] = [[""] * len(table[0])]
        table.append([" "] * len(table[0]))
    sign = one(rng, ",,,;\t")
    text = io.StringIO(newline="")
    quoting = one(rng, (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    csv.writer(text, delimiter=sign, quoting=quoting, lineterminator=one(rng, ("\n", "\r\n"))).writerows(table)
    whole = text.getvalue()
    if chance(rng, 0.1):
        whole = f"sep={sign}\r\n{whole}"
    encoding = one(rng, ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp950"))
    try:
        return whole.encode(encoding)
    except UnicodeEncodeError:
        return whole.encode("utf-8")


# --- Damage -----------------------------------------------------------------------------------------------------


def spoil(rng: Rng, made: Set) -> None:
    """One thing that no person would call fine."""
    at = int(rng.integers(len(made.ids)))
    match rng.integers(9):
        case 0:
            made.ids[at], how = "gone.png", "a row without a picture"
        case 1:
            made.ids.append(made.ids[at])
            made.labels.append(made.labels[at])
            made.numbers.append(made.numbers[at])
            how = "a row twice"
        case 2:
            del made.ids[at], made.labels[at], made.numbers[at]
            how = "a picture without a row"
        case 3:
            made.labels, how = [str(number + 1) for number in made.numbers], "labels from 1 on"
        case 4:
            made.labels[at], how = one(rng, ("", "nothing", "-1", "9", "1.5", "0x0")), "a bad label"
        case 5:
            made.ids[at], how = (
                one(rng, ("../{}", "/etc/{}", "C:\\{}", "\\\\host\\{}", "s3://b/{}")),
                "an ID that leaves",
            )
            made.ids[at] = made.ids[at].format(STEMS[at])
        case 6:
            made.ids[at], how = one(rng, ("", " ", "\u3000", "a\x1b[2J.png", "a\u202e.png")), "an ID that is none"
        case 7:
            made.ids, how = [f"cam9_{number}.png" for number in range(len(made.ids))], "other IDs"
        case _:
            for place in (at, at - 1):
                name = made.ids[place]
                last = max(name.rfind("/"), name.rfind("\\")) + 1
                made.ids[place] = f"{name[:last]}q{place}{name[last:]}"
            how = "two other IDs"
    made.notes.append(how)
    made.damaged()


# --- Files ------------------------------------------------------------------------------------------------------


class Raw(zipfile.ZipInfo):
    """An entry whose name is written as it is, without the mark of UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self):
        return self.raw, 0


def pack(rng: Rng, archive: Path, pictures: dict[str, bytes]) -> None:
    """A zip, with names in an encoding that nothing tells, or in UTF-8 with its mark."""
    encoding = one(rng, ("", "", "utf-8", "cp950"))
    if encoding == "cp950" and any(not encodable(name) for name in pictures):
        encoding = "utf-8"
    before, backwards = one(rng, ("", "", "./")), chance(rng, 0.2)
    with zipfile.ZipFile(archive, "w", one(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for at, (name, data) in enumerate(pictures.items()):
            stored = before + name
            if encoding:
                entry = Raw(str(at))
                entry.raw = stored.encode(encoding)
                file.writestr(entry, data)
            else:
                file.writestr(stored.replace("/", "\\") if backwards else stored, data)


def encodable(name: str) -> bool:
    try:
        return name.encode("cp950").decode("cp950") == name
    except UnicodeEncodeError:
        return False


def put(rng: Rng, folder: Path, pictures: dict[str, bytes]) -> None:
    """A folder of files; a folder in it may be a link."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    if inside and folder.name != "data" and chance(rng, 0.3):
        away = folder.parent / f".away {len(pictures)}"
        inside[0].rename(away)
        inside[0].symlink_to(away)


def with_junk(rng: Rng, pictures: dict[str, bytes]) -> dict[str, bytes]:
    """The same, with what programs leave beside pictures."""
    more = {}
    for form in JUNK:
        if chance(rng, 0.1):
            name = one(rng, list(pictures))
            before, _, last = name.rpartition("/")
            more["/".join(filter(None, (before, form.format(last))))] = b"x"
    return pictures | more


def write_set(rng: Rng, made: Set, place: Path, data: dict[str, bytes], zipped: bool) -> None:
    """Pictures at `place`, as a folder or a zip of its name."""
    data = with_junk(rng, data)
    place.parent.mkdir(parents=True, exist_ok=True)
    if zipped:
        pack(rng, place.with_name(f"{place.name}.zip"), data)
        made.notes.append("zip")
    else:
        put(rng, place, data)


# --- Layouts ----------------------------------------------------------------------------------------------------


def by_csv(rng: Rng, root: Path) -> tuple[Set, Path, str]:
    """train.csv and its pictures."""
    made = model(rng)
    named = spell_labels(rng, made)
    spell_names(rng, made)
    if chance(rng, 0.3):
        spoil(rng, made)
    if named or chance(rng, 0.6):
        mark = one(rng, ("", "\ufeff"))
        (root / "classes.txt").write_text(mark + "\n".join(made.classes) + "\n", encoding="utf-8")
    (root / "train.csv").write_bytes(write_csv(rng, made, True))
    place = root / one(rng, ("train_images", "train_images", "train", "images", "Train_Images"))
    if place.name != "images" or made.expected != WHOLE:
        write_set(rng, made, place, dict(zip(made.names, PICTURES, strict=False)), chance(rng, 0.4))
    else:
        put(rng, place, dict(zip(made.names, PICTURES, strict=False)))
    if place.name == "images" and "a picture without a row" in made.notes:
        made.expected = EITHER  # it may belong to the other split
    return made, root, "train"


def by_folders(rng: Rng, root: Path) -> tuple[Set, Path, str]:
    """A folder for each class."""
    made = model(rng)
    pictures = {
        f"{made.classes[number]}/{name}": data
        for name, number, data in zip(made.names, made.numbers, PICTURES, strict=False)
    }
    order = sorted(made.classes)
    if chance(rng, 0.5):
        (root / "classes.txt").write_text("\n".join(made.classes) + "\n", encoding="utf-8")
    else:
        made.numbers = [order.index(made.classes[number]) for number in made.numbers]
        made.classes = tuple(order)
    if chance(rng, 0.2):
        match rng.integers(3):
            case 0:
                pictures["loose.png"] = PICTURES[-1]
            case 1:
                pictures = {f"{made.classes[0]}/{name.replace('/', '_')}": data for name, data in pictures.items()}
            case _:
                pictures["no class/x.png"] = PICTURES[-1]
        made.notes.append("folders spoilt")
        made.damaged()
    place, zipped = root / "train", chance(rng, 0.4)
    if not zipped and made.expected == WHOLE and chance(rng, 0.4):
        place = root
    elif zipped and chance(rng, 0.5):
        pictures = {f"set 1/{name}": data for name, data in pictures.items()}
    write_set(rng, made, place, pictures, zipped)
    return made, root, "train"


def lot(rng: Rng, root: Path) -> tuple[Set, Path, str]:
    """Pictures without labels."""
    made = model(rng)
    made.numbers = [UNLABELLED] * len(made.names)
    pictures = dict(zip(made.names, PICTURES, strict=False))
    match rng.integers(4):
        case 0:  # a folder or zip by itself
            zipped = chance(rng, 0.5)
            write_set(rng, made, root / "lot", pictures, zipped)
            return made, root / ("lot.zip" if zipped else "lot"), "test"
        case 1:
            write_set(rng, made, root / one(rng, ("test_images", "test")), pictures, chance(rng, 0.5))
        case 2:
            pictures = {f"{CLASSES[at % 2]}/{name}": data for at, (name, data) in enumerate(pictures.items())}
            write_set(rng, made, root / "test", pictures, chance(rng, 0.5))
        case _:
            spell_names(rng, made)
            (root / "test.csv").write_bytes(write_csv(rng, made, False))
            write_set(rng, made, root / "test_images", dict(zip(made.names, PICTURES, strict=False)), chance(rng, 0.5))
    return made, root, "test"


def spoilt_file(rng: Rng, root: Path) -> tuple[Set, Path, str]:
    """Bytes of the CSV, of classes.txt or of the zip changed, or a link that leads back."""
    made, data, split = by_csv(rng, root)
    files = [path for path in sorted(root.iterdir()) if path.is_file()]
    if chance(rng, 0.2):
        inside = next(path for path in sorted(root.iterdir()) if path.is_dir() or path.suffix == ".zip")
        if inside.is_dir():
            os.symlink("..", inside / "back")
            made.damaged()
        return made, data, split
    path = one(rng, files)
    changed = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(changed)))
        match rng.integers(4):
            case 0:
                del changed[at:]
                changed += b"x"
            case 1:
                changed[at] ^= 1 << rng.integers(8)
            case 2:
                changed[at:at] = rng.bytes(int(rng.integers(1, 4)))
            case _:
                changed[at : at + 1] = one(rng, (b"\n", b'"', b",", b";", b"\t", b"\0", b" ", b"0", b"1"))
    path.write_bytes(changed)
    made.notes.append(f"{path.name} changed")
    made.expected = EITHER
    return made, data, split


MAKERS = (by_csv, by_csv, by_csv, by_folders, lot, spoilt_file)


def check(made: Set, data: Path, split: str) -> str:
    """EQUAL where every picture has its label, REJECTED where the set was refused with a reason. Raises Wrong."""
    what = f"{', '.join(made.notes)}: {made.ids[:3]} {made.names[:3]} {made.labels[:3]}"
    before = peak_bytes()
    try:
        inputs = read_inputs(str(data), split, FOLDS)
    except AoiError as error:
        require(len(error.problems) <= 2 * len(made.names) + 2, f"{len(error.problems)} problems: {what}")
        if made.expected == WHOLE:
            raise AssertionError(f"{what}: {error}")
        return refused(made.expected, error)
    require_little_memory(before, what)
    read = {row.sha256: row.label for row in inputs.rows if not row.reject}
    require(len({row.id for row in inputs.rows}) == len(inputs.rows), f"an ID twice: {what}")
    if any("changed" in note for note in made.notes):
        require(set(read) <= set(DIGESTS), f"pictures from nowhere: {what}")
        return accepted(made.expected, what)
    true = dict(zip(DIGESTS, made.numbers, strict=False))
    require(read == true, f"not the labels of the pictures: {what}")
    return accepted(made.expected, what)


class Kind:
    """Sets and lots, one at a time."""

    def __init__(self, root: Path):
        self.folder = root / "data"

    def run(self, rng: Rng) -> str:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return check(*one(rng, MAKERS)(rng, self.folder))
