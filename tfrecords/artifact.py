"""Finished artefacts: a folder that appears whole, with a manifest as its commit mark.

Every stage's result (dataset, model, evaluation, prediction) is such a folder. Its name ends in the
fingerprint of what made it, so the same request finds it again; its manifest lists every file with size
and sha256, so a reader can tell whether it is still what was written.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tfrecords.errors import REFUSED, AoiError, Problem, refuse

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
        return [*_own_entries(self.manifest), *self.manifest["files"]]


def hash_json(value: Any) -> str:
    """First 16 hex digits of the sha256 of `value` as canonical JSON (keys sorted, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(folder: Path, file: str) -> dict[str, Any]:
    """What a manifest says of a file in a folder."""
    path = folder / file
    return {"file": file, "bytes": path.stat().st_size, "sha256": hash_file(path)}


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well; readers see the old one or the new one, no part."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # unlike any other machine's on a shared disk
    try:
        with open(aside, "xb") as file:
            yield file
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text file, or the pieces of one, as `appearing` does, and safe from a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as file:
        file.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))
        file.flush()
        os.fsync(file.fileno())


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
    if manifest.get(CHECKSUM) != _checksum(manifest) or text != _encoded(manifest):
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


def find(root: Path, kind: str, fingerprint: str) -> Artifact | None:
    """The newest intact artefact under `root` with this fingerprint; None where there is none."""
    for _, path in reversed(_generations(root, fingerprint)):
        with contextlib.suppress(AoiError):
            return read(path, kind)
    return None


def newest(root: Path) -> list[Path]:
    """Folders of all finished artefacts under `root`, sorted: of several generations the last."""
    last: dict[str, tuple[int, Path]] = {}
    for path in root.glob("[!.]*"):
        if path.is_dir():
            name, generation = re.fullmatch(r"(.+?)(?:\.(\d+))?", path.name).groups()
            last[name] = max((int(generation or 1), path), last.get(name, (0, path)))
    return sorted(path for _, path in last.values())


def make(
    root: Path,
    name: str,
    kind: str,
    fingerprint: str,
    build: Callable[[Path], dict[str, Any]],
    force: bool = False,
) -> tuple[Artifact, bool]:
    """The artefact with this fingerprint: found, or built aside and committed by one rename.

    A build that was killed goes on in the same work folder, so `build` must accept what an earlier try left
    there; one that was killed once its manifest stood is not called again. Two processes that want the same
    artefact take turns; the second finds it made.

    Args:
        root: folder of all artefacts of this kind; the result is root/NAME-FINGERPRINT.
        build: fills the work folder and returns the manifest's own entries. Its files are listed and hashed
            here, but for those it lists itself under "shards", or by `entry_of` under RECORD's "files"; names that
            begin with a dot are its notes for a later try and go at the commit.
        force: build even if there is one. An equal result keeps the one that was there, if it is intact.

    Returns:
        the artefact, and whether it was there before.

    Raises:
        AoiError: whatever `build` raises; where it refused its input, the work folder is gone then.
    """
    if not force and len(_generations(root, fingerprint)) == 1 and (found := find(root, kind, fingerprint)):
        return found, True
    new = [folder for folder in (root, root.parent) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with locked(root / f".lock-{fingerprint}"):
            return _make(root, name, kind, fingerprint, build, force)
    except AoiError:
        for folder in new:  # made for nothing, if nothing came into it meanwhile
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make(
    root: Path, name: str, kind: str, fingerprint: str, build: Callable[[Path], dict[str, Any]], force: bool
) -> tuple[Artifact, bool]:
    """`make` for the one process that has the lock."""
    shutil.rmtree(root / f".gone-{fingerprint}", ignore_errors=True)  # a try was killed while it removed it
    found = find(root, kind, fingerprint)
    if found and not force:
        _remove_others(root, fingerprint, found.path)
        return found, True
    work = root / f".work-{fingerprint}"
    work.mkdir(exist_ok=True)
    if not (made := _sealed(work, kind)):
        try:
            body = build(work)
        except AoiError as error:
            if error.exit_code == REFUSED:
                _remove(work, fingerprint)
            raise
        made = _seal(work, kind, fingerprint, body)
    if found and found.digest == made.digest and _is_intact(found):
        _remove(work, fingerprint)
        return found, False
    return Artifact(_commit(root, name, fingerprint, work), made.manifest), False


def _seal(work: Path, kind: str, fingerprint: str, body: dict[str, Any]) -> Artifact:
    """Writes the manifest, when all that it lists is on the disk: from then on the work is whole."""
    own = {entry["file"] for entry in _own_entries(body)}
    paths = {file.relative_to(work): file for file in sorted(work.rglob("*")) if file.is_file()}
    kept = {path.as_posix(): file for path, file in paths.items() if not path.parts[0].startswith(".")}
    kept.pop(MANIFEST, None)  # of a try whose files were changed since
    for file in kept.values():
        _sync(file)
    files = [entry_of(work, path) for path in kept if path not in own]
    manifest = {"schema_version": SCHEMA_VERSION, "kind": kind, "fingerprint": fingerprint, **body, "files": files}
    # As a reader gets it: what JSON changes, such as tuples, must not change the checksum.
    manifest = json.loads(json.dumps(manifest))
    manifest[CHECKSUM] = _checksum(manifest)
    write_whole(work / MANIFEST, _encoded(manifest).decode())
    return Artifact(work, manifest)


def _own_entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [*manifest.get("shards", []), *manifest.get(RECORD, {}).get("files", [])]


def _sealed(work: Path, kind: str) -> Artifact | None:
    """The artefact that lies whole in a work folder, its commit cut short; None where it must still be built."""
    with contextlib.suppress(AoiError):
        made = read(work, kind)
        verify(made)
        return made
    return None


def _encoded(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def _checksum(manifest: dict[str, Any]) -> str:
    return hash_json({key: value for key, value in manifest.items() if key != CHECKSUM})


def _commit(root: Path, name: str, fingerprint: str, work: Path) -> Path:
    """Notes go, one rename to the next generation's name; then older generations go."""
    for note in work.glob(".*"):
        shutil.rmtree(note) if note.is_dir() else note.unlink()
    older = _generations(root, fingerprint)
    generation = older[-1][0] + 1 if older else 1
    final = root / (f"{name}-{fingerprint}" if generation == 1 else f"{name}-{fingerprint}.{generation}")
    os.rename(work, final)
    _sync(root)
    _remove_others(root, fingerprint, final)
    return final


def _remove_others(root: Path, fingerprint: str, kept: Path) -> None:
    for _, path in _generations(root, fingerprint):
        if path != kept:
            _remove(path, fingerprint)


def _remove(folder: Path, fingerprint: str) -> None:
    """Takes a folder away whole, by one rename, before its files go one by one."""
    gone = folder.with_name(f".gone-{fingerprint}")
    os.rename(folder, gone)
    shutil.rmtree(gone)


def _generations(root: Path, fingerprint: str) -> list[tuple[int, Path]]:
    """Folders of this fingerprint, oldest first: NAME-FINGERPRINT, NAME-FINGERPRINT.2, ..."""
    name = re.compile(rf".+-{fingerprint}(?:\.(\d+))?")
    paths = root.glob(f"[!.]*-{fingerprint}*")
    return sorted((int(match[1] or 1), path) for path in paths if (match := name.fullmatch(path.name)))


def _is_intact(artifact: Artifact) -> bool:
    try:
        verify(artifact)
    except AoiError:
        return False
    return True


def _size(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:
        return "missing"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an advisory lock that the kernel drops when its owner dies; the file goes with the last owner."""
    while True:
        with open(path, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Its last owner may have removed the file while we waited: then we hold a lock nobody else sees.
            try:
                ours = os.path.samefile(path, file.fileno())
            except FileNotFoundError:
                ours = False
            if not ours:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
