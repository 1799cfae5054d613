"""Files that appear whole or not at all, and hashes of them."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tfrecords.system import locked, rename, sync

BLOCK_BYTES = 65536


def hash_json(value: Any) -> str:
    """First 16 hex digits of the sha256 of `value` as canonical JSON (keys sorted, no blanks)."""
    return hashlib.sha256(_canonical(value)).hexdigest()[:16]


def hash_json_rows(values: Sequence[Any], parts: Iterable[Iterable[Sequence[Any]]]) -> str:
    """What `hash_json` gives of [*values, rows], with the rows in parts, of which one is in memory at a time."""
    hashed = hashlib.sha256(_canonical(values)[:-1] + b",[")
    comma = b""
    for part in parts:
        hashed.update(comma + _canonical(list(part))[1:-1])
        comma = b","
    hashed.update(b"]]")
    return hashed.hexdigest()[:16]


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")  # of names of files, which Linux takes in any encoding


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well; readers see the old one or the new one, no part."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # unlike any other machine's on a shared disk
    try:
        with open(aside, "xb") as file:
            yield file
        rename(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """A folder, empty at first, that takes the place of the one at `path` when the block ends well; nobody sees a part
    of it. Callers take turns.
    """
    aside, former = (path.with_name(f".{path.name}.{what}") for what in ("tmp", "old"))
    with locked(path.with_name(f".{path.name}.lock")):
        try:
            for left in (aside, former):  # by one that was killed
                shutil.rmtree(left, ignore_errors=True)
            aside.mkdir()
            yield aside
            for file in aside.rglob("*"):
                sync(file)
            if path.exists():
                rename(path, former)
            rename(aside, path)
            sync(path.parent)
        finally:
            for left in (aside, former):
                shutil.rmtree(left, ignore_errors=True)


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text file, or the pieces of one, as `appearing` does, and safe from a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as file:
        file.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line: what stands behind it, a killed process wrote in part."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - BLOCK_BYTES)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0
