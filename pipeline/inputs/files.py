"""Reading inputs where they lie: a folder or a zip, on this machine or anywhere Beam's filesystems reach."""

import errno
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from pipeline import store
from pipeline.inputs.names import is_hidden
from pipeline.store import is_remote as is_remote
from tfrecords.pictures.errors import PictureError

# What reading a folder or zip, or one picture of it, may raise: gone, unreadable, encrypted, damaged.
READ_ERRORS = (
    *(OSError, EOFError, RuntimeError, KeyError, ValueError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
# Out of memory, handles or space; a mount or a network that is away. Windows lacks some of them.
PASSING_NAMES = (
    *("ENOMEM", "EMFILE", "ENFILE", "EAGAIN", "ENOSPC", "ESTALE", "ENOTCONN", "ESHUTDOWN", "EREMOTEIO", "ENOLINK"),
    *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH"),
)
PASSING = {getattr(errno, name) for name in PASSING_NAMES if hasattr(errno, name)}
HEAD_ROOM = 64  # bytes that an entry's own header may be longer than the list of entries tells; more costs a request
MAX_TEXT = 1 << 20  # bytes of a list of names in a zip
MAX_BYTES = 512 << 20  # of one picture; a larger file, or one that unpacks to more, is refused before it is read


def reason(error: Exception) -> str:
    """What an error says, or its kind where it says nothing."""
    return str(error) or type(error).__name__


def remedy(error: Exception, otherwise: str) -> str:
    """What helps against one of READ_ERRORS; `otherwise` where its kind does not tell."""
    if isinstance(error, PermissionError):
        return "allow this account to read it (its permissions)"
    if isinstance(error, RuntimeError):  # zipfile's for a password, or for a compression that Python does not know
        return "pack the zip again, without a password and with the usual compression (deflate)"
    return error.remedy if isinstance(error, PictureError) else otherwise


def may_pass(error: Exception) -> bool:
    """Whether an error is the system's and not the picture's: no memory or handles left, a mount that is away."""
    return isinstance(error, (ConnectionError, TimeoutError)) or getattr(error, "errno", None) in PASSING


def join(folder: str, name: str) -> str:
    """The path of a name in a folder, zip or store; with forward slashes everywhere."""
    return f"{folder.rstrip('/')}/{name}"


def exists(path: str) -> bool:
    """Whether there is a file or a folder at `path`."""
    return store.exists(path) if is_remote(path) else Path(path).exists()


def read_bytes(path: str) -> bytes:
    """The whole file. Raises: OSError; AoiError for a store that refuses or does not answer."""
    if is_remote(path):
        return store.read(path)
    with open(path, "rb") as file:
        return file.read()


def child(folder: str, *names: str) -> str | None:
    """The first of these that is there, as its path; also where its letters are of another case alone."""
    for name in names:
        if exists(join(folder, name)):
            return join(folder, name)
    if is_remote(folder) or not os.path.isdir(folder):
        return None
    there = sorted(os.listdir(folder))
    for name in names:
        same = [each for each in there if each.lower() == name.lower()]
        if len(same) == 1:
            return join(folder, same[0])
    return None


def text_in_zip(path: str, name: str) -> tuple[str, bytes] | None:
    """Name and content of the file in a zip that is called `name`, the least deep one; None where there is none.

    A zip that can't be read has none: that is told where its pictures are listed.
    """
    with suppress(*READ_ERRORS), opened_zip(path) as archive:
        found = [each for each in archive.namelist() if not is_hidden(each)]
        found = [each for each in found if each.replace("\\", "/").rpartition("/")[2].lower() == name]
        if found:
            first = min(found, key=lambda each: (each.replace("\\", "/").count("/"), each))
            if archive.getinfo(first).file_size <= MAX_TEXT:
                return first, archive.read(first)
    return None


def is_zip(container: str) -> bool:
    """Whether a container is a zip, by its name: it is no folder that is called so."""
    return container.lower().endswith(".zip") and not os.path.isdir(container)


@contextmanager
def opened(container: str) -> Iterator[Callable[[str], bytes]]:
    """A function that reads one file of a folder or zip by its name; threads may share it.

    Raises (the function too): READ_ERRORS.
    """
    if is_zip(container):
        with opened_zip(container) as archive:

            def unpack(name: str) -> bytes:
                entry = archive.getinfo(name)
                refuse_large(entry.file_size)
                if not isinstance(archive.fp, store.Parts):
                    return archive.read(name)
                head = zipfile.sizeFileHeader + 4 * len(entry.orig_filename) + len(entry.extra) + HEAD_ROOM
                with archive.fp.holding(entry.header_offset, entry.header_offset + head + entry.compress_size):
                    return archive.read(name)

            yield unpack
    else:

        def read(name: str) -> bytes:
            path = join(container, name)
            if not is_remote(path):
                refuse_large(os.path.getsize(path))
            return read_bytes(path)

        yield read


def refuse_large(size: int) -> None:
    """Raises PictureError for a file of more than MAX_BYTES."""
    if size > MAX_BYTES:
        seen = f"it holds {size:,} bytes, more than {MAX_BYTES:,}"
        raise PictureError(seen, "save the picture as a smaller file")


@contextmanager
def opened_zip(path: str) -> Iterator[zipfile.ZipFile]:
    if store.has_parts(path):
        yield _zip_of(store.Parts(path))
        return
    source = io.BytesIO(read_bytes(path)) if is_remote(path) else path
    with zipfile.ZipFile(source) as archive:
        yield archive


@lru_cache(maxsize=1)  # so that a worker reads the list of entries once, and not for every shard
def _zip_of(parts: store.Parts) -> zipfile.ZipFile:
    return zipfile.ZipFile(parts)
