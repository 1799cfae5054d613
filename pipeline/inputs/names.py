"""What names of files tell: which are pictures', which people put there, and in which encoding they are meant."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tfrecords.pictures.formats import SUFFIXES

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


def is_picture(name: str) -> bool:
    """Whether a name ends as that of a picture's file."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a name, or a folder in it, is one that systems and programs make, not people."""
    return HIDDEN.search(name) is not None


def is_unicode(name: str) -> bool:
    """Whether a name is text; one in another encoding than the system's is not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_slashes(name: str) -> str:
    """The name with forward slashes, without what means nothing: a/./b//c.png is a/b/c.png."""
    name = name.replace("\\", "/")
    if "./" not in name and "//" not in name:
        return name
    parts = name.split("/")
    return "/".join(part for at, part in enumerate(parts) if part not in (".", "") or (at == 0 and not part))


def spellings(names: Sequence[str], doubtful: Mapping[str, bytes]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The encodings in which all names can be meant, the likeliest first; and every name in each of them.

    doubtful: the bytes of names whose encoding nothing tells.
    """
    wrong = {} if doubtful else {name: _as_dos(name) for name in names if not name.isascii()}
    known: dict[str, dict[str, str]] = {AS_STORED: {}}
    for encoding, bytes_of in (("utf-8", doubtful), ("cp950", doubtful), ("utf-8", wrong), ("cp950", wrong)):
        with suppress(UnicodeError):
            if bytes_of:
                known[encoding] = {name: data.decode(encoding) for name, data in bytes_of.items()}
    if len(known) == 1:
        return (AS_STORED,), [(name,) for name in names]
    encodings = sorted(known, key=lambda encoding: encoding == AS_STORED) if doubtful else list(known)
    return tuple(encodings), [tuple(known[encoding].get(name, name) for encoding in encodings) for name in names]


def _as_dos(name: str) -> bytes:
    """The bytes of a name that a program unpacked as if it were in the encoding of DOS; what can't be such is kept."""
    try:
        return name.encode("cp437")
    except UnicodeEncodeError:
        return b"\xff"  # in no encoding a letter


def is_strange(name: str) -> bool:
    """Whether a name of a zip, read as DOS wrote it, is likely in another encoding: it has signs that are no letters of
    western names, or is Japanese where it is read as that.
    """
    if set(name.encode("cp437")).difference(range(0xA9)):
        return True
    with suppress(UnicodeDecodeError):
        read = name.encode("cp437").decode("cp932")
        return all(unicodedata.name(c, "").startswith(JAPANESE) for c in read if not c.isascii())
    return False
