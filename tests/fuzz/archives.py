"""Hostile zips of pictures beside a whole CSV."""

import hashlib
import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from oracle import DAMAGED, EITHER, REJECTED, WHOLE, accepted, refused, rejected, require

from pipeline.inputs.inputs import read_inputs
from tfrecords.errors import AoiError

FOLDS = 2
PICTURES = {
    f"p{gray}.png": cv2.imencode(".png", np.full((5, 5), 30 * gray, np.uint8))[1].tobytes() for gray in range(6)
}
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
METHODS = (*[zipfile.ZIP_STORED] * 3, *[zipfile.ZIP_DEFLATED] * 3, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
JUNK = ("__MACOSX/train_images/._p0.png", "Thumbs.db", "train_images/", "notes.txt", "inner.zip", "p0.png ")
AWAY = ("/etc/p9.png", "../p9.png", "train_images/../../p9.png", "C:\\p9.png", "\\\\host\\p9.png", "~/p9.png")
ODD = ("P0.PNG", "é.png", "圖.png", "a\x1b[2J.png", "a\nb.png", "a\u202eb.png", "x" * 60_000 + ".png")


@dataclass(frozen=True)
class Case:
    """The bytes of train_images.zip. expected: WHOLE, DAMAGED or EITHER."""

    name: str
    data: bytes
    expected: str


def pack(entries: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED, comment=b"") -> bytes:
    """(name, data) pairs as a zip; repeated names are kept."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # of repeated names
        archive.comment = comment
        for name, data in entries:
            archive.writestr(name, data, compress_type=method)
    return buffer.getvalue()


def entries(rng: np.random.Generator) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """All pictures, in any order, with or without the folder's name before them."""
    prefix = "train_images/" if rng.random() < 0.5 else ""
    names = list(PICTURES)
    return [(prefix + names[place], PICTURES[names[place]]) for place in rng.permutation(len(names))]


def places(data: bytes, signature: bytes) -> list[int]:
    """Where a record of this kind begins."""
    found, at = [], data.find(signature)
    while at >= 0:
        found.append(at)
        at = data.find(signature, at + 4)
    return found


def patched(data: bytes, rng: np.random.Generator, local: int, central: int, value: bytes) -> bytes:
    """One entry's field set to `value`, at these offsets in its local and its central record."""
    spoilt = bytearray(data)
    entry = int(rng.integers(len(PICTURES)))
    for signature, offset in ((LOCAL, local), (CENTRAL, central)):
        at = places(data, signature)[entry] + offset
        spoilt[at : at + len(value)] = value
    return bytes(spoilt)


def whole(rng: np.random.Generator) -> Case:
    packed = entries(rng)
    junk = [(name, b"" if name.endswith("/") else b"x") for name in JUNK if rng.random() < 0.3]
    method = METHODS[rng.integers(len(METHODS))]
    data = pack([*junk, *packed], method, comment=rng.bytes(3).hex().encode())
    if rng.random() < 0.2:
        data = b"#!/bin/sh\nexit\n" + data  # as a self-extracting file begins
    return Case(f"whole, method {method}", data, WHOLE)


def cut(rng: np.random.Generator) -> Case:
    data = pack(entries(rng), METHODS[rng.integers(len(METHODS))])  # without a comment, of which nothing depends
    return Case("cut", data[: rng.integers(len(data))], DAMAGED)


def flipped(rng: np.random.Generator) -> Case:
    data = bytearray(whole(rng).data)
    for _ in range(int(rng.integers(1, 4))):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return Case("bits flipped", bytes(data), EITHER)


def flipped_in_the_directory(rng: np.random.Generator) -> Case:
    data = bytearray(whole(rng).data)
    start = places(bytes(data), CENTRAL)[0]
    for _ in range(int(rng.integers(1, 6))):
        data[rng.integers(start, len(data))] = rng.integers(256)
    return Case("directory changed", bytes(data), EITHER)


def encrypted(rng: np.random.Generator) -> Case:
    return Case("encrypted", patched(pack(entries(rng)), rng, 6, 8, b"\x01\x00"), DAMAGED)


def unknown_method(rng: np.random.Generator) -> Case:
    method = int(rng.choice([1, 6, 9, 14, 93, 95, 97, 98, 99, 65535]))
    return Case(f"method {method}", patched(pack(entries(rng)), rng, 8, 10, struct.pack("<H", method)), DAMAGED)


def wrong_size(rng: np.random.Generator) -> Case:
    sizes = struct.pack("<II", *(int(2 ** rng.uniform(0, 32)) for _ in range(2)))
    method = METHODS[rng.integers(len(METHODS))]
    return Case("wrong sizes", patched(pack(entries(rng), method), rng, 18, 20, sizes), EITHER)


def zip64(rng: np.random.Generator) -> Case:
    """Sizes and places of 64 bits, made up."""
    numbers = [int(2 ** rng.uniform(0, 64)) - 1 for _ in range(3)]
    packed = []
    for name, data in entries(rng):
        info = zipfile.ZipInfo(str(name))
        info.extra = struct.pack("<HHQQQ", 1, 24, *numbers)
        packed.append((info, data))
    data = bytearray(pack(packed))
    at = places(bytes(data), CENTRAL)[int(rng.integers(len(packed)))]
    data[at + 20 : at + 28] = b"\xff" * 8
    data[at + 42 : at + 46] = b"\xff" * 4
    return Case("zip64", bytes(data), EITHER)


def symlink(rng: np.random.Generator) -> Case:
    packed = entries(rng)
    at = int(rng.integers(len(packed)))
    info = zipfile.ZipInfo(str(packed[at][0]))
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    target = (b"/etc/passwd", b"p0.png", b"../../secret.png")[rng.integers(3)]
    packed[at] = (info, target)
    return Case("a symlink", pack(packed), DAMAGED)


def with_name(rng: np.random.Generator) -> Case:
    """One more picture, under a name that leads away, stands there already, or is odd."""
    packed = entries(rng)
    taken = [f"{prefix}{name}" for name in PICTURES for prefix in ("", "train_images/")]
    name = (taken, AWAY, ODD)[rng.integers(3)]
    return Case("another name", pack([*packed, (name[rng.integers(len(name))], PICTURES["p0.png"])]), DAMAGED)


def in_another_encoding(rng: np.random.Generator) -> Case:
    """A name in bytes of another encoding, with or without the mark of UTF-8."""
    data = pack([*entries(rng), ("q12345.png", PICTURES["p0.png"])])
    other = ("é", "圖", "ス", "д")[rng.integers(4)].encode(
        ("cp1252", "big5", "shift_jis", "koi8-r")[rng.integers(4)], "replace"
    )
    data = data.replace(b"q12345.png", (other * 6)[:6] + b".png")
    if rng.random() < 0.5:
        spoilt = bytearray(data)
        spoilt[places(data, LOCAL)[-1] + 7] |= 8
        spoilt[places(data, CENTRAL)[-1] + 9] |= 8
        data = bytes(spoilt)
    return Case("another encoding", data, DAMAGED)


def nested(rng: np.random.Generator) -> Case:
    inner = pack(entries(rng))
    if rng.random() < 0.5:
        return Case("a zip in the zip", pack([("train_images.zip", inner)]), DAMAGED)
    return Case("a zip as a picture", pack([(name, inner) for name, _ in entries(rng)]), DAMAGED)


def another_file(rng: np.random.Generator) -> Case:
    files = (
        b"",
        b"PK",
        END + bytes(18),
        rng.bytes(200),
        PICTURES["p0.png"],
        b"Rar!\x1a\x07\x00",
        b"7z\xbc\xaf\x27\x1c",
        pack([]),
    )
    return Case("another file", files[rng.integers(len(files))], DAMAGED)


MAKERS: tuple[Callable[[np.random.Generator], Case], ...] = (
    *(whole, cut, flipped, flipped, flipped_in_the_directory, flipped_in_the_directory, encrypted, unknown_method),
    *(wrong_size, zip64, symlink, with_name, in_another_encoding, nested, another_file),
)


def make(rng: np.random.Generator) -> Case:
    """Any case; all its chances come from `rng`."""
    return MAKERS[rng.integers(len(MAKERS))](rng)


def check(folder: Path, case: Case) -> str:
    """EQUAL or REJECTED, for case.data as folder/train_images.zip. A picture is whole or rejected, each by itself."""
    (folder / "train_images.zip").write_bytes(case.data)
    try:
        inputs = read_inputs(str(folder), "train", FOLDS)
    except AoiError as error:
        return refused(case.expected, error)
    require([row.id for row in inputs.rows] == list(PICTURES), f"not the rows of the CSV: {case.name}")
    for row in inputs.rows:
        own = hashlib.sha256(PICTURES[row.id]).digest()
        require(bool(row.reject) or row.sha256 == own, f"not the bytes that were packed as {row.id}: {case.name}")
    reasons = [row.reject.reason for row in inputs.rows if row.reject]
    for reason in reasons:
        rejected(case.expected, reason)
    return REJECTED if reasons else accepted(case.expected, case.name)


class Kind:
    """Zips, one at a time, beside one CSV."""

    def __init__(self, root: Path):
        self.folder = root / "data"
        self.folder.mkdir()
        (self.folder / "classes.txt").write_text("good\nbad\n")
        rows = [f"{name},{index % 2}" for index, name in enumerate(PICTURES)]
        (self.folder / "train.csv").write_text("\n".join(["ID,Label", *rows]) + "\n")

    def run(self, rng: np.random.Generator) -> str:
        return check(self.folder, make(rng))
