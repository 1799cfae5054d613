"""Finished artefacts: folders with a manifest, read and verified.

Every stage's result (dataset, model, evaluation, prediction) is such a folder. Its manifest lists every file with size
and sha256, so a reader can tell whether it is still what was written.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrecords.artifacts.files import hash_file, hash_json
from tfrecords.errors import AoiError, Problem, refuse

SCHEMA_VERSION = 1


MANIFEST = "manifest.json"


CHECKSUM = "checksum"  # manifest entry: hash of all the others


RECORD = "mlflow"  # manifest entry on how and where it was made, clock and files with a clock; no part of its content


@dataclass(frozen=True)
class Artifact:
    """A committed folder. manifest: its manifest.json, as read."""

    path: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def digest(self) -> str:
        """Hash of the content: equal for equal files and facts, wherever and whenever they were made."""
        return hash_json({key: value for key, value in self.manifest.items() if key not in (RECORD, CHECKSUM)})

    def listed(self) -> list[dict[str, Any]]:
        """Every file that the manifest promises: {file, bytes, sha256, ...}."""
        return [*own_entries(self.manifest), *self.manifest["files"]]


def read(path: Path, kind: str) -> Artifact:
    """The artefact in folder `path`, its files checked for presence and size.

    Raises:
        AoiError: no manifest, another kind or schema version, a file that is missing or of another size.
    """
    try:
        text = (path / MANIFEST).read_bytes()
        manifest = json.loads(text)
        found = (manifest["kind"], manifest["schema_version"])
    except (FileNotFoundError, NotADirectoryError):
        raise refuse(path, f"no {MANIFEST}, so no finished {kind}", f"Name a {kind} folder that a stage finished")
    except (ValueError, KeyError, TypeError) as error:
        raise refuse(path / MANIFEST, f"not a manifest ({error})", f"Make the {kind} again with --force")
    if found != (kind, SCHEMA_VERSION):
        raise refuse(
            path / MANIFEST,
            f"a {found[0]} of schema version {found[1]}, not a {kind} of version {SCHEMA_VERSION}",
            f"Make the {kind} again with this version, or name another folder",
        )
    if manifest.get(CHECKSUM) != checksum(manifest) or text != encoded(manifest):
        raise refuse(path / MANIFEST, "it was changed after it was written", f"Make the {kind} again with --force")
    artifact = Artifact(path, manifest)
    problems = [
        Problem(str(path / entry["file"]), f"{seen} instead of {entry['bytes']} bytes", "Make it again with --force")
        for entry in artifact.listed()
        if (seen := _size(path / entry["file"])) != entry["bytes"]
    ]
    if problems:
        raise AoiError(problems)
    return artifact


def verify(artifact: Artifact) -> None:
    """Reads every file of the artefact and compares its sha256 with the manifest's.

    Raises:
        AoiError: names each file whose bytes have changed.
    """

    def check(entry: dict[str, Any]) -> Problem | None:
        path = artifact.path / entry["file"]
        try:
            if hash_file(path) == entry["sha256"]:
                return None
            seen = "its bytes are not those that were committed"
        except OSError as error:
            seen = f"it can't be read ({error.strerror})"
        return Problem(str(path), seen, "Make it again with --force")

    with ThreadPoolExecutor() as pool:
        problems = [problem for problem in pool.map(check, artifact.listed()) if problem]
    if problems:
        raise AoiError(problems)


def own_entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [*manifest.get("shards", []), *manifest.get(RECORD, {}).get("files", [])]


def encoded(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def checksum(manifest: dict[str, Any]) -> str:
    return hash_json({key: value for key, value in manifest.items() if key != CHECKSUM})


def _size(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:
        return "missing"
