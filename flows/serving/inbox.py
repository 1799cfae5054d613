"""The inbox of `aoi serve`: a folder in which every finished lot, a folder of pictures, is predicted once."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.home import Home
from pipeline.inputs.names import is_hidden, is_unicode
from tfrecords.artifacts.files import hash_json
from tfrecords.errors import printable, refuse

log = logging.getLogger(__name__)
DONE = ".done"  # a file in a lot: all of it is there
RESULTS = "results"  # a folder in the inbox
NOTE = "inbox"  # HOME's note of the lots that were started
SETTLE_SECONDS = 30.0


@dataclass(frozen=True)
class Lot:
    """A finished lot. request: one that is started again, for its .done is a newer one, has another."""

    path: Path
    results: Path
    request: str

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    @property
    def key(self) -> str:
        """Unlike that of every other start of a lot, of this inbox or another."""
        return f"{self.path} {self.request}"


@dataclass
class Inbox:
    """The lots of a folder.

    A lot is finished once it has a file .done, or has been without change for some seconds. Each is given until it is
    noted as started; after that only a newer .done makes it one to start. A folder that was away is a new lot.

    home: keeps the note of what was started; settle: seconds without change.
    """

    home: Home
    folder: Path
    settle: float
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def finished(self, now: float) -> list[Lot]:
        """Lots to start, by name. now: seconds on a clock that is never set. Raises: OSError where DIR is away."""
        lots = {path.name: path for path in sorted(self._folders())}
        started = {name: request for name, request in self._started().items() if name in lots}
        if len(started) < len(self._started()):
            self._remember(started)
        self._seen = {name: seen for name, seen in self._seen.items() if name in lots}
        found = []
        for name, path in lots.items():
            request = _done(path)
            if request is None and name not in started:
                request = self._settled(path, now)
            if request is not None and started.get(name) != request:
                found.append(Lot(path, self.folder / RESULTS / name, request))
        return found

    def note(self, lot: Lot) -> None:
        """Notes a lot as started."""
        self._remember({**self._started(), lot.name: lot.request})

    def _remember(self, started: Mapping[str, str]) -> None:
        self.home.remember(NOTE, {"folder": str(self.folder), "started": dict(started)})

    def _started(self) -> Mapping[str, str]:
        noted = self.home.recall(NOTE) or {}
        started: dict[str, str] = noted["started"] if noted.get("folder") == str(self.folder) else {}
        return started

    def _folders(self) -> Iterator[Path]:
        for entry in os.scandir(self.folder):
            if entry.name == RESULTS or entry.name.startswith(".") or is_hidden(entry.name) or not entry.is_dir():
                continue
            if is_unicode(entry.name):
                yield Path(entry.path)
            elif entry.name not in self._told:
                self._told.add(entry.name)
                seen = "%s: %s is passed over: its name is in no known encoding. Rename it"
                log.warning(seen, self.folder, printable(entry.name))

    def _settled(self, lot: Path, now: float) -> str | None:
        """What the lot holds, once that has been the same for long enough; of an empty one nothing."""
        files = sorted(_files(lot))
        holds = hash_json(files)
        if not files or self._seen.get(lot.name, ("", now))[0] != holds:
            self._seen[lot.name] = holds, now
            return None
        return holds if now - self._seen[lot.name][1] >= self.settle else None


def open_inbox(home: Home, folder: str, settle: float) -> Inbox:
    """The inbox in a folder that a person named; makes its folder for results.

    Raises: AoiError for a folder that is none, or has HOME in it; for seconds that are none. OSError where nothing
        can be written there.
    """
    if not os.path.isdir(folder):
        remedy = "Make it, or name a folder of this machine or a mount: --inbox DIR"
        raise refuse(folder, "there is no such folder to watch for lots", remedy)
    path = Path(folder).resolve()
    if home.root.resolve().is_relative_to(path):
        raise refuse(folder, "HOME is in it, and would be taken for a lot", "Name a folder that holds lots alone")
    if not settle > 0:
        raise refuse("--settle", f"{settle:g} is no time to wait", "Give a number of seconds above 0, such as 30")
    (path / RESULTS).mkdir(exist_ok=True)
    return Inbox(home, path, settle)


def _done(lot: Path) -> str | None:
    with suppress(OSError):
        return str((lot / DONE).stat().st_mtime_ns)
    return None


def _files(lot: Path) -> Iterator[tuple[str, int, int]]:
    """(path, size, time of change) of each file in a lot. A file that goes meanwhile is left out."""
    for folder, _, names in os.walk(lot):
        for name in names:
            with suppress(OSError):
                told = os.stat(os.path.join(folder, name))
                yield os.path.join(folder, name), told.st_size, told.st_mtime_ns
