"""Reading inputs where they lie: a folder or a zip, on this machine or anywhere Beam's filesystems reach."""

import errno
import io
import json
import lzma
import os
import re
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pipeline import store
from pipeline.store import is_remote as is_remote
from tfrecords.artifacts.manifest import CHECKSUM, MANIFEST
from tfrecords.errors import printable, refuse, sentence
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import SUFFIXES

# What reading a folder or zip, or one picture of it, may raise: gone, unreadable, encrypted, damaged.
READ_ERRORS = (
    *(OSError, EOFError, RuntimeError, KeyError, ValueError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
# Folders that a Mac, a NAS or a recycle bin adds; names that begin with a dot are passed over too.
NOT_BY_PEOPLE = (
    *("__macosx", "@eadir", "$recycle.bin", "recycler", "system volume information", "lost+found"),
    *("#recycle", "@recycle", "#snapshot", "@recently-snapshot", "~snapshot", "@tmp", "@sharebin"),
)
HIDDEN = re.compile(
    rf"(?:^|[/\\])(?:\.+[^./\\]|(?:{'|'.join(map(re.escape, NOT_BY_PEOPLE))})(?:[/\\]|\Z))", re.IGNORECASE
)
AS_STORED = ""  # the encoding of names that are taken as they are
JAPANESE = ("HIRAGANA", "KATAKANA", "CJK UNIFIED")  # what names of such letters begin with
ENCRYPTED, UTF8_FLAG, DEFLATE64 = 0x1, 0x800, 9  # of an entry in a zip
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


class Stored(NamedTuple):
    """A picture in a folder or zip.

    name: as it is stored there, by which it is read; spellings: the names that a person may know it by, one for each of
    the listing's encodings, with forward slashes; hidden: systems and programs put it there, not people; linked: it
    lies behind a link to a folder.
    """

    name: str
    spellings: tuple[str, ...]
    hidden: bool = False
    linked: bool = False


class Listing(NamedTuple):
    """What a folder or zip holds.

    pictures: sorted by name, repeats kept; encodings: in which their names may be meant, the likeliest first (AS_STORED
    is one of them); others: how many other files there are of each ending, and how many links that lead nowhere.
    """

    pictures: tuple[Stored, ...]
    encodings: tuple[str, ...]
    others: Mapping[str, int]


def list_pictures(container: str) -> Listing:
    """All files in a folder (below it too) or a zip whose names end as a picture's do.

    Raises: READ_ERRORS; AoiError for a zip that can't be read as a whole, and for links that lead in a circle.
    """
    linked: set[str] = set()
    nowhere = 0
    doubtful: dict[str, bytes] = {}
    if is_zip(container):
        with _opened_zip(container) as archive:
            entries = [entry for entry in archive.infolist() if is_picture(entry.filename)]
            names = [entry.filename for entry in archive.infolist()]
        _refuse_packing(container, entries)
        for entry in entries:
            if not entry.filename.isascii() and not entry.flag_bits & UTF8_FLAG:
                with suppress(UnicodeEncodeError):  # a newer Python has read the name from the entry's extra field
                    doubtful[entry.filename] = entry.filename.encode("cp437")
    elif is_remote(container):
        names = store.names_below(container)
    else:
        found = list(_in_folder(container))
        names, linked = [each.name for each in found if each.there], {each.name for each in found if each.linked}
        nowhere = sum(not each.there for each in found)
        doubtful = {name: os.fsencode(name) for name in names if not (name.isascii() or is_unicode(name))}
    pictures = sorted(filter(is_picture, names))
    others = Counter(
        os.path.splitext(name)[1].lower()
        for name in sorted(set(names).difference(pictures))
        if not name.endswith("/") and not is_hidden(name)
    ) + Counter({"link(s) that lead nowhere": nowhere})
    encodings, spelled = _spellings(pictures, doubtful)
    if encodings == (AS_STORED,) and is_zip(container) and (strange := list(filter(_is_strange, doubtful))):
        seen = f"its names are in no encoding that is known, such as {printable(strange[0])[:80]!r}"
        raise refuse(container, seen, "Pack the zip again with names in UTF-8, as 7-Zip does with -mcu")
    return Listing(
        tuple(
            Stored(name, tuple(map(_path, spellings)), is_hidden(name), name in linked)
            for name, spellings in zip(pictures, spelled, strict=True)
        ),
        encodings,
        dict(others.most_common()),
    )


def is_picture(name: str) -> bool:
    """Whether a name ends as that of a picture's file."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a name, or a folder in it, is one that systems and programs make, not people."""
    return HIDDEN.search(name) is not None


def is_made_here(folder: str) -> bool:
    """Whether a folder is a HOME or a finished result: pictures in it are figures, and no person's."""
    if os.path.isfile(join(folder, "latest/data.json")):
        return True
    try:
        return CHECKSUM in json.loads(Path(folder, MANIFEST).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def holds_picture(folder: str) -> bool:
    """Whether there is a picture in a folder or below it, that a person put there."""
    waiting, entered = [folder], set()
    for top in waiting:
        if os.path.islink(top) and _leads_back(top):
            return True  # listing the folder refuses the link
        real = os.path.realpath(top)
        if real in entered or is_made_here(top):
            continue
        entered.add(real)
        try:
            with os.scandir(top) as entries:  # up to the first picture
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif is_picture(entry.name):
                        return True
        except FileNotFoundError:
            continue
        except OSError:
            return True  # listing the folder refuses it
    return False


def _path(name: str) -> str:
    """The name with forward slashes, without what means nothing: a/./b//c.png is a/b/c.png."""
    name = name.replace("\\", "/")
    if "./" not in name and "//" not in name:
        return name
    parts = name.split("/")
    return "/".join(part for at, part in enumerate(parts) if part not in (".", "") or (at == 0 and not part))


def is_unicode(name: str) -> bool:
    """Whether a name is text; one in another encoding than the system's is not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_strange(name: str) -> bool:
    """Whether a name of a zip, read as DOS wrote it, is likely in another encoding: it has signs that are no letters of
    western names, or is Japanese where it is read as that.
    """
    if set(name.encode("cp437")).difference(range(0xA9)):
        return True
    with suppress(UnicodeDecodeError):
        read = name.encode("cp437").decode("cp932")
        return all(unicodedata.name(c, "").startswith(JAPANESE) for c in read if not c.isascii())
    return False


def _spellings(names: Sequence[str], doubtful: Mapping[str, bytes]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The encodings in which all names can be meant, the likeliest first; and every name in each of them.

    doubtful: the bytes of names whose encoding nothing tells.
    """
    wrong = {} if doubtful else {name: _unread(name) for name in names if not name.isascii()}
    known: dict[str, dict[str, str]] = {AS_STORED: {}}
    for encoding, bytes_of in (("utf-8", doubtful), ("cp950", doubtful), ("utf-8", wrong), ("cp950", wrong)):
        with suppress(UnicodeError):
            if bytes_of:
                known[encoding] = {name: data.decode(encoding) for name, data in bytes_of.items()}
    if len(known) == 1:
        return (AS_STORED,), [(name,) for name in names]
    encodings = sorted(known, key=lambda encoding: encoding == AS_STORED) if doubtful else list(known)
    return tuple(encodings), [tuple(known[encoding].get(name, name) for encoding in encodings) for name in names]


def _unread(name: str) -> bytes:
    """The bytes of a name that a program unpacked as if it were in the encoding of DOS; what can't be such is kept."""
    try:
        return name.encode("cp437")
    except UnicodeEncodeError:
        return b"\xff"  # in no encoding a letter


def _refuse_packing(container: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raises AoiError for a zip none of whose pictures could be unpacked, or that Python can't unpack by its method."""
    again = "Pack the zip again, without a password and with the usual compression (deflate)"
    for entry in entries:
        if entry.compress_type == DEFLATE64:
            seen = f"{entry.filename[:80]} is packed with Deflate64, which is not read"
            raise refuse(container, seen, f"{again}; Windows' Explorer takes Deflate64 for large files, 7-Zip need not")
    if len(entries) > 1 and all(entry.flag_bits & ENCRYPTED for entry in entries):
        raise refuse(container, f"all of its {len(entries):,} pictures are encrypted", again)


class _File(NamedTuple):
    """linked: whether it lies behind a link to a folder; there: whether it is no link that leads nowhere."""

    name: str
    linked: bool
    there: bool = True


def _in_folder(container: str) -> Iterator[_File]:
    """The files at any depth; each folder is entered once.

    Raises:
        OSError: the container itself can't be read. AoiError: a folder in it can't be, or a link leads back to a
            folder that it lies in.
    """
    os.scandir(container).close()
    entered: set[str] = set()
    waiting = [container]
    for top in waiting:  # the container first, then what links lead to
        if top != container and _leads_back(top):
            seen = "this link leads back to a folder that it lies in"
            raise refuse(top, seen, "Take the link away")
        below = [top]
        for folder in below:
            real = os.path.realpath(folder)
            if real in entered:
                continue
            entered.add(real)
            inside = "" if folder == container else join(Path(folder).relative_to(container).as_posix(), "")
            for entry in _entries(folder):
                if entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
                    yield _File(f"{inside}{entry.name}", top != container)
                elif os.path.isdir(entry.path):
                    if not is_made_here(entry.path):
                        (waiting if entry.is_symlink() else below).append(entry.path)
                elif entry.is_symlink():
                    yield _File(f"{inside}{entry.name}", top != container, there=False)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name; nothing where it is gone.

    Raises: AoiError where it can't be read, and is no system's own: pictures in it would be missing without a word.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and not is_hidden(os.path.basename(folder)):
            seen = f"this folder can't be read ({error.strerror})"
            raise refuse(folder, seen, sentence(remedy(error, "mount it again, or move it away")))
    return []


def _leads_back(link: str) -> bool:
    target, here = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath([target, here]) == target


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
    with suppress(*READ_ERRORS), _opened_zip(path) as archive:
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
        with _opened_zip(container) as archive:

            def unpack(name: str) -> bytes:
                entry = archive.getinfo(name)
                _refuse_large(entry.file_size)
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
                _refuse_large(os.path.getsize(path))
            return read_bytes(path)

        yield read


def _refuse_large(size: int) -> None:
    if size > MAX_BYTES:
        seen = f"it holds {size:,} bytes, more than {MAX_BYTES:,}"
        raise PictureError(seen, "save the picture as a smaller file, or take it out with its row")


@contextmanager
def _opened_zip(path: str) -> Iterator[zipfile.ZipFile]:
    if store.has_parts(path):
        yield _zip_of(store.Parts(path))
        return
    source = io.BytesIO(read_bytes(path)) if is_remote(path) else path
    with zipfile.ZipFile(source) as archive:
        yield archive


@lru_cache(maxsize=1)  # so that a worker reads the list of entries once, and not for every shard
def _zip_of(parts: store.Parts) -> zipfile.ZipFile:
    return zipfile.ZipFile(parts)
