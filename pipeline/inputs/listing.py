"""What a folder, a zip or a store holds: its pictures, under every name that a person may know them by."""

import json
import os
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pipeline import store
from pipeline.inputs.files import is_remote, is_zip, join, opened_zip, remedy
from pipeline.inputs.names import AS_STORED, is_hidden, is_picture, is_strange, is_unicode, spellings, with_slashes
from tfrecords.artifacts.manifest import CHECKSUM, MANIFEST
from tfrecords.errors import printable, refuse, sentence

ENCRYPTED, UTF8_FLAG, DEFLATE64 = 0x1, 0x800, 9  # of an entry in a zip


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


class _Found(NamedTuple):
    """The files of a container.

    doubtful: the bytes of names whose encoding nothing tells; linked: the names that lie behind a link to a folder;
    nowhere: how many links lead nowhere.
    """

    names: Sequence[str]
    doubtful: Mapping[str, bytes] = MappingProxyType({})
    linked: Collection[str] = ()
    nowhere: int = 0


def list_pictures(container: str) -> Listing:
    """All files in a folder (below it too) or a zip whose names end as a picture's do.

    Raises: READ_ERRORS; AoiError for a zip that can't be read as a whole, and for links that lead in a circle.
    """
    if is_zip(container):
        found = _in_zip(container)
    elif is_remote(container):
        found = _Found(store.names_below(container))
    else:
        found = _in_folder(container)
    pictures = sorted(filter(is_picture, found.names))
    encodings, spelled = spellings(pictures, found.doubtful)
    if encodings == (AS_STORED,) and is_zip(container) and (strange := list(filter(is_strange, found.doubtful))):
        seen = f"its names are in no encoding that is known, such as {printable(strange[0])[:80]!r}"
        raise refuse(container, seen, "Pack the zip again with names in UTF-8, as 7-Zip does with -mcu")
    others = Counter(
        os.path.splitext(name)[1].lower()
        for name in sorted(set(found.names).difference(pictures))
        if not name.endswith("/") and not is_hidden(name)
    ) + Counter({"link(s) that lead nowhere": found.nowhere})
    return Listing(
        tuple(
            Stored(name, tuple(map(with_slashes, known_as)), is_hidden(name), name in found.linked)
            for name, known_as in zip(pictures, spelled, strict=True)
        ),
        encodings,
        dict(others.most_common()),
    )


def _in_zip(container: str) -> _Found:
    with opened_zip(container) as archive:
        entries = archive.infolist()
    pictures = [entry for entry in entries if is_picture(entry.filename)]
    _refuse_packing(container, pictures)
    doubtful = {}
    for entry in pictures:
        if not entry.filename.isascii() and not entry.flag_bits & UTF8_FLAG:
            with suppress(UnicodeEncodeError):  # a newer Python has read the name from the entry's extra field
                doubtful[entry.filename] = entry.filename.encode("cp437")
    return _Found([entry.filename for entry in entries], doubtful)


def _refuse_packing(container: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raises AoiError for a zip none of whose pictures could be unpacked, or that Python can't unpack by its method."""
    again = "Pack the zip again, without a password and with the usual compression (deflate)"
    for entry in entries:
        if entry.compress_type == DEFLATE64:
            seen = f"{entry.filename[:80]} is packed with Deflate64, which is not read"
            raise refuse(container, seen, f"{again}; Windows' Explorer takes Deflate64 for large files, 7-Zip need not")
    if len(entries) > 1 and all(entry.flag_bits & ENCRYPTED for entry in entries):
        raise refuse(container, f"all of its {len(entries):,} pictures are encrypted", again)


def _in_folder(container: str) -> _Found:
    """The files at any depth; each folder is entered once.

    Raises:
        OSError: the container itself can't be read. AoiError: a folder in it can't be, or a link leads back to a
            folder that it lies in.
    """
    os.scandir(container).close()
    names: list[str] = []
    linked: set[str] = set()
    nowhere = 0
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
                    names.append(f"{inside}{entry.name}")
                    if top != container:
                        linked.add(names[-1])
                elif os.path.isdir(entry.path):
                    if not is_made_here(entry.path):
                        (waiting if entry.is_symlink() else below).append(entry.path)
                else:
                    nowhere += entry.is_symlink()
    doubtful = {name: os.fsencode(name) for name in names if not (name.isascii() or is_unicode(name))}
    return _Found(names, doubtful, linked, nowhere)


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
