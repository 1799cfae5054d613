"""Finished artefacts: folders with a manifest, read and verified.

Every stage's result (dataset, model, evaluation, prediction) is such a folder. Its manifest lists every file with size
and sha256, so a reader can tell whether it is still what was written.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from tfrecords.artifacts.files import hash_file, hash_json
from tfrecords.artifacts.manifest import ASIDE, CHECKSUM, MANIFEST, SCHEMA_VERSION, FileEntry, MadeFrom, Manifest
from tfrecords.errors import AoiError, Problem, refuse

M_co = TypeVar("M_co", bound=Manifest, covariant=True)
M = TypeVar("M", bound=Manifest)


@dataclass(frozen=True)
class Artifact(Generic[M_co]):
    """A committed folder. manifest: what its manifest.json says; json: the same as read, with all of its entries."""

    path: Path
    manifest: M_co
    json: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of what decided the artefact."""
        return self.manifest.fingerprint

    @property
    def digest(self) -> str:
        """Hash of the content: equal for equal files and facts, wherever and whenever they were made."""
        return hash_json({key: value for key, value in self.json.items() if key not in ASIDE})

    @property
    def made_from(self) -> MadeFrom:
        """What the manifest of an artefact that is made from this one says of it."""
        return MadeFrom(fingerprint=self.fingerprint, digest=self.digest)

    def listed(self) -> list[FileEntry]:
        """Every file that the manifest promises."""
        return [*self.manifest.listed(), *self.manifest.files]

    def place(self, entry: FileEntry) -> Path:
        """Where a file lies on this machine."""
        return self.manifest.place(self.path, entry)


def read(path: Path, kind: type[M]) -> Artifact[M]:
    """The artefact in folder `path`, its files checked for presence and size, those in a store excepted.

    kind: the type of its manifest.

    Raises:
        AoiError: no manifest, another kind or schema version, a file that is missing or of another size.
    """
    name = kind.KIND
    again = _again(kind)
    try:
        text = (path / MANIFEST).read_bytes()
        entries = json.loads(text)
        found = (entries["kind"], entries["schema_version"])
    except (FileNotFoundError, NotADirectoryError):
        raise refuse(path, f"no {MANIFEST}, so no finished {name}", f"Name a {name} folder that a stage finished")
    except (ValueError, KeyError, TypeError) as error:
        raise refuse(path / MANIFEST, f"not a manifest ({error})", again)
    if found != (name, SCHEMA_VERSION):
        raise refuse(
            path / MANIFEST,
            f"a {found[0]} of schema version {found[1]}, not a {name} of version {SCHEMA_VERSION}",
            f"Make the {name} again with this version, or name another folder",
        )
    if entries.get(CHECKSUM) != checksum(entries) or text != encoded(entries):
        raise refuse(path / MANIFEST, "it was changed after it was written", again)
    try:
        artifact = Artifact(path, kind.model_validate(entries), entries)
    except ValidationError as error:  # its checksum holds, so another version wrote it
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise refuse(path / MANIFEST, f"another version wrote it ({where}: {error.errors()[0]['msg']})", again)
    problems = [
        Problem(str(place), f"{seen} instead of {entry.bytes} bytes", again)
        for entry in artifact.listed()
        if not artifact.manifest.is_copy(entry)
        for place in [artifact.place(entry)]
        if (seen := _size(place)) != entry.bytes
    ]
    if problems:
        raise AoiError(problems)
    return artifact


def _again(kind: type[Manifest]) -> str:
    how = f": {kind.MADE_BY} --force, with the settings that it was made with" if kind.MADE_BY else " with --force"
    return f"Make the {kind.KIND} again{how}"


def verify(artifact: Artifact) -> None:
    """Reads every file of the artefact on this machine and compares its sha256 with the manifest's.

    Copies of what lies in a store are passed over.

    Raises:
        AoiError: names each file whose bytes have changed.
    """

    def check(entry: FileEntry) -> Problem | None:
        path = artifact.place(entry)
        try:
            if hash_file(path) == entry.sha256:
                return None
            seen = "its bytes are not those that were committed"
        except OSError as error:
            seen = f"it can't be read ({error.strerror})"
        return Problem(str(path), seen, _again(type(artifact.manifest)))

    with ThreadPoolExecutor() as pool:
        own = [entry for entry in artifact.listed() if not artifact.manifest.is_copy(entry)]
        problems = [problem for problem in pool.map(check, own) if problem]
    if problems:
        raise AoiError(problems)


def entry_of(folder: Path, file: str) -> FileEntry:
    """What a manifest says of a file in a folder."""
    path = folder / file
    return FileEntry(file=file, bytes=path.stat().st_size, sha256=hash_file(path))


def encoded(entries: Mapping[str, Any]) -> bytes:
    """The bytes of manifest.json."""
    return (json.dumps(entries, indent=1, ensure_ascii=False) + "\n").encode()


def checksum(entries: Mapping[str, Any]) -> str:
    """Hash of all entries of a manifest but the checksum itself."""
    return hash_json({key: value for key, value in entries.items() if key != CHECKSUM})


def _size(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:
        return "missing"
