"""Reading inputs where they lie: a folder or a zip, on this machine or anywhere Beam's filesystems reach."""

import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfrecords.pictures.errors import PictureError

# What reading a folder or zip, or one picture of it, may raise: gone, unreadable, encrypted, damaged.
READ_ERRORS = (
    *(OSError, EOFError, RuntimeError, KeyError, ValueError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
MAX_BYTES = 512 << 20  # of one picture; a larger file, or one that unpacks to more, is refused before it is read


def is_remote(path: str) -> bool:
    """Whether a path names a filesystem (gs://, s3://, hdfs://) rather than this machine."""
    return "://" in path


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


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def exists(path: str) -> bool:
    """Whether there is a file or a folder at `path`."""
    if not is_remote(path):
        return Path(path).exists()
    filesystems = _filesystems()
    return filesystems.exists(path) or bool(filesystems.match([join(path, "**")], limits=[1])[0].metadata_list)


def read_bytes(path: str) -> bytes:
    """The whole file. Raises: OSError."""
    with _filesystems().open(path) if is_remote(path) else open(path, "rb") as file:
        return file.read()


def list_pictures(container: str) -> list[str]:
    """Names of all PNG files in a folder (below it too) or a zip, relative to it, sorted, repeats kept.

    Raises: READ_ERRORS.
    """
    if is_zip(container):
        with _opened_zip(container) as archive:
            names = [entry.filename for entry in archive.infolist()]
    elif is_remote(container):
        prefix = join(container, "")
        names = [file.path.removeprefix(prefix) for file in _filesystems().match([prefix + "**"])[0].metadata_list]
    else:
        names = list(_in_folder(container))
    return sorted(name for name in names if name.lower().endswith(".png") and not name.startswith("__MACOSX/"))


def _in_folder(container: str) -> Iterator[str]:
    """Files at any depth; a link to a folder is not entered, nor one that can't be read: rows tell what is missing.

    Raises: OSError where the container itself can't be read.
    """
    os.scandir(container).close()
    for folder, _, names in os.walk(container):
        inside = Path(folder).relative_to(container).as_posix()
        whole = (name for name in names if os.path.isfile(os.path.join(folder, name)))
        yield from whole if inside == "." else (join(inside, name) for name in whole)


def is_zip(container: str) -> bool:
    return container.lower().endswith(".zip")


@contextmanager
def opened(container: str) -> Iterator[Callable[[str], bytes]]:
    """A function that reads one file of a folder or zip by its name; threads may share it.

    Raises (the function too): READ_ERRORS.
    """
    if is_zip(container):
        with _opened_zip(container) as archive:

            def unpack(name: str) -> bytes:
                _refuse_large(archive.getinfo(name).file_size)
                return archive.read(name)

            yield unpack
    else:

        def read(name: str) -> bytes:
            path = join(container, name)
            if not is_remote(path):
                _refuse_large(os.path.getsize(path))
            return read_bytes(path)

        yield read


def _refuse_large(size: int) -> None:
    if size > MAX_BYTES:
        seen = f"it holds {size:,} bytes, more than {MAX_BYTES:,}"
        raise PictureError(seen, "save the picture as a smaller file, or take it out with its row")


@contextmanager
def _opened_zip(path: str) -> Iterator[zipfile.ZipFile]:
    source = io.BytesIO(read_bytes(path)) if is_remote(path) else path
    with zipfile.ZipFile(source) as archive:
        yield archive


def _filesystems() -> Any:
    from apache_beam.io.filesystems import FileSystems  # a second to import, and only remote paths need it

    return FileSystems
