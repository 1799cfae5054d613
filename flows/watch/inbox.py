"""What lies in the INBOX, and which of its files is to be looked at now: files come slowly, and by whatever way.

A file is known by its name: its path below the INBOX, with forward slashes.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.inputs.names import is_hidden, is_picture

Signature = tuple[int, int]  # size and time of the last change: it differs where a file has changed


def signature_of(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns


def signature_at(path: Path) -> Signature | None:
    """Of the file at a path; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return signature_of(status) if stat.S_ISREG(status.st_mode) else None


def name_of(root: Path, path: str) -> str | None:
    """The name of the file at a path below the INBOX; None where it is no picture's, or one that people did not put
    there.
    """
    name = os.path.relpath(path, root).replace(os.sep, "/")
    return name if is_picture(name) and not is_hidden(name) else None


def listed(root: Path) -> dict[str, Signature]:
    """The picture files of a folder and of those below it, the longest unchanged first. Links are passed over, and
    what systems and programs put there.

    Raises: OSError where the folder itself can't be read.
    """
    found: dict[str, Signature] = {}
    waiting = [""]
    for inside in waiting:
        try:
            entries = os.scandir(root / inside)
        except OSError:
            if not inside:
                raise
            continue
        with entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                if is_hidden(entry.name):
                    continue
                with suppress(OSError):  # it went in the meantime
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
                    elif is_picture(name) and entry.is_file(follow_symlinks=False):
                        found[name] = signature_of(entry.stat(follow_symlinks=False))
    return dict(sorted(found.items(), key=lambda item: (item[1][1], item[0])))


@dataclass
class _File:
    """since: when it was first seen with this signature; again: it changed while somebody was at work on it; wait: how
    long it must be unchanged to be looked at again; None: it need not be.
    """

    signature: Signature
    since: float
    at_work: bool = False
    again: bool = False
    wait: float | None = None


class Inbox:
    """The files that are there, and who is at work on which. All times are those of one steady clock, in seconds.

    A file is looked at when it is new or has changed, and again once it has been unchanged for as long as the last look
    asked for. Never two at a time are at work on one.
    """

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def changed(self, name: str, signature: Signature | None, now: float) -> bool:
        """Notes that a file is new or has changed, or is gone (None). Returns: whether to look at it now."""
        file = self._files.get(name)
        if signature is None:
            if file and not file.at_work:
                del self._files[name]
            return False
        if file is None:
            self._files[name] = _File(signature, now, at_work=True)
            return True
        if signature != file.signature:
            file.signature, file.since = signature, now
        file.again = file.at_work
        file.at_work = True
        return not file.again

    def listed(self, found: Mapping[str, Signature], now: float) -> list[str]:
        """Notes all that is there, for events may be lost or not come. Returns: what to look at now."""
        for name in [name for name in self._files if name not in found]:
            self.changed(name, None, now)
        return [name for name, each in found.items() if self._is_due(name, each, now) and self.changed(name, each, now)]

    def _is_due(self, name: str, signature: Signature, now: float) -> bool:
        file = self._files.get(name)
        if file is None or file.signature != signature:
            return True
        return not file.at_work and file.wait is not None and now - file.since >= file.wait

    def since(self, name: str) -> tuple[Signature, float]:
        """The signature of a file that is at work, and when it was first seen with it."""
        file = self._files[name]
        return file.signature, file.since

    def ended(self, name: str, read: Signature | None, wait: float | None, now: float) -> bool:
        """Notes the end of the work on a file. read: the signature that it had, None: it is gone. Returns: whether to
        look at it again at once, since it changed in the meantime.
        """
        file = self._files[name]
        if not file.again and read is None:
            del self._files[name]
            return False
        if read is not None and read != file.signature:
            file.signature, file.since = read, now
        file.wait, file.at_work, file.again = wait, file.again, False
        return file.at_work

    def hold(self, name: str) -> None:
        """Notes that somebody is at work on a file whose look has ended."""
        self._files[name].at_work = True
